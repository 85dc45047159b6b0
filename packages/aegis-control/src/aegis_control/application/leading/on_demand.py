"""Gives resources that are taken on demand to instances: when somebody asks, and when they lack an active or a standby.

Control only says who; the instance adds what it is told to, as `Instance.add` does, and so comes by its lease. What is asked
for side by side is given together. Nothing of this is stored: what was begun and lost is asked for again, by its caller or by
`__call__`, which finds stored requests that nobody has.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import pydantic
from aegis_sdk.contract.control import (
    Ack,
    CommandKind,
    Demand,
    LeaseState,
)
from aegis_sdk.contract.names import encode_token
from aegis_sdk.contract.values import field_errors
from aegis_sdk.errors import InvalidName, LogLost, NoRoute

from aegis_control.application.leading.hand_over import ordered
from aegis_control.application.leading.own import Leases
from aegis_control.application.leading.spread import places
from aegis_control.application.state import ControlState, ServiceTable
from aegis_control.application.world import Spawn, World
from aegis_control.domain.leading import placing

AT_A_TIME: Final = 2_000
"""Resources in one command."""
ANSWER_S: Final = 2.5
"""A caller waits for 3 s, and asks again."""
STORED_EVERY_S: Final = 1.0
OPEN_MAX: Final = 16
"""Resources whose stored requests are looked up in one pass: each reads the log."""
_NOBODYS: Final = frozenset({LeaseState.VACANT, LeaseState.IDLE})


@dataclass(slots=True)
class _Wants:
    """What is asked for of one service, and not given yet."""

    names: dict[str, asyncio.Future[bool]] = field(default_factory=dict)
    is_running: bool = False
    active: Counter[str] = field(default_factory=Counter)
    """For how many resources each instance was active at the last look, and what it was given since."""
    looked_s: float = float("-inf")
    """When the stored requests were looked at."""
    settled: dict[str, float] = field(default_factory=dict)
    """Resources whose stored requests had outcomes, and when that was so."""
    even: object = None
    """What the standbys were last found right for."""


class PlaceOnDemand:
    """Of all services in one term."""

    def __init__(self, state: ControlState, world: World, leases: Leases, *, spawn: Spawn) -> None:
        self._state = state
        self._world = world
        self._leases = leases
        self._spawn = spawn
        self._wants: dict[str, _Wants] = {}

    # --- what callers ask -----------------------------------------------------------------------------
    async def demand(self, data: bytes) -> Ack:
        """The reply to a demand's JSON: `ok` when an instance has the resource, or is about to."""
        try:
            demand = Demand.model_validate_json(data)
            encode_token(demand.resource)
        except pydantic.ValidationError as error:
            return Ack(ok=False, code=NoRoute.code, message="; ".join(field_errors(error)))
        except InvalidName as error:
            return Ack(ok=False, code=NoRoute.code, message=str(error))
        table = self._state.services.get(demand.service)
        refused = _refusal(table, demand)
        if table is None or refused is not None:
            return refused or Ack(ok=True)
        given = self._want(table, [demand.resource])[demand.resource]
        done, _ = await asyncio.wait({given}, timeout=ANSWER_S)
        if done and not given.cancelled() and given.result():
            return Ack(ok=True)
        return Ack(
            ok=False,
            code="busy",
            message=f"no instance of {table.name} has taken {demand.resource!r} yet: ask again in a moment",
        )

    def _want(
        self, table: ServiceTable, names: Collection[str]
    ) -> Mapping[str, asyncio.Future[bool]]:
        """Each is True when it has an active."""
        wants = self._wants_of(table)
        loop = asyncio.get_running_loop()
        for name in names:
            if name not in wants.names:
                wants.names[name] = loop.create_future()
        found = {name: wants.names[name] for name in names}
        if not wants.is_running:
            wants.is_running = True
            self._spawn(self._give(table, wants))
        return found

    def _wants_of(self, table: ServiceTable) -> _Wants:
        if table.name not in self._wants:
            self._wants[table.name] = _Wants(active=Counter(table.active_counts()))
        return self._wants[table.name]

    async def _give(self, table: ServiceTable, wants: _Wants) -> None:
        """Until nothing is asked for: what comes while instances are told is given with the next ones. Raises: Unavailable."""
        try:
            while wants.names:
                names = list(islice(wants.names, AT_A_TIME))
                try:
                    await self._give_some(table, wants, names)
                finally:  # without an active it is asked for again
                    for name in names:
                        given = wants.names.pop(name)
                        if not given.done():
                            given.set_result(_state(table, name) not in _NOBODYS)
        finally:
            wants.is_running = False
            for given in wants.names.values():
                given.cancel()
            wants.names.clear()

    async def _give_some(self, table: ServiceTable, wants: _Wants, names: Sequence[str]) -> None:
        planned = placing.actives(names, places(table, self._world), wants.active)
        wants.active.update({instance_id: len(given) for instance_id, given in planned.items()})
        await self._grant_followed(table, planned)
        missing = {
            instance_id: [each for each in given if _state(table, each) is not LeaseState.HELD]
            for instance_id, given in planned.items()
        }
        await self._tell(table, CommandKind.ADD, missing, reason="asked for")

    async def _grant_followed(
        self, table: ServiceTable, planned: Mapping[str, Sequence[str]]
    ) -> None:
        """To who offers it already: an instance has nothing to add then. Raises: Unavailable."""
        async with table.lock:
            offered = {
                name: [each for each in names if each in member.record.resources]
                for name, names in planned.items()
                if (member := table.members.get(name)) is not None
            }
            free = {
                name: [each for each in names if _state(table, each) in _NOBODYS]
                for name, names in offered.items()
            }
            if any(free.values()):
                await self._leases.give(table, free, reason="asked_for")

    # --- what is to be so -----------------------------------------------------------------------------
    async def __call__(self, table: ServiceTable, *, is_moving: bool) -> None:
        """Look for what lacks an active or a standby. `is_moving`: some are being spread, whose standbys change in a moment.

        Raises: Unavailable.
        """
        if table.lost or table.owned is None or not _on_demand(table):
            return
        wants = self._wants_of(table)
        wants.active = Counter(table.active_counts())
        missed = [
            name
            for name, lease in table.leases.items()
            if lease.record.state is LeaseState.WAITING and _takes(table, name)
        ]
        now_s = self._world.clock.monotonic()
        if now_s - wants.looked_s >= STORED_EVERY_S:
            wants.looked_s = now_s
            missed += await self._asked_by_stored(table, wants, now_s)
        if missed:
            self._want(table, missed)
        if not (is_moving or table.handovers or table.lock.locked()):
            await self._keep_standbys(table, wants)

    async def _asked_by_stored(self, table: ServiceTable, wants: _Wants, now_s: float) -> list[str]:
        """Resources of nobody with a stored request that has no outcome."""
        stored = await self._world.requests.resources(table.name)
        wants.settled = {n: s for n, s in wants.settled.items() if now_s - s < 5 * STORED_EVERY_S}
        nobodys = [
            name
            for name in stored
            if name not in wants.settled
            and name not in wants.names
            and _state(table, name) in _NOBODYS
            and _takes(table, name)
        ]
        found = []
        for name in nobodys[:OPEN_MAX]:
            if name not in table.leases or await self._world.requests.open(table.name, name):
                found.append(name)
            else:
                wants.settled[name] = now_s
        return found

    async def _keep_standbys(self, table: ServiceTable, wants: _Wants) -> None:
        there = places(table, self._world)
        seen = (
            table.owned and table.owned.newest_seq,
            tuple((p.instance_id, p.state, p.doubted, p.zone, len(p.offers)) for p in there),
        )
        if wants.even == seen:
            return
        leases = {name: lease.record for name, lease in table.leases.items()}
        orders = placing.standbys(
            {n: r.owner for n, r in leases.items() if r.state is LeaseState.HELD},
            there,
            resting={n for n, r in leases.items() if r.state is LeaseState.IDLE},
        )
        if not orders:
            wants.even = seen
            return
        await self._tell(table, CommandKind.ADD, orders.add, reason="standby")
        await self._tell(table, CommandKind.REMOVE, orders.remove, reason="not needed")

    async def _tell(
        self,
        table: ServiceTable,
        kind: CommandKind,
        planned: Mapping[str, Sequence[str]],
        *,
        reason: str,
    ) -> None:
        """What an instance does not carry out is planned anew."""
        await asyncio.gather(
            *(
                ordered(self._world, table.members[name], kind, names[:AT_A_TIME], reason=reason)
                for name, names in planned.items()
                if names and name in table.members
            )
        )


