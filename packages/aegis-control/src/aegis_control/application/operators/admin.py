"""The operators' verbs: what is there, and moving, draining and disconnecting on purpose."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import pydantic
from aegis_sdk.contract.control import (
    AdminReply,
    Command,
    CommandKind,
    FailoverResources,
    InstanceState,
    InstanceView,
    Moved,
    Rebalance,
    Rebalanced,
    RouteView,
    ServiceMoves,
    ServiceRecord,
    ServiceView,
    ShowRoute,
    TargetInstance,
)
from aegis_sdk.contract.values import field_errors
from aegis_sdk.errors import Unavailable
from pydantic import BaseModel

from aegis_control.application.leading.fail_over import FailOver
from aegis_control.application.leading.hand_over import HandOver, ordered
from aegis_control.application.leading.logs import LogKeeper
from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.roster import Roster
from aegis_control.application.leading.spread import Spread
from aegis_control.application.leading.trim import Trim
from aegis_control.application.operators.checkup import CheckUp
from aegis_control.application.operators.dead_letters import DeadLetters
from aegis_control.application.operators.forget import Forget
from aegis_control.application.operators.pausing import Pausing
from aegis_control.application.operators.retire import Retire
from aegis_control.application.operators.survey import Survey
from aegis_control.application.operators.views import (
    instance_view,
    instance_views,
    paused_of,
    route_view,
    service_view,
)
from aegis_control.application.refusal import Refused
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import COMMAND_TIMEOUT_S, World
from aegis_control.domain.events import InstanceDraining, OperatorChange
from aegis_control.domain.leading.failover import Plan
from aegis_control.domain.leading.lease import BY_HAND

Model = TypeVar("Model", bound=BaseModel)


Verb = Callable[[bytes], Awaitable[Any]]


class CommonArguments(BaseModel):
    """What the arguments of all changes have in common, or some of them."""

    instance_id: str = ""
    service: str | None = None
    resources: list[str] = []
    resource: str = ""
    request_id: str = ""
    to: str | None = None
    target: str = ""
    reason: str = ""
    by: str = ""
    dry_run: bool = False


class WhichService(BaseModel):
    """Argument of `describe` and `contract` (required there) and `list-instances`."""

    service: str | None = None


class Admin:
    """Answers `ctl.admin.<verb>` requests."""

    def __init__(
        self,
        state: ControlState,
        world: World,
        roster: Roster,
        fail_over: FailOver,
        hand_over: HandOver,
        spread: Spread,
        logs: LogKeeper,
        leases: Leases,
        trim: Trim,
    ) -> None:
        self._state = state
        self._world = world
        self._roster = roster
        self._fail_over = fail_over
        self._hand_over = hand_over
        self._spread = spread
        self._since = world.clock.wall()
        survey = Survey(state, world.clock)
        self._verbs: Mapping[str, Verb] = {
            "status": self._status,
            "list-services": self._list_services,
            "list-instances": self._list_instances,
            "contract": self._contract,
            "describe": self._describe,
            "describe-instance": self._describe_instance,
            "show-route": self._show_route,
            "checkup": CheckUp(state, world),
            "overview": survey.overview,
            "resources": survey.resources,
        }
        letters = DeadLetters(state, world)
        pausing = Pausing(state, world, leases, logs, self._the_one_with)
        self._changes: Mapping[str, Verb] = {
            "accept-loss": logs.accept,
            "disconnect": self._disconnect,
            "drain": self._drain,
            "failover": self._failover,
            "rebalance": self._rebalance,
            "pause": pausing.pause,
            "resume": pausing.resume,
            "forget": Forget(state, world),
            "retire": Retire(world, leases, trim, self._the_one_with),
            "dlq-redrive": letters.redrive,
            "dlq-drop": letters.drop,
        }

    async def __call__(self, verb: str, data: bytes) -> AdminReply:
        """The reply to `verb` with its argument as JSON (empty means none); never raises for those."""
        run = self._changes.get(verb)
        if run is None:
            return await self._answer(verb, self._verbs.get(verb), data)
        reply = AdminReply(ok=False, code="internal", message="control stopped in the middle of it")
        try:
            reply = await self._answer(verb, run, data)
        finally:
            self._record(verb, data, reply)
        return reply

    async def _answer(self, verb: str, run: Verb | None, data: bytes) -> AdminReply:
        if run is None:
            known = ", ".join(sorted([*self._verbs, *self._changes]))
            return AdminReply(
                ok=False, code="invalid", message=f"unknown verb {verb!r}; use {known}"
            )
        try:
            return AdminReply(ok=True, data=_dump(await run(data or b"{}")))
        except Refused as error:
            return AdminReply(ok=False, code=error.code, message=str(error))
        except pydantic.ValidationError as error:
            return AdminReply(ok=False, code="invalid", message="; ".join(field_errors(error)))
        except Unavailable as error:
            return AdminReply(ok=False, code="internal", message=f"NATS did not answer: {error}")

    def _record(self, verb: str, data: bytes, reply: AdminReply) -> None:
        """The audit trail: who asked for which change, and what came of it. A dry run is no change."""
        try:
            given = CommonArguments.model_validate_json(data or b"{}")
        except pydantic.ValidationError:
            given = CommonArguments()
        if given.dry_run:
            return
        self._world.events.emit(
            OperatorChange(
                verb=verb,
                by=given.by or "unknown",
                ok=reply.ok,
                error_code=reply.code,
                result=_result(reply),
                **given.model_dump(exclude={"by", "dry_run"}, exclude_defaults=True),
            )
        )

    # --- what is there ---------------------------------------------------------------------------
    async def _status(self, _: bytes) -> dict[str, Any]:
        members = [member for _, member in self._state.members()]
        leases = [one for table in self._state.services.values() for one in table.leases.values()]
        return {
            "leader": self._world.leader_id,
            "version": self._world.version,
            "leading_since": self._since,
            "services": sum(1 for table in self._state.services.values() if table.record),
            "instances": _count(member.record.state.value for member in members),
            "resources": _count(lease.record.state.value for lease in leases),
            "paused": [v for table in self._state.services.values() for v in paused_of(table)],
        }

    async def _list_services(self, _: bytes) -> list[ServiceView]:
        tables = sorted(self._state.services.values(), key=lambda table: table.name)
        return [self._service_view(table) for table in tables if table.record]

    def _service_view(self, table: ServiceTable) -> ServiceView:
        calls_per_s = self._world.calls_per_s(table.name)
        return service_view(table, self._world.clock, calls_per_s=calls_per_s)

    async def _list_instances(self, data: bytes) -> list[InstanceView]:
        wanted = WhichService.model_validate_json(data).service
        return [
            view
            for table in sorted(self._state.services.values(), key=lambda table: table.name)
            if wanted in (None, table.name)
            for view in instance_views(table, self._world.clock)
        ]

    async def _contract(self, data: bytes) -> ServiceRecord:
        return self._registered(data)[1]

    async def _describe(self, data: bytes) -> dict[str, Any]:
        table, record = self._registered(data)
        return {
            "service": record,
            "view": self._service_view(table),
            "routes": [route_view(table, resource) for resource in sorted(table.leases)],
        }

    def _registered(self, data: bytes) -> tuple[ServiceTable, ServiceRecord]:
        """The service that is asked for. Raises: Refused."""
        name = WhichService.model_validate_json(data).service
        if not name:
            raise Refused("invalid", "service: say which one")
        table = self._state.services.get(name)
        if table is None or table.record is None:
            raise Refused("not_found", f"no instance ever registered service {name!r}")
        return table, table.record

    async def _describe_instance(self, data: bytes) -> list[InstanceView]:
        target = TargetInstance.model_validate_json(data)
        found = self._find_instance(target.instance_id)
        return [instance_view(table, member, self._world.clock) for table, member in found]

    async def _show_route(self, data: bytes) -> list[RouteView]:
        wanted = ShowRoute.model_validate_json(data)
        tables = self._find_resource(wanted.resource, wanted.service)
        return [route_view(table, wanted.resource) for table in tables]

    def _find_instance(self, instance_id: str) -> list[tuple[ServiceTable, Member]]:
        found = self._state.find_member(instance_id)
        if not found:
            raise Refused("not_found", f"no instance {instance_id!r}: see list-instances")
        return found

    def _find_resource(self, resource: str, service: str | None) -> list[ServiceTable]:
        found = [
            table
            for table in self._state.services.values()
            if resource in table.leases and service in (None, table.name)
        ]
        if not found:
            where = f" in service {service!r}" if service else ""
            raise Refused("not_found", f"no resource {resource!r}{where}: it never had an active")
        return found

    def _the_one_with(self, resource: str, service: str | None) -> ServiceTable:
        tables = self._find_resource(resource, service)
        if len(tables) > 1:
            names = ", ".join(table.name for table in tables)
            raise Refused("invalid", f"{resource!r} exists in {names}: say --service")
        return tables[0]

    # --- moving things ---------------------------------------------------------------------------
    async def _disconnect(self, data: bytes) -> Moved:
        target = TargetInstance.model_validate_json(data)
        found = self._find_instance(target.instance_id)
        if target.dry_run:
            return self._would_move(target.instance_id, found)
        reason = _reason("disconnected", target.by, target.reason)
        result = Moved(instance_id=target.instance_id)
        for table, member in found:
            moved = await self._fail_over.lose(table, member, InstanceState.EVICTED, reason=reason)
            result.moved |= moved.moved
            result.vacant += moved.vacant
            await self._world.instances.tell(
                target.instance_id,
                Command(
                    kind=CommandKind.EVICT, incarnation=member.record.incarnation, reason=reason
                ),
            )
        return result

    async def _drain(self, data: bytes) -> Moved:
        target = TargetInstance.model_validate_json(data)
        found = self._find_instance(target.instance_id)
        plan = self._would_move(target.instance_id, found)
        if target.dry_run:
            return plan
        reason = _reason("drained", target.by, target.reason)
        for table, member in found:
            await self._drain_member(table, member, reason)
        return plan.model_copy(update={"dry_run": False})

    async def _drain_member(self, table: ServiceTable, member: Member, reason: str) -> None:
        before = member.record.state
        if before not in (InstanceState.LIVE, InstanceState.STALLED, InstanceState.DRAINING):
            raise Refused("refused", f"instance {member.record.instance_id} is {before.value}")
        async with table.lock:
            await self._roster.put_state(table, member, InstanceState.DRAINING, reason=reason)
        member.told_at_s = self._world.clock.monotonic()
        ack = await ordered(self._world, member, CommandKind.DRAIN, reason=reason)
        if ack is not None and ack.ok:
            self._world.events.emit(
                InstanceDraining(
                    service=table.name,
                    instance_id=member.record.instance_id,
                    reason=reason,
                )
            )
            return
        async with table.lock:
            if member.record.state is InstanceState.DRAINING:
                await self._roster.put_state(table, member, before, reason="")
        why = ack.message if ack else f"no answer within {COMMAND_TIMEOUT_S:g} s"
        raise Refused("refused", f"instance {member.record.instance_id} does not drain: {why}")

    async def _failover(self, data: bytes) -> Moved:
        wanted = FailoverResources.model_validate_json(data)
        plans = [
            (table, self._planned(table, names, wanted.to))
            for table, names in self._by_service(wanted)
        ]
        result = Moved(dry_run=wanted.dry_run)
        for _, planned in plans:
            result.moved |= _targets(planned)
        if wanted.dry_run:
            return result
        reason = _reason(BY_HAND, wanted.by, wanted.reason)
        moved: set[str] = set()
        for table, planned in plans:
            moved |= (await self._hand_over(table, planned, reason=reason, insist=True)).keys()
        stayed = sorted(result.moved.keys() - moved)
        if stayed:
            raise Refused(
                "refused",
                f"{', '.join(map(repr, stayed[:5]))} ({len(stayed)} of {len(result.moved)}) did not move:"
                " somebody else moved them just now, or their next active is not live any more",
            )
        return result

    def _by_service(self, wanted: FailoverResources) -> list[tuple[ServiceTable, list[str]]]:
        found: dict[str, list[str]] = {}
        for resource in dict.fromkeys(wanted.resources):
            found.setdefault(self._the_one_with(resource, wanted.service).name, []).append(resource)
        return [(self._state.services[name], names) for name, names in found.items()]

    def _planned(self, table: ServiceTable, resources: list[str], to: str | None) -> Plan:
        """Raises: Refused when one of them can't go where it should."""
        if to is not None:
            return Plan({to: [self._can_go(table, name, to) for name in resources]})
        result = Plan()
        for owner, names in _by_owner(table, resources).items():
            planned = self._fail_over.plan_for(table, names, without=owner)
            if planned.orphans:
                raise Refused("refused", f"no live standby follows {planned.orphans[0]!r}")
            for name, given in planned.moves.items():
                result.moves.setdefault(name, []).extend(given)
            result.why.update(planned.why)
        return result

    def _can_go(self, table: ServiceTable, resource: str, to: str) -> str:
        """The resource. Raises: Refused."""
        member = table.members.get(to)
        if member is None:
            raise Refused("not_found", f"no instance {to!r} of service {table.name}")
        if member is table.owner_of(table.leases[resource].record):
            raise Refused("refused", f"{to} is the active of {resource!r} already")
        state = member.record.state
        if state is not InstanceState.LIVE or resource not in member.record.resources:
            raise Refused("refused", f"{to} ({state.value}) is not a live standby of {resource!r}")
        return resource

    async def _rebalance(self, data: bytes) -> Rebalanced:
        wanted = Rebalance.model_validate_json(data)
        tables = self._find_services(wanted.service)
        for table in tables:
            if why := self._spread.held_up(table):
                raise Refused("refused", f"{table.name}: {why}; ask again when that is over")
        plans = {table.name: _targets(self._spread.plan(table)) for table in tables}
        if not wanted.dry_run:
            for table in tables:
                if plans[table.name]:
                    self._spread.begin(
                        table, reason=_reason("rebalanced", wanted.by, wanted.reason)
                    )
        return Rebalanced(
            services=[ServiceMoves(service=n, moves=moves) for n, moves in plans.items() if moves],
            dry_run=wanted.dry_run,
        )

    def _find_services(self, service: str | None) -> list[ServiceTable]:
        found = [
            table
            for name, table in sorted(self._state.services.items())
            if table.record and service in (None, name)
        ]
        if service is not None and not found:
            raise Refused("not_found", f"no instance ever registered service {service!r}")
        return found

    def _would_move(self, instance_id: str, found: list[tuple[ServiceTable, Member]]) -> Moved:
        result = Moved(instance_id=instance_id, dry_run=True)
        for table, member in found:
            resources = table.owned_by(member.owner)
            planned = self._fail_over.plan_for(table, resources, without=instance_id)
            result.vacant += planned.orphans
            for name, moved in planned.moves.items():
                result.moved |= dict.fromkeys(moved, name)
        return result


