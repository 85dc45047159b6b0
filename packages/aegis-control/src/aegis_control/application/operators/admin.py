"""The operators' verbs: what is there, and moving, draining and disconnecting on purpose."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import pydantic
from aegis_sdk.contract.control import (
    Ack,
    AdminReply,
    Command,
    CommandKind,
    FailoverResource,
    InstanceState,
    InstanceView,
    Moved,
    RouteView,
    ServiceView,
    ShowRoute,
    TargetInstance,
)
from aegis_sdk.contract.values import field_errors
from aegis_sdk.errors import Unavailable
from pydantic import BaseModel

from aegis_control.application.leading.fail_over import FailOver
from aegis_control.application.leading.logs import LogKeeper
from aegis_control.application.leading.roster import Roster
from aegis_control.application.operators.checkup import CheckUp
from aegis_control.application.operators.dead_letters import DeadLetters
from aegis_control.application.operators.survey import Survey
from aegis_control.application.operators.views import (
    instance_view,
    instance_views,
    route_view,
    service_view,
)
from aegis_control.application.refusal import Refused
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import InstanceDraining, OperatorChange

COMMAND_TIMEOUT_S = 2.0
"""An instance that doesn't answer in this time is handled without its help."""

Model = TypeVar("Model", bound=BaseModel)


Verb = Callable[[bytes], Awaitable[Any]]


class CommonArguments(BaseModel):
    """What the arguments of all changes have in common, or some of them."""

    instance_id: str = ""
    service: str | None = None
    resource: str = ""
    request_id: str = ""
    to: str | None = None
    reason: str = ""
    by: str = ""
    dry_run: bool = False


class WhichService(BaseModel):
    """Argument of `describe` (required there) and `list-instances`."""

    service: str | None = None


class Admin:
    """Answers `ctl.admin.<verb>` requests."""

    def __init__(
        self,
        state: ControlState,
        world: World,
        roster: Roster,
        fail_over: FailOver,
        logs: LogKeeper,
    ) -> None:
        self._state = state
        self._world = world
        self._roster = roster
        self._fail_over = fail_over
        self._since = world.clock.wall()
        survey = Survey(state, world.clock)
        self._verbs: Mapping[str, Verb] = {
            "status": self._status,
            "list-services": self._list_services,
            "list-instances": self._list_instances,
            "describe": self._describe,
            "describe-instance": self._describe_instance,
            "show-route": self._show_route,
            "checkup": CheckUp(state, world),
            "overview": survey.overview,
            "resources": survey.resources,
        }
        letters = DeadLetters(state, world)
        self._changes: Mapping[str, Verb] = {
            "accept-loss": logs.accept,
            "disconnect": self._disconnect,
            "drain": self._drain,
            "failover": self._failover,
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

    async def _describe(self, data: bytes) -> dict[str, Any]:
        name = WhichService.model_validate_json(data).service
        if not name:
            raise Refused("invalid", "service: say which one")
        table = self._state.services.get(name)
        if table is None or table.record is None:
            raise Refused("not_found", f"no instance ever registered service {name!r}")
        return {
            "service": table.record,
            "view": self._service_view(table),
            "routes": [route_view(table, resource) for resource in sorted(table.leases)],
        }

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
        ack = await self._command(member, CommandKind.DRAIN, [], reason)
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
        wanted = FailoverResource.model_validate_json(data)
        tables = self._find_resource(wanted.resource, wanted.service)
        if len(tables) > 1:
            names = ", ".join(table.name for table in tables)
            raise Refused("invalid", f"{wanted.resource!r} exists in {names}: say --service")
        to = self._next_active(tables[0], wanted)
        owner = tables[0].leases[wanted.resource].record.owner
        result = Moved(
            instance_id=owner,
            moved={wanted.resource: to.record.instance_id},
            dry_run=wanted.dry_run,
        )
        if not wanted.dry_run:
            await self._hand_over(tables[0], wanted, to)
        return result

    def _next_active(self, table: ServiceTable, wanted: FailoverResource) -> Member:
        """Raises: Refused when the resource can't go where it should."""
        lease = table.leases[wanted.resource].record
        owner = table.owner_of(lease)
        if wanted.to is None:
            without = lease.owner if owner else ""
            planned = self._fail_over.plan_for(table, [wanted.resource], without=without)
            if planned.orphans:
                raise Refused("refused", f"no live standby follows {wanted.resource!r}")
            return table.members[next(iter(planned.moves))]
        to = table.members.get(wanted.to)
        if to is None:
            raise Refused("not_found", f"no instance {wanted.to!r} of service {table.name}")
        if to is owner:
            raise Refused("refused", f"{wanted.to} is the active of {wanted.resource!r} already")
        if to.record.state is not InstanceState.LIVE or wanted.resource not in to.record.resources:
            raise Refused(
                "refused",
                f"{wanted.to} ({to.record.state.value}) is not a live standby of {wanted.resource!r}",
            )
        return to

    async def _hand_over(self, table: ServiceTable, wanted: FailoverResource, to: Member) -> None:
        """Pause the active, move, and let it go on if that failed. The log, not the pause, is what
        keeps the resource safe: an active that doesn't answer is passed over."""
        lease = table.leases[wanted.resource].record
        owner = table.owner_of(lease)
        reason = _reason("handover", wanted.by, wanted.reason)
        resources = [wanted.resource]
        moved: list[str] = []
        table.handovers += 1
        try:
            if owner is not None and owner.record.state is InstanceState.LIVE:
                await self._command(owner, CommandKind.PAUSE, resources, reason)
            async with table.lock:
                if table.leases[wanted.resource].record.epoch == lease.epoch:
                    moved = await self._fail_over.move(table, wanted.resource, to, reason=reason)
        finally:
            table.handovers -= 1
            # Without waiting: this term may be ending. A pause that it does not reach ends by itself.
            if not moved and owner is not None:
                await self._resume(owner, resources)
        if not moved:
            raise Refused("refused", f"{wanted.resource!r} was moved by somebody else just now")

    async def _resume(self, owner: Member, resources: list[str]) -> None:
        command = Command(
            kind=CommandKind.RESUME,
            incarnation=owner.record.incarnation,
            resources=resources,
            reason="the handover failed",
        )
        await self._world.instances.tell(owner.record.instance_id, command)

    def _would_move(self, instance_id: str, found: list[tuple[ServiceTable, Member]]) -> Moved:
        result = Moved(instance_id=instance_id, dry_run=True)
        for table, member in found:
            resources = table.owned_by(member.owner)
            planned = self._fail_over.plan_for(table, resources, without=instance_id)
            result.vacant += planned.orphans
            for name, moved in planned.moves.items():
                result.moved |= dict.fromkeys(moved, name)
        return result

    async def _command(
        self, member: Member, kind: CommandKind, resources: list[str], reason: str
    ) -> Ack | None:
        command = Command(
            kind=kind, incarnation=member.record.incarnation, resources=resources, reason=reason
        )
        return await self._world.instances.command(
            member.record.instance_id, command, timeout_s=COMMAND_TIMEOUT_S
        )


def _reason(what: str, by: str, why: str) -> str:
    return what + (f" by {by}" if by else "") + (f": {why}" if why else "")


def _result(reply: AdminReply) -> str:
    """In words: control's refusal, or what moved where."""
    if not reply.ok:
        return reply.message
    done = reply.data
    if "losses" in done:
        return "; ".join(f"{loss['stream']} {loss['what']}" for loss in done["losses"])
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
