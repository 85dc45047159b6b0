"""Control's Prometheus metrics: counters fed by events, gauges filled when somebody scrapes.

Resource and instance ids are never labels: their number has no bound.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from typing import Any, Final

import structlog
from aegis_sdk.contract.control import InstanceState, LeaseState
from aegis_sdk.errors import AegisError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from aegis_control.application.state import ControlState, ServiceTable
from aegis_control.infrastructure.nats_link import ApiRefused
from aegis_control.infrastructure.nats_streams import NatsStreams

BUCKETS_S: Final = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""From 0.25 ms: the usual start, 5 ms, is the whole budget of a request here."""

_DEPTHS_CACHED_S: Final = 2.0
"""Asking the server for every consumer at each scrape of several scrapers would be a load of its own."""


class Metrics:
    """One registry a process. `observe` listens to events; `render` is a scrape."""

    def __init__(self, streams: NatsStreams, version: str) -> None:
        self._streams = streams
        self._registry = registry = CollectorRegistry()
        self._read_at_s = float("-inf")
        self._reading = asyncio.Lock()
        self._instances = Gauge(
            "aegis_instances", "Registered instances.", ["service", "state"], registry=registry
        )
        self._resources = Gauge(
            "aegis_resources",
            "Resources by role: active, standby (followed by a live standby), waiting, vacant.",
            ["service", "role"],
            registry=registry,
        )
        self._queue_depth = Gauge(
            "aegis_queue_depth",
            "Requests that wait or are not acknowledged yet.",
            ["service", "route"],
            registry=registry,
        )
        self._standby_lag = Gauge(
            "aegis_standby_lag_entries",
            "Journal entries that the furthest behind live instance has not read yet.",
            ["service"],
            registry=registry,
        )
        self._failovers = Counter(
            "aegis_failovers",
            "Times that resources of an instance moved to others.",
            ["service", "reason"],
            registry=registry,
        )
        self._failover_duration = Histogram(
            "aegis_failover_duration_seconds",
            "From the verdict until the last fence was written.",
            ["service"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._dead_letters = Gauge(
            "aegis_dlq_messages", "Dead letters that are kept.", registry=registry
        )
        self._leading = Gauge(
            "aegis_control_leader", "1 while this replica of control leads.", registry=registry
        )
        build = Gauge("aegis_build_info", "The version.", ["version"], registry=registry)
        build.labels(version).set(1)

    def observe(self, event: str, details: dict[str, Any]) -> None:
        """Listen to control's events."""
        if event == "failover_done" and details["resources"]:
            service = details["service"]
            # What follows a colon is an operator's free text, and has no bound.
            reason = str(details["reason"]).partition(":")[0].partition(" by ")[0]
            self._failovers.labels(service, reason).inc()
            self._failover_duration.labels(service).observe(details["duration_s"])

    async def render(self, state: ControlState | None) -> bytes:
        """The text format; `state` is what the leader knows, None on a replica that doesn't lead."""
        self._leading.set(0 if state is None else 1)
        for gauge in (self._instances, self._resources, self._standby_lag):
            gauge.clear()
        if state is None:
            self._queue_depth.clear()
        else:
            for table in list(state.services.values()):
                self._fill(table)
            await self._read_depths(list(state.services))
        return generate_latest(self._registry)

    def _fill(self, table: ServiceTable) -> None:
        states = Tally(member.record.state for member in table.members.values())
        for state in InstanceState:
            self._instances.labels(table.name, state.value).set(states[state])
        for role, number in _roles(table).items():
            self._resources.labels(table.name, role).set(number)
        live = [m for m in table.members.values() if m.record.state is InstanceState.LIVE]
        lag = max((member.lag_entries for member in live), default=0)
        self._standby_lag.labels(table.name).set(lag)

    async def _read_depths(self, services: list[str]) -> None:
        async with self._reading:
            if time.monotonic() - self._read_at_s < _DEPTHS_CACHED_S:
                return
            try:
                self._dead_letters.set(await self._streams.dead_letters())
                for service in services:
                    for route, depth in (await self._streams.depths(service)).items():
                        self._queue_depth.labels(service, route).set(depth)
            except (AegisError, ApiRefused) as error:
                structlog.stdlib.get_logger("aegis_control").warning(
                    "queue_depths_not_read", reason=str(error)
                )
            self._read_at_s = time.monotonic()


def _roles(table: ServiceTable) -> dict[str, int]:
    states = Tally(lease.record.state for lease in table.leases.values())
    followed = {
        resource
        for name, member in table.members.items()
        if member.record.state is InstanceState.LIVE
        for resource in member.record.resources
        if not _is_active(table, resource, name)
    }
    return {
        "active": states[LeaseState.HELD],
        "standby": len(followed),
        "waiting": states[LeaseState.WAITING],
        "vacant": states[LeaseState.VACANT],
    }


def _is_active(table: ServiceTable, resource: str, instance_id: str) -> bool:
    lease = table.leases.get(resource)
    return lease is not None and lease.record.owner == instance_id
