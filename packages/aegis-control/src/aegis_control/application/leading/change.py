"""An instance that runs offers more, or less: what it adds is placed like at its registration, what it removes goes to others.

The log says who owns what, before the instance is answered. The record of what it offers is stored in a moment. A control
that dies before that leaves an instance that registers anew, since its heartbeats tell of a later offer than the record.
"""

from __future__ import annotations

from collections.abc import Sequence

import pydantic
from aegis_sdk.contract.control import (
    NOT_REGISTERED,
    InstanceState,
    LeaseState,
    RegistrationReply,
    ResourcesChange,
)
from aegis_sdk.contract.names import encode_token
from aegis_sdk.contract.values import field_errors
from aegis_sdk.errors import Draining, InvalidName, Unavailable

from aegis_control.application.leading.fail_over import FailOver
from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.register import Register, refuse
from aegis_control.application.leading.roster import Roster
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import ResourcesChanged

_REMOVED = "removed"
_IDLE = "idle"


class ChangeResources:
    """Answers changes. Who owns what is stored before the reply is sent; asking twice is fine."""

    def __init__(
        self,
        state: ControlState,
        world: World,
        roster: Roster,
        leases: Leases,
        fail_over: FailOver,
        register: Register,
    ) -> None:
        self._state = state
        self._world = world
        self._roster = roster
        self._leases = leases
        self._fail_over = fail_over
        self._register = register

    async def __call__(self, data: bytes) -> RegistrationReply:
        """The reply to a change's JSON; never raises for what is in it."""
        try:
            change = ResourcesChange.model_validate_json(data)
            for resource in change.add:
                encode_token(resource)
        except pydantic.ValidationError as error:
            return refuse("invalid", "; ".join(field_errors(error)))
        except InvalidName as error:
            return refuse("invalid", str(error))
        try:
            return await self._change(change)
        except Unavailable as error:
            return self._register.busy(f"NATS did not answer control: {error}")

    async def _change(self, change: ResourcesChange) -> RegistrationReply:
        table = self._state.services.get(change.service)
        if table is None:
            return _stranger()
        async with table.lock:
            if table.lost:
                return self._register.lost(table)
            member = table.members.get(change.instance_id)
            if member is None or member.record.incarnation != change.incarnation:
                return _stranger()
            if (refused := self._not_now(member, change)) is not None:
                return refused
            claims = self._register.claims(table, member.owner, change.add, returning=False)
            if (refused := self._register.refusal(table, claims)) is not None:
                return refused
            gone = set(change.remove)
            kept = {n: role for n, role in member.record.resources.items() if n not in gone}
            changes = {"resources": kept | change.add, "offer": change.offer}
            record = member.record.model_copy(update=changes)
            self._roster.put_soon(table, member, record)
            await self._register.grant(table, member, claims)
            vacant = await self._take_away(table, member, change.remove, rests=change.rests)
        self._world.events.emit(
            ResourcesChanged(
                service=table.name,
                instance_id=change.instance_id,
                added=len(change.add),
                removed=len(change.remove),
                vacant=vacant,
            )
        )
        return self._done(table, change)

    def _not_now(self, member: Member, change: ResourcesChange) -> RegistrationReply | None:
        state = member.record.state
        if state is InstanceState.EVICTED:
            return refuse(
                "evicted", f"instance {change.instance_id} was disconnected by an operator"
            )
        if state is InstanceState.DRAINING:
            return refuse(Draining.code, f"instance {change.instance_id} is draining")
        if state is InstanceState.LOST or change.offer < member.record.offer:
            return self._register.busy("this instance has to register again first")
        return None

    async def _take_away(
        self, table: ServiceTable, member: Member, names: list[str], *, rests: bool
    ) -> int:
        """Returns how many nobody else could take: they are nobody's now.

        Raises: Unavailable, when another leader was faster with something, so that this was not stored: it is asked for again.
        """
        if not names:
            return 0
        gone = set(names)
        owned = [name for name in table.owned_by(member.owner) if name in gone]
        vacant: Sequence[str] = ()
        if rests:
            await self._leases.rest(table, owned, reason=_IDLE)
        else:
            planned = self._fail_over.plan_for(table, owned, without=member.record.instance_id)
            vacant = (await self._fail_over.move(table, planned, reason=_REMOVED)).vacant
            await self._leases.put_in_state(table, vacant, LeaseState.VACANT, reason=_REMOVED)
        if not gone.isdisjoint(table.owned_by(member.owner)):
            raise Unavailable(f"somebody else changed who owns what of {table.name} just now")
        return len(vacant)

    def _done(self, table: ServiceTable, change: ResourcesChange) -> RegistrationReply:
        owned = table.owned
        return RegistrationReply(
            ok=True,
            log_after=owned.begins(change.add) if owned else 0,
            log_end=owned.position if owned else 0,
        )


def _stranger() -> RegistrationReply:
    return refuse(NOT_REGISTERED, "control does not know this instance: it has to register first")
