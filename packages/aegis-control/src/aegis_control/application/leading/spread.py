"""Keeps AUTO resources evenly over the instances: decides (domain/leading/spreading.py), and hands over, few at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

from aegis_sdk.contract.control import CommandKind, LeaseState

from aegis_control.application.leading.hand_over import HandOver, ordered
from aegis_control.application.state import Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import SpreadBegun, SpreadDone
from aegis_control.domain.leading.failover import Plan
from aegis_control.domain.leading.lease import was_put_by_hand
from aegis_control.domain.leading.liveness import CAN_KEEP, CAN_TAKE_OVER
from aegis_control.domain.leading.spreading import Place, can_take, held_up, spread

SPREAD: Final = "spread"
COME_S: Final = 10.0
PARTS: Final = 50
"""A service of any size is even after about so many handovers, each of which takes little longer for more resources."""
BUSY_S: Final = 10.0
"""How long what could not be paused is left alone: a handler runs for long, and its callers waited for the pause."""


@dataclass(slots=True)
class _Run:
    """From the first move until it is even."""

    reason: str
    asked: bool = False
    """By an operator: what was put by hand moves, too."""
    began_s: float | None = None
    moved: int = 0
    comes_until_s: float = float("-inf")
    """How long it waits for instances that read what they are to take."""


@dataclass(frozen=True, slots=True)
class _Company:
    """Who lives, and since when that has not changed."""

    runs: frozenset[tuple[str, str]]
    since_s: float


class Spread:
    """Call it often for each service: most often there is nothing to do."""

    def __init__(self, world: World, hand_over: HandOver) -> None:
        self._world = world
        self._hand_over = hand_over
        self._companies: dict[str, _Company] = {}
        self._runs: dict[str, _Run] = {}
        self._even: dict[str, object] = {}
        """When it was found even: who lived, and the newest ownership entry. Until that changes nobody looks at each resource."""
        self._busy: dict[tuple[str, str], float] = {}
        """(service, resource): until when it is left alone."""

    async def __call__(self, table: ServiceTable) -> None:
        """Make the next moves, if there are any, and nothing else is going on. Raises: Unavailable."""
        settled, run = self._is_settled(table), self._runs.get(table.name)
        if table.lost or table.handovers or table.lock.locked() or self.held_up(table):
            return
        if run is None and not (settled and self._world.spread.on):
            return
        if run is None and self._even.get(table.name) == self._seen(table):
            return
        run = run or _Run(SPREAD)
        moves_max = max(self._world.spread.moves_max, len(table.leases) // PARTS)
        planned = self._plan(table, run, moves_max=moves_max)
        if not planned.moves and self._comes(table, run):
            return
        if not planned.moves:
            self._end(table, run)
        elif settled or run.asked:
            await self._move(table, run, planned)

    def held_up(self, table: ServiceTable) -> str:
        """Why nothing may move just now; empty when it may."""
        return table.lost or held_up(self._places(table))

    def plan(self, table: ServiceTable) -> Plan:
        """All moves that an operator's rebalancing would make now."""
        return self._plan(table, _Run("", asked=True), moves_max=None)

    def begin(self, table: ServiceTable, *, reason: str) -> None:
        """Make it even from now on, whatever was put by hand, and however small the difference."""
        self._runs[table.name] = _Run(reason, asked=True)

    def _plan(self, table: ServiceTable, run: _Run, *, moves_max: int | None) -> Plan:
        begins = run.began_s is None and not run.asked
        return spread(
            self._places(table),
            _owners(table),
            kept=self._kept(table, by_hand=not run.asked),
            difference=self._world.spread.difference if begins else 0.0,
            moves_max=moves_max,
        )

    async def _move(self, table: ServiceTable, run: _Run, planned: Plan) -> None:
        self._begin(table, run, planned)
        if _lacking(table, planned):
            # Once for all that are to move: who is told to take them reads the log for that.
            await self._have_come(table, run, self._plan(table, run, moves_max=None))
            return
        moved = await self._hand_over(table, planned, reason=run.reason, insist=False)
        run.moved += len(moved)
        until_s = self._world.clock.monotonic() + BUSY_S
        wanted = {name for names in planned.moves.values() for name in names}
        self._busy |= {(table.name, name): until_s for name in wanted - moved.keys()}

    async def _have_come(self, table: ServiceTable, run: _Run, planned: Plan) -> None:
        """What is taken on demand is followed by its new instance before it moves."""
        run.comes_until_s = self._world.clock.monotonic() + COME_S
        await asyncio.gather(
            *(
                ordered(self._world, table.members[name], CommandKind.ADD, names, reason=run.reason)
                for name, names in _lacking(table, planned).items()
            )
        )

    def _comes(self, table: ServiceTable, run: _Run) -> bool:
        """Whether somebody still reads what it was told to take."""
        is_soon = self._world.clock.monotonic() < run.comes_until_s
        return is_soon and not all(map(can_take, self._places(table)))

    def is_under_way(self, table: ServiceTable) -> bool:
        """Whether resources are being moved."""
        return table.name in self._runs

    def _begin(self, table: ServiceTable, run: _Run, planned: Plan) -> None:
        if run.began_s is not None:
            return
        run.began_s = self._world.clock.monotonic()
        self._runs[table.name] = run
        self._world.events.emit(
            SpreadBegun(
                service=table.name,
                reason=run.reason,
                active=self._active(table),
                chosen=planned.why,
            )
        )

    def _end(self, table: ServiceTable, run: _Run) -> None:
        self._runs.pop(table.name, None)
        if not self._busy and all(can_take(place) for place in self._places(table)):
            self._even[table.name] = self._seen(table)
        if run.began_s is None:
            return
        self._world.events.emit(
            SpreadDone(
                service=table.name,
                reason=run.reason,
                resources=run.moved,
                active=self._active(table),
                duration_s=round(self._world.clock.monotonic() - run.began_s, 6),
            )
        )

    def _seen(self, table: ServiceTable) -> object:
        return self._companies[table.name], table.owned and table.owned.newest_seq

    # --- what there is --------------------------------------------------------------------------------
    def _is_settled(self, table: ServiceTable) -> bool:
        """Nobody came or went for a while. One that starts is seldom alone."""
        now_s = self._world.clock.monotonic()
        runs = frozenset(
            (name, member.record.incarnation)
            for name, member in table.members.items()
            if member.record.state in CAN_TAKE_OVER
        )
        known = self._companies.get(table.name)
        if known is None or known.runs != runs:
            known = self._companies[table.name] = _Company(runs, now_s)
        return now_s - known.since_s >= self._world.spread.wait_s

    def _places(self, table: ServiceTable) -> list[Place]:
        return places(table, self._world)

    def _kept(self, table: ServiceTable, *, by_hand: bool) -> set[str]:
        now_s = self._world.clock.monotonic()
        self._busy = {which: until_s for which, until_s in self._busy.items() if until_s > now_s}
        busy = {resource for service, resource in self._busy if service == table.name}
        put = {n for n, lease in table.leases.items() if by_hand and was_put_by_hand(lease.record)}
        return busy | put | table.unreadable_leases

    def _active(self, table: ServiceTable) -> dict[str, int]:
        owned = Counter(_owners(table).values())
        return {place.instance_id: owned[place.instance_id] for place in self._places(table)}


def _lacking(table: ServiceTable, planned: Plan) -> dict[str, list[str]]:
    """Of a plan's moves, by their target: those that it does not follow yet."""
    found = {
        name: [each for each in wanted if each not in table.members[name].record.resources]
        for name, wanted in planned.moves.items()
    }
    return {name: names for name, names in found.items() if names}


def places(table: ServiceTable, world: World) -> list[Place]:
    """The registered instances as they are now."""
    now_s, suspicion_s = world.clock.monotonic(), world.limits.suspicion_s
    return [
        _place(member, doubted=member.holder(now_s=now_s, suspicion_s=suspicion_s).doubted)
        for member in table.members.values()
        if member.record.state in CAN_KEEP
    ]


def _place(member: Member, *, doubted: bool) -> Place:
    record = member.record
    return Place(
        record.instance_id,
        record.resources,
        record.state,
        record.capacity,
        None if member.beat is None else member.lag_entries,
        doubted or not member.heard,
        record.on_demand,
        record.zone or record.host,
    )


def _owners(table: ServiceTable) -> dict[str, str]:
    return {
        name: lease.record.owner
        for name, lease in table.leases.items()
        if lease.record.state is LeaseState.HELD and table.owner_of(lease.record) is not None
    }
