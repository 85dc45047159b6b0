"""What the leader knows, in the words that operators are shown: services, instances, routes.

One pass over a service's leases each, however many instances it has: pages ask for this every second.
"""

from __future__ import annotations

from collections.abc import Mapping

from aegis_sdk.contract.control import (
    InstanceState,
    InstanceView,
    LeaseState,
    PauseView,
    RouteView,
    ServiceView,
    StandbyView,
)
from aegis_sdk.contract.turns.holds import Hold, hold_of, in_words

from aegis_control.application.ports import Clock
from aegis_control.application.state import Member, ServiceTable


def pause_view(table: ServiceTable, what: str, hold: Hold) -> PauseView:
    return PauseView(
        service=table.name,
        what=in_words(table.name, what),
        resource=what[1:] if what.startswith("@") else None,
        method=what[1:] if what.startswith("/") else None,
        since=hold.since_s,
        by=hold.by,
        reason=hold.reason,
    )


def paused_of(table: ServiceTable) -> list[PauseView]:
    """What is paused, the longest first."""
    return sorted(
        (pause_view(table, what, hold) for what, hold in table.holds.items()),
        key=lambda view: view.since,
    )


def _paused(table: ServiceTable, resource: str) -> PauseView | None:
    found = hold_of(table.holds, "", resource) if table.holds else None
    return None if found is None else pause_view(table, *found)


def service_view(table: ServiceTable, clock: Clock, *, calls_per_s: float | None) -> ServiceView:
    record = table.record
    return ServiceView(
        service=table.name,
        version=record.version if record else "",
        methods=[method.name for method in record.methods] if record else [],
        resources=len(table.leases),
        calls_per_s=calls_per_s,
        instances=instance_views(table, clock),
        paused=paused_of(table),
    )


def instance_views(table: ServiceTable, clock: Clock) -> list[InstanceView]:
    """By name."""
    active = table.active_counts()
    return [_instance(table.members[name], active, clock) for name in sorted(table.members)]


def instance_view(table: ServiceTable, member: Member, clock: Clock) -> InstanceView:
    return _instance(member, table.active_counts(), clock)


def _instance(member: Member, active_counts: Mapping[str, int], clock: Clock) -> InstanceView:
    record, beat = member.record, member.beat
    active = active_counts.get(record.instance_id, 0)
    return InstanceView(
        service=record.service,
        instance_id=record.instance_id,
        state=record.state,
        version=record.version,
        sdk_version=record.sdk_version,
        protocol=record.protocol,
        host=record.host,
        pid=record.pid,
        since=record.since,
        heartbeat_age_s=round(clock.monotonic() - member.heard_at_s, 3),
        loop_lag_s=beat.loop_lag_s if beat else 0.0,
        running=beat.running if beat else 0,
        open=beat.open if beat else 0,
        active=active,
        standby=max(0, len(record.resources) - active),
        capacity=record.capacity,
        on_demand=record.on_demand.patterns if record.on_demand else [],
        zone=record.zone,
        lag_entries=member.lag_entries,
        clock_offset_s=member.clock_offset_s,
        unreadable=beat.unreadable if beat else 0,
        reason=record.reason,
    )


def route_view(table: ServiceTable, resource: str) -> RouteView:
    lease = table.leases[resource].record
    held = lease.state is LeaseState.HELD
    return RouteView(
        service=table.name,
        resource=resource,
        state=lease.state,
        active=lease.owner if held else None,
        epoch=lease.epoch,
        since=lease.since,
        reason=lease.reason,
        paused=_paused(table, resource),
        standbys=[
            StandbyView(instance_id=name, state=member.record.state, lag_entries=member.lag_entries)
            for name, member in sorted(table.members.items())
            if resource in member.record.resources and not (held and name == lease.owner)
        ],
    )


def unfollowed(table: ServiceTable) -> set[str]:
    """The resources with an active that nobody could take over just now."""
    alone = {name for name, lease in table.leases.items() if lease.record.state is LeaseState.HELD}
    for name, member in table.members.items():
        if member.record.state is InstanceState.LIVE:
            alone.difference_update(
                resource
                for resource in alone & member.record.resources.keys()
                if table.leases[resource].record.owner != name
            )
    return alone
