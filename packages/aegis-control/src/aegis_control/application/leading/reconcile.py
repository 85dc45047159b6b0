"""Making the logs, leases and instances agree, whatever was left half done and by whom."""

from __future__ import annotations

from aegis_sdk.contract.control import InstanceState, LeaseRecord, LeaseState
from aegis_sdk.errors import Unavailable

from aegis_control.application.leading.fail_over import FailOver
from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.roster import Roster
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import InstanceForgotten, RequestsForgotten
from aegis_control.domain.leading.lease import without_successor
from aegis_control.domain.leading.liveness import CAN_KEEP, CAN_TAKE_OVER

TIDY_INTERVAL_S = 5.0
"""How often the stored requests that are done are removed."""

EVICTED_KEPT_S = 3_600.0
"""How long after its last heartbeat an evicted run is remembered."""


class Reconcile:
    """One call looks at everything and mends what differs; calling it again changes nothing."""

    def __init__(
        self,
        state: ControlState,
        world: World,
        roster: Roster,
        leases: Leases,
        fail_over: FailOver,
    ) -> None:
        self._state = state
        self._world = world
        self._roster = roster
        self._leases = leases
        self._fail_over = fail_over
        self._began_s = world.clock.monotonic()
        self._tidied_s = float("-inf")

    async def __call__(self) -> None:
        """One service that can't be mended now holds up no other. Raises: Unavailable; the rest is done next time."""
        await self._roster.refresh()
        failed: Unavailable | None = None
        for table in list(self._state.services.values()):
            try:
                await self._mend(table)
            except Unavailable as error:
                failed = failed or error
        await self._tidy()
        if failed is not None:
            raise failed

    async def _mend(self, table: ServiceTable) -> None:
        if table.lost:
            return
        async with table.lock:
            await self._leases.restore(table)
            await self._leases.ensure_gates(table)
            await self._find_actives(table)
            await self._forget_the_gone(table)

    async def _tidy(self) -> None:
        if self._world.clock.monotonic() - self._tidied_s > TIDY_INTERVAL_S:
            self._tidied_s = self._world.clock.monotonic()
            for table in list(self._state.services.values()):
                if not table.lost:
                    await self._remove_settled(table)

    async def _find_actives(self, table: ServiceTable) -> None:
        lonely = [
            name
            for name, lease in table.leases.items()
            if name not in table.unreadable_leases and self._is_lonely(table, lease.record)
        ]
        if not lonely:
            return
        if table.candidates():
            reason = "active_gone"
            planned = self._fail_over.plan_for(table, lonely)
            takers = [name for names in planned.moves.values() for name in names]
            if takers:
                await self._fail_over.settle(table, takers, reason=reason)
        await self._give_up(table, lonely, LeaseState.WAITING, "active_lost")
        await self._give_up(table, lonely, LeaseState.VACANT, "active_gone")

    def _is_lonely(self, table: ServiceTable, lease: LeaseRecord) -> bool:
        """Does the resource need an active, as far as may be judged yet?"""
        if lease.state in (LeaseState.RETIRED, LeaseState.IDLE):
            return False
        if lease.state is not LeaseState.HELD:
            return True
        owner = table.owner_of(lease)
        if owner is None:
            return (
                self._world.clock.monotonic() - self._began_s
                > self._world.limits.heartbeat_timeout_s
            )
        return owner.record.state not in CAN_KEEP or not owner.offers(lease.resource)

    async def _give_up(
        self, table: ServiceTable, lonely: list[str], state: LeaseState, reason: str
    ) -> None:
        """Put those in `state` that nobody took over and that belong there."""
        names = [name for name in lonely if self._fate(table, table.leases[name].record) is state]
        await self._leases.put_in_state(table, names, state, reason=reason)

    def _fate(self, table: ServiceTable, lease: LeaseRecord) -> LeaseState:
        owner = table.owner_of(lease)
        stays = owner is not None and owner.offers(lease.resource)
        return without_successor(owner.record.state if owner and stays else None, lease.state)

    async def _forget_the_gone(self, table: ServiceTable) -> None:
        for member in list(table.members.values()):
            if self._is_over(member):
                await self._forget(table, member)

    def _is_over(self, member: Member) -> bool:
        silence_s = self._world.clock.monotonic() - member.heard_at_s
        if member.record.state is InstanceState.LOST:
            return silence_s > self._world.limits.return_grace_s
        return member.record.state is InstanceState.EVICTED and silence_s > EVICTED_KEPT_S

    async def _forget(self, table: ServiceTable, member: Member) -> None:
        owned = table.owned_by(member.owner)
        await self._leases.put_in_state(table, owned, LeaseState.VACANT, reason="did_not_return")
        await self._roster.remove(table, member)
        self._world.events.emit(
            InstanceForgotten(
                service=table.name,
                instance_id=member.record.instance_id,
                vacant=len(owned),
            )
        )

    async def _remove_settled(self, table: ServiceTable) -> None:
        """Stored requests with an outcome: an instance that begins reads all that are there."""
        members = [m for m in table.members.values() if m.record.state in CAN_TAKE_OVER]
        told = [m.requests_done for m in members]
        removed = await self._world.requests.remove_settled(
            table.name,
            done_seq=min(told, default=0),
            held={name for m in members for name in m.record.resources},
        )
        if removed:
            self._world.events.emit(RequestsForgotten(service=table.name, requests=removed))
