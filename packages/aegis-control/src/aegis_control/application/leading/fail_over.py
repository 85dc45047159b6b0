"""An instance can't go on: choose who takes each of its resources over, and move them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from aegis_sdk.contract.control import InstanceState, LeaseState, Moved

from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.roster import Roster
from aegis_control.application.state import Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import (
    GONE,
    FailoverBegun,
    FailoverDone,
    InstanceGone,
    InstanceLeft,
)
from aegis_control.domain.leading.failover import Plan, plan
from aegis_control.domain.leading.lease import without_successor


class FailOver:
    """Moves resources away from an instance, and finds an active for those that have none."""

    def __init__(self, world: World, leases: Leases, roster: Roster) -> None:
        self._world = world
        self._leases = leases
        self._roster = roster

    def lose(
        self, table: ServiceTable, member: Member, state: InstanceState, *, reason: str
    ) -> Coroutine[Any, Any, Moved]:
        """The instance is lost, stalled or evicted, from now on: its resources go to standbys.

        What becomes of those without a standby: domain/leading/lease.py, `without_successor`.
        """
        member.enter(state, reason)  # before the lock is ours
        return self._lost(table, member, state, reason)

    async def _lost(
        self, table: ServiceTable, member: Member, state: InstanceState, reason: str
    ) -> Moved:
        began_s = self._world.clock.monotonic()
        silence_s = began_s - member.heard_at_s
        orphans_become = without_successor(state, LeaseState.HELD)
        async with table.lock:
            if member.record.state is not state:
                return Moved()  # it registered again while we waited
            # The record is for people and for the next leader; the callers wait for the leases.
            _, moved = await asyncio.gather(
                self._roster.put_state(table, member, state, reason=reason),
                self._move_away(table, member, reason, orphans_become, began_s),
            )
        self._gone(
            GONE[state],
            table=table,
            member=member,
            moved=moved,
            reason=reason,
            silence_s=silence_s,
        )
        return moved

    async def leave(self, table: ServiceTable, member: Member, *, reason: str) -> Moved:
        """The instance goes on purpose: its resources move or become vacant, its record goes."""
        member.enter(InstanceState.DRAINING, reason)
        async with table.lock:
            began_s = self._world.clock.monotonic()
            moved = await self._move_away(table, member, reason, LeaseState.VACANT, began_s)
            await self._roster.remove(table, member)
        self._gone(InstanceLeft, table=table, member=member, moved=moved, reason=reason)
        return moved

    async def settle(self, table: ServiceTable, resources: Iterable[str], *, reason: str) -> Moved:
        """Find an active for resources whose owner is gone; the caller holds the service's lock.

        Those that nobody can take stay as they are.
        """
        return await self.move(table, self.plan_for(table, resources), reason=reason)

    def plan_for(self, table: ServiceTable, resources: Iterable[str], *, without: str = "") -> Plan:
        """Who would take `resources` over now."""
        return plan(resources, table.candidates(without=without))

    async def move(self, table: ServiceTable, planned: Plan, *, reason: str) -> Moved:
        """Carry a plan out; the caller holds the service's lock."""
        began_s = self._world.clock.monotonic()
        names = [*planned.orphans, *(name for names in planned.moves.values() for name in names)]
        owners = {table.leases[name].record.owner for name in names}
        owner = owners.pop() if len(owners) == 1 else ""
        return await self._carry_out(table, owner, planned, reason, began_s)

    async def _move_away(
        self,
        table: ServiceTable,
        member: Member,
        reason: str,
        orphans_become: LeaseState,
        began_s: float,
    ) -> Moved:
        await self._leases.know(table)
        owned = table.owned_by(member.owner)
        # Whoever wrote a lease that can't be read here may know more than the log says.
        resources = [name for name in owned if name not in table.unreadable_leases]
        planned = self.plan_for(table, resources, without=member.record.instance_id)
        moved = await self._carry_out(table, member.record.instance_id, planned, reason, began_s)
        if orphans_become is not LeaseState.HELD:
            await self._leases.put_in_state(table, moved.vacant, orphans_become, reason=reason)
        return moved

    async def _carry_out(
        self, table: ServiceTable, owner: str, planned: Plan, reason: str, began_s: float
    ) -> Moved:
        if planned.moves:
            self._begin(table, owner, sum(map(len, planned.moves.values())), reason, planned.why)
        moved = await self._leases.give(table, planned.moves, reason=reason)
        if planned.moves:
            self._done(
                table,
                owner,
                moved=moved,
                orphans=planned.orphans,
                reason=reason,
                began_s=began_s,
            )
        return Moved(instance_id=owner, moved=moved, vacant=planned.orphans)

    def _gone(
        self,
        event: type[InstanceGone],
        *,
        table: ServiceTable,
        member: Member,
        moved: Moved,
        reason: str,
        silence_s: float = 0.0,
    ) -> None:
        self._world.events.emit(
            event(
                service=table.name,
                instance_id=member.record.instance_id,
                reason=reason,
                silence_s=round(silence_s, 4),
                resources=len(moved.moved) + len(moved.vacant),
            )
        )

    def _begin(
        self,
        table: ServiceTable,
        owner: str,
        resources: int,
        reason: str,
        why: dict[str, str] | None = None,
    ) -> None:
        self._world.events.emit(
            FailoverBegun(
                service=table.name,
                instance_id=owner,
                resources=resources,
                reason=reason,
                chosen=why or {},
            )
        )

    def _done(
        self,
        table: ServiceTable,
        owner: str,
        *,
        moved: dict[str, str],
        orphans: list[str],
        reason: str,
        began_s: float,
    ) -> None:
        self._world.events.emit(
            FailoverDone(
                service=table.name,
                instance_id=owner,
                resources=len(moved),
                orphans=len(orphans),
                to=sorted(set(moved.values())),
                reason=reason,
                duration_s=round(self._world.clock.monotonic() - began_s, 6),
            )
        )