def _targets(planned: Plan) -> dict[str, str]:
    return {name: to for to, names in planned.moves.items() for name in names}


def _by_owner(table: ServiceTable, resources: Iterable[str]) -> dict[str, list[str]]:
    """Empty for those whose owner is not registered."""
    found: dict[str, list[str]] = {}
    for name in resources:
        lease = table.leases[name].record
        found.setdefault(lease.owner if table.owner_of(lease) else "", []).append(name)
    return found


def _reason(what: str, by: str, why: str) -> str:
    return what + (f" by {by}" if by else "") + (f": {why}" if why else "")


def _result(reply: AdminReply) -> str:
    """In words: control's refusal, or what moved where."""
    if not reply.ok:
        return reply.message
    if "pause" in reply.data:
        return "was so already" if reply.data["was_so"] else str(reply.data["pause"]["what"])
    return _done(reply.data)


def _done(done: Any) -> str:
    if "losses" in done:
        return "; ".join(f"{loss['stream']} {loss['what']}" for loss in done["losses"])
    if "services" in done:
        return f"{sum(len(service['moves']) for service in done['services'])} move"
    if "streams" in done:
        messages = sum(done["streams"].values())
        return f"{len(done['streams'])} streams with {messages} messages, {done['leases']} leases"
    if "outcomes" in done:
        return f"{done['service']}: {done['outcomes']} outcomes, epoch {done['epoch']}"
    if "fate" in done:
        return " ".join(filter(None, (done["fate"], done["new_request_id"])))
    return f"{len(done['moved'])} moved, {len(done['vacant'])} vacant"


def _count(values: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _dump(data: Any) -> Any:
    """Models to plain JSON values, wherever they are."""
    if isinstance(data, BaseModel):
        return data.model_dump(mode="json")
    if isinstance(data, list):
        return [_dump(item) for item in data]
    if isinstance(data, dict):
        return {key: _dump(value) for key, value in data.items()}
    return json.loads(json.dumps(data))
