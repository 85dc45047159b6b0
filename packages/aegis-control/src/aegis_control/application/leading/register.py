"""Registering an instance: check, refuse or store, then grant what it may be active for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pydantic
from aegis_sdk.contract.control import (
    PROTOCOL,
    PROTOCOL_MIN,
    Compatibility,
    InstanceRecord,
    InstanceState,
    LeaseState,
    Registration,
    RegistrationReply,
    Role,
    misfit,
)
from aegis_sdk.contract.values import field_errors
from aegis_sdk.errors import InvalidName, LogLost, Unavailable

from aegis_control.application.leading.event_streams import EventStreams
from aegis_control.application.leading.fail_over import FailOver
from aegis_control.application.leading.logs import LogKeeper
from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.roster import Roster
from aegis_control.application.ports import ProvisionFailed
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import ContractBroken, InstanceRegistered, RegistrationRefused
from aegis_control.domain.leading.contracts import differences
from aegis_control.domain.leading.lease import Owner
from aegis_control.domain.leading.liveness import CAN_KEEP
from aegis_control.domain.leading.registry import (
    Claim,
    Holder,
    check_contract,
    check_registration,
    claim,
    standing,
    streams_needed,
)

_LOST_RETRY_S = 0.5


class Register:
    """Answers registrations. What it promises in a reply is stored before the reply is sent."""

    def __init__(
        self,
        state: ControlState,
        world: World,
        roster: Roster,
        leases: Leases,
        fail_over: FailOver,
        logs: LogKeeper,
        event_streams: EventStreams,
    ) -> None:
        self._state = state
        self._world = world
        self._roster = roster
        self._leases = leases
        self._fail_over = fail_over
        self._logs = logs
        self._event_streams = event_streams

    async def __call__(self, data: bytes) -> RegistrationReply:
        """The reply to a registration's JSON; never raises for what is in it."""
        try:
            registration = Registration.model_validate_json(data)
            check_registration(registration)
        except pydantic.ValidationError as error:
            return refuse("invalid", "; ".join(field_errors(error)))
        except InvalidName as error:
            return refuse("invalid", str(error))
        unspoken = misfit(
            registration.protocol,
            instance=registration.instance_id,
            sdk_version=registration.sdk_version,
        )
        if unspoken:
            refusal = refuse("protocol", unspoken)
            self._tell_refusal(registration, refusal)
            return refusal
        try:
            return await self._register(registration)
        except ProvisionFailed as error:
            return refuse("internal", str(error))
        except Unavailable as error:
            return self.busy(f"NATS did not answer control: {error}")

    async def _register(self, registration: Registration) -> RegistrationReply:
        table = self._state.service(registration.service)
        async with table.lock:
            await self._provision(table)
            await self._logs.hear(table, registration)
            if table.lost:
                return self.lost(table)
            refusal = self._evicted(table, registration)
            me = Owner(registration.instance_id, registration.incarnation)
            claims = self.claims(
                table, me, registration.resources, returning=registration.returning
            )
            broken = _broken(table, registration)
            refusal = (
                refusal or self._misfit(table, registration) or _too_strict(registration, broken)
            )
            refusal = refusal or self._overtaken(table, registration)
            refusal = refusal or self.refusal(table, claims)
            if refusal is not None:
                self._tell_refusal(registration, refusal)
                return refusal
            await self._event_streams.provide(streams_needed(registration))
            await self._roster.put_service(table, registration)
            member = await self._roster.put_instance(table, self._record(registration))
            member.heard_at_s, member.heard = self._world.clock.monotonic(), True
            member.keeps_leases = True
            granted = await self._grant(table, member, claims)
        if broken:
            self._world.events.emit(
                ContractBroken(
                    service=table.name,
                    instance_id=registration.instance_id,
                    version=registration.version,
                    fields=broken,
                )
            )
        self._world.events.emit(
            InstanceRegistered(
                service=table.name,
                instance_id=registration.instance_id,
                version=registration.version,
                sdk_version=registration.sdk_version,
                host=registration.host,
                pid=registration.pid,
                returning=registration.returning,
                active=granted,
                standby=len(registration.resources) - granted,
            )
        )
        return self._welcome(table, registration)

    async def _provision(self, table: ServiceTable) -> None:
        """Once a service and term of leadership."""
        if table.provisioned or table.lost:
            return
        await self._logs.provision(table)
        table.provisioned = not table.lost

    def claims(
        self, table: ServiceTable, me: Owner, offered: Mapping[str, Role], *, returning: bool
    ) -> dict[str, Claim]:
        """What becomes of each resource that `me` offers."""
        now_s = self._world.clock.monotonic()
        claims = {}
        for resource, role in offered.items():
            stored = table.leases.get(resource)
            lease = stored.record if stored else None
            owner = table.owner_of(lease) if lease else None
            found = standing(lease, self._holder(owner, now_s), me)
            claims[resource] = claim(role, found, returning=returning)
        return claims

    def refusal(self, table: ServiceTable, claims: dict[str, Claim]) -> RegistrationReply | None:
        """If one of them can't be had, or not yet."""
        return self._refused(table, claims) or self._doubted(table, claims)

    def _holder(self, owner: Member | None, now_s: float) -> Holder | None:
        suspicion_s = self._world.limits.suspicion_s
        return None if owner is None else owner.holder(now_s=now_s, suspicion_s=suspicion_s)

    async def grant(self, table: ServiceTable, member: Member, claims: dict[str, Claim]) -> None:
        """Make the instance the active of what it may have."""
        kept = [name for name, what in claims.items() if what is Claim.KEEP]
        granted = [name for name, what in claims.items() if what is Claim.GRANT]
        await self._leases.put_in_state(table, kept, LeaseState.HELD, reason="returned")
        await self._leases.grant(table, granted, member, reason="registered")
        await self._leases.ensure_gates(table, claims)

    async def _grant(self, table: ServiceTable, member: Member, claims: dict[str, Claim]) -> int:
        """Returns for how many resources the instance is active now."""
        await self.grant(table, member, claims)
        await self._fail_over.settle(
            table, self._left_behind(table, member), reason="replaced_by_new_run"
        )
        not_offered = set(table.owned_by(member.owner)) - member.record.resources.keys()
        moved = await self._fail_over.settle(table, sorted(not_offered), reason="stood_back")
        await self._leases.put_in_state(table, moved.vacant, LeaseState.VACANT, reason="stood_back")
        return len(table.owned_by(member.owner))

    def _left_behind(self, table: ServiceTable, member: Member) -> Iterable[str]:
        """What an earlier run of this instance was active for, and this one doesn't offer."""
        return [
            name
            for name, lease in table.leases.items()
            if lease.record.owner == member.record.instance_id
            and lease.record.incarnation != member.record.incarnation
        ]

    def _record(self, registration: Registration) -> InstanceRecord:
        return InstanceRecord(
            service=registration.service,
            instance_id=registration.instance_id,
            incarnation=registration.incarnation,
            version=registration.version,
            sdk_version=registration.sdk_version,
            protocol=registration.protocol,
            host=registration.host,
            pid=registration.pid,
            resources=registration.resources,
            takes=[method.takes for method in registration.methods if method.takes],
            offer=registration.offer,
            capacity=registration.capacity,
            on_demand=registration.on_demand,
            zone=registration.zone,
            since=self._world.clock.wall(),
        )

    def _evicted(self, table: ServiceTable, registration: Registration) -> RegistrationReply | None:
        known = table.members.get(registration.instance_id)
        if known is None:
            return None
        if known.record.incarnation in (registration.incarnation, registration.renews):
            if known.record.state is not InstanceState.EVICTED:
                return None
            why = f" ({known.record.reason})" if known.record.reason else ""
            return refuse(
                "evicted",
                f"instance {registration.instance_id} was disconnected by an operator{why};"
                " start it again to let it back in",
            )
        if registration.returning and known.record.state is InstanceState.LIVE:
            return refuse(
                "evicted",
                f"another run of instance id {registration.instance_id} (pid {known.record.pid} on"
                f" {known.record.host or 'unknown host'}) registered since: give each process its own id",
            )
        return None

    def _overtaken(
        self, table: ServiceTable, registration: Registration
    ) -> RegistrationReply | None:
        """It was long on its way: the instance has offered something else since."""
        known = table.members.get(registration.instance_id)
        if known is None or known.record.incarnation != registration.incarnation:
            return None
        if registration.offer >= known.record.offer:
            return None
        return self.busy("this instance has changed what it offers since")

    def _misfit(self, table: ServiceTable, registration: Registration) -> RegistrationReply | None:
        """One wrong program must not change the contract that all callers go by."""
        others = [m for name, m in table.members.items() if name != registration.instance_id]
        if not any(member.record.state in CAN_KEEP for member in others):
            return None
        try:
            check_contract(registration, table.record)
        except InvalidName as error:
            return refuse("invalid", str(error))
        return None

    def _refused(self, table: ServiceTable, claims: dict[str, Claim]) -> RegistrationReply | None:
        names = [name for name, what in claims.items() if what is Claim.REFUSE]
        if not names:
            return None
        owner = table.leases[names[0]].record.owner
        more = f" (and {len(names) - 1} more resources)" if len(names) > 1 else ""
        return refuse(
            "second_active",
            f"instance {owner} is active for {names[0]}{more}:"
            " register as standby or auto, or disconnect it first",
        )

    def _doubted(self, table: ServiceTable, claims: dict[str, Claim]) -> RegistrationReply | None:
        names = [name for name, what in claims.items() if what is Claim.ASK_AGAIN]
        if not names:
            return None
        owner = table.leases[names[0]].record.owner
        return self.busy(
            f"instance {owner}, the active for {names[0]}, is late or draining: ask again in a moment"
        )

    def busy(self, message: str) -> RegistrationReply:
        return RegistrationReply(
            ok=False,
            code="busy",
            message=message,
            retry_after_s=self._world.limits.heartbeat_timeout_s / 2,
        )

    def lost(self, table: ServiceTable) -> RegistrationReply:
        return RegistrationReply(
            ok=False,
            code=LogLost.code,
            message=f"{table.lost}: nothing of {table.name} is served until an operator accepts the loss"
            f" (ipc-cli accept-loss {table.name})",
            retry_after_s=_LOST_RETRY_S,
        )

    def _welcome(self, table: ServiceTable, registration: Registration) -> RegistrationReply:
        return RegistrationReply(
            ok=True,
            heartbeat_interval_s=self._world.limits.heartbeat_interval_s,
            outcome_ttl_s=self._world.outcome_ttl_s,
            ack_wait_s=self._world.ack_wait_s,
            replicas=self._world.replicas,
            journal_id=table.journal_id,
            requests_id=table.logs.requests.id if table.logs else "",
            log_after=table.owned.begins(registration.resources) if table.owned else 0,
            protocol=PROTOCOL,
            protocol_min=PROTOCOL_MIN,
        )

    def _tell_refusal(self, registration: Registration, reply: RegistrationReply) -> None:
        self._world.events.emit(
            RegistrationRefused(
                service=registration.service,
                instance_id=registration.instance_id,
                error_code=reply.code,
                reason=reply.message,
            )
        )


def _broken(table: ServiceTable, registration: Registration) -> list[str]:
    """What its contracts break. One that comes back brings nothing new."""
    known = table.record
    if known is None or registration.returning or registration.compatibility is Compatibility.OFF:
        return []
    return differences(known.methods, registration.methods)


def _too_strict(registration: Registration, broken: list[str]) -> RegistrationReply | None:
    if not broken or registration.compatibility is not Compatibility.STRICT:
        return None
    return refuse(
        "incompatible",
        f"{registration.instance_id} (version {registration.version or '?'}) would break callers of"
        f" {registration.service}: {'; '.join(broken)}. Change the contract compatibly, or serve it with"
        ' compatibility="warn"',
    )


def refuse(code: str, message: str) -> RegistrationReply:
    return RegistrationReply(ok=False, code=code, message=message)
