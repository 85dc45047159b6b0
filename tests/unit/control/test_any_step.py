"""Control dies, or sleeps, at any step of a move, and another replica takes over: the end is right.

Every call of a port is such a step, just before it and just after it. What the first replica does runs
in a context of its own, so that a fault strikes that replica and nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest
from aegis_sdk.contract.control import LeaseState, Role
from aegis_sdk.errors import Unavailable

from tests.unit.control.support import SERVICE, Office

RESOURCES = ("R1", "R2")
STEPS_MAX = 200
PORTS = {
    "registry": ("load", "read", "write", "delete"),
    "leases": ("load", "read", "write", "delete"),
    "own_log": ("read", "write", "shut_out"),
    "requests": ("provision",),
    "instances": ("command", "tell"),
    "hearing": ("check",),
}

_is_first: ContextVar[bool] = ContextVar("is_first", default=False)


class Died(BaseException):
    """The process is gone; nothing in it may go on."""


@dataclass
class Striker:
    """Strikes the first replica at its `step`-th port call, before or after the call itself."""

    step: int
    after: bool
    sleeps: bool
    calls: int = 0
    struck: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def wrap(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(call)
        async def struck(*arguments: Any, **more: Any) -> Any:
            if not _is_first.get():
                return await call(*arguments, **more)
            self.calls += 1
            mine = self.calls == self.step
            if not mine or not self.after:
                await self._pass(mine)
            result = await call(*arguments, **more)
            if mine and self.after:
                await self._pass(mine)
            return result

        return struck

    async def _pass(self, mine: bool) -> None:
        self.struck = self.struck or mine
        if not self.struck:
            return
        self.reached.set()
        if not self.sleeps:
            raise Died
        await self.woken.wait()


async def loss(office: Office) -> None:
    await office.passes(0.8, "b")


async def handover(office: Office) -> None:
    await office.admin("failover", b'{"resources": ["R1"]}')


async def leave(office: Office) -> None:
    await office.leaves("a")


async def registration(office: Office) -> None:
    """The old active comes back as another run, while its lease is still held by the one before."""
    await office.registers("a", Role.ACTIVE, RESOURCES, run="run2")


MOVES = {move.__name__: move for move in (loss, handover, leave, registration)}


async def begun(move: str, striker: Striker) -> tuple[Office, asyncio.Task[None]]:
    """`a` is active, `b` stands by, and the first replica is at the step where it is struck."""
    office = Office()
    await office.registers("a", Role.ACTIVE, RESOURCES)
    await office.registers("b", Role.STANDBY, RESOURCES)
    office.beats("a", "b")
    await office.settled()
    for port, methods in PORTS.items():
        for method in methods:
            target = getattr(office, port)
            setattr(target, method, striker.wrap(getattr(target, method)))

    async def first() -> None:
        _is_first.set(True)
        with contextlib.suppress(Died, Unavailable):
            await MOVES[move](office)
            await office.reconcile()
            await office.settled()

    task = asyncio.create_task(first())
    reached = asyncio.create_task(striker.reached.wait())
    await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    return office, task


async def taken_over(office: Office, move: str) -> Office:
    """Another replica leads, for long enough to finish whatever was left."""
    successor = Office(office)
    await successor.roster.refresh()
    alive = ["b"] if move in ("loss", "leave") else ["a", "b"]
    run = "run2" if move == "registration" else "run1"
    if move == "registration":
        # Its registration was not answered: it asks again.
        await successor.registers("a", Role.AUTO, RESOURCES, run=run)
    for _ in range(4):
        successor.beats(*(name for name in alive if name == "a"), run=run)
        await successor.passes(0.5, *(name for name in alive if name != "a" or run == "run1"))
        await successor.reconcile()
    if move == "leave":
        # Neither was its farewell.
        await successor.leaves("a")
        await successor.reconcile()
    return successor


def assert_right(office: Office) -> None:
    """Each resource has an owner that is registered, nobody before it can write, and the leases agree."""
    found = office.owned()
    assert sorted(set(office.own_log.numbers(SERVICE))) == office.own_log.numbers(SERVICE)
    for name in RESOURCES:
        assert found.says(office.lease(name))
        assert office.lease(name).state is LeaseState.HELD
        assert office.lease(name).owner in office.state.services[SERVICE].members
    assert not found.ownership.unshut(RESOURCES)


@pytest.mark.parametrize("sleeps", [False, True], ids=["dies", "sleeps"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("move", MOVES)
async def test_control_may_die_or_sleep_at_any_step(move: str, after: bool, sleeps: bool) -> None:
    """G1, G5: its successor ends what was begun, and who wakes up undoes nothing."""
    for step in range(1, STEPS_MAX):
        striker = Striker(step, after, sleeps=sleeps)
        office, task = await begun(move, striker)
        before = office.owned()
        if not sleeps:
            await task
            for left in office.pending:
                left.close()
        successor = await taken_over(office, move)
        done = successor.owned()
        striker.woken.set()
        async with asyncio.timeout(5.0):
            await task
        await successor.reconcile()
        await successor.settled()
        assert_right(successor)
        for name in RESOURCES:
            if done.ownership.epoch(name) != before.ownership.epoch(name):
                assert successor.owned().ownership.epoch(name) == done.ownership.epoch(name)
        if not striker.struck:
            assert step > 5
            return
    raise AssertionError(f"{move} has more than {STEPS_MAX} steps")