def _refusal(table: ServiceTable | None, demand: Demand) -> Ack | None:
    """Why nothing is to be done; `ok` when somebody has it, or is waited for."""
    if table is None:
        return Ack(ok=False, code=NoRoute.code, message=f"service {demand.service!r} is not known")
    if table.lost:
        return Ack(ok=False, code=LogLost.code, message=table.lost)
    state = _state(table, demand.resource)
    if state is LeaseState.RETIRED:
        return Ack(
            ok=False,
            code=NoRoute.code,
            message=f"resource {demand.resource!r} of service {demand.service!r} was retired by an operator:"
            " an instance that adds it by name brings it back",
        )
    if state not in _NOBODYS:
        return Ack(ok=True)
    if not _takes(table, demand.resource):
        return Ack(
            ok=False,
            code=NoRoute.code,
            message=f"resource {demand.resource!r} of service {demand.service!r} has no instance now, and none takes it"
            " on demand",
        )
    return None


def _on_demand(table: ServiceTable) -> bool:
    return any(member.record.on_demand for member in table.members.values())


def _takes(table: ServiceTable, resource: str) -> bool:
    return any(
        member.record.on_demand is not None and member.record.on_demand.matches(resource)
        for member in table.members.values()
    )


def _state(table: ServiceTable, resource: str) -> LeaseState:
    lease = table.leases.get(resource)
    return LeaseState.VACANT if lease is None else lease.record.state
