"""Control dies, or sleeps, at any step of a move, and another replica takes over: the end is right.

Every call of a port is such a step, just before it and just after it. What the first replica does runs
in a context of its own, so that a fault strikes that replica and nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest
from aegis_control.application.ports import FenceWrite, NotWritten
from aegis_sdk.contract.control import LeaseState, Role
from aegis_sdk.errors import Unavailable

from tests.unit.control.support import SERVICE, Office

RESOURCES = ("R1", "R2")
FLOOR = 57
STEPS_MAX = 200
PORTS = {
    "registry": ("load", "read", "write", "delete"),
    "leases": ("load", "read", "write", "delete"),
    "journal": ("load_fences", "last_fence", "write_fences"),
    "requests": ("provision", "ack_floor", "delete_grant", "grants", "make_room"),
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
    await office.admin("failover", b'{"resource": "R1"}')


async def leave(office: Office) -> None:
    await office.leaves("a")


async def registration(office: Office) -> None:
    """The old active comes back as another run, while its lease is still held by the one before."""
    await office.registers("a", Role.ACTIVE, RESOURCES, run="run2")


MOVES = {move.__name__: move for move in (loss, handover, leave, registration)}


async def begun(
    move: str,
    striker: Striker,
    *,
    ports: Mapping[str, Sequence[str]] = PORTS,
    turns: bool = False,
) -> tuple[Office, asyncio.Task[None]]:
    """`a` is active, `b` stands by, and the first replica is at the step where it is struck."""
    office = Office(turns=turns)
    await office.registers("a", Role.ACTIVE, RESOURCES)
    await office.registers("b", Role.STANDBY, RESOURCES)
    office.beats("a", "b")
    await office.settled()
    for name in RESOURCES:
        office.requests.floors[office.lease(name).grant] = FLOOR
    for port, methods in ports.items():
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


def assert_right(office: Office, epochs: list[tuple[str, int]]) -> None:
    for name in RESOURCES:
        lease, fence = office.lease(name), office.journal.fences[SERVICE, name].fence
        assert lease.state is LeaseState.HELD
        assert lease.owner in office.state.services[SERVICE].members
        assert (fence.owner, fence.incarnation, fence.epoch) == (
            lease.owner,
            lease.incarnation,
            lease.epoch,
        )  # G5: exactly the lease's owner can commit
        assert fence.start_seq <= FLOOR + 1  # G1, G6: nothing without an outcome is left out
        assert fence.grant == lease.grant
        assert lease.grant not in office.requests.deleted
        mine = [epoch for of, epoch in epochs if of == name]
        assert mine == sorted(set(mine))  # G5: epochs only rise, and none is fenced twice


def noted(office: Office) -> list[tuple[str, int]]:
    """(resource, epoch) of every fence from here on."""
    epochs: list[tuple[str, int]] = []
    store = office.journal._write

    def note(service: str, write: FenceWrite) -> int | NotWritten:
        before = office.journal.seq
        result = store(service, write)
        if office.journal.seq > before:
            epochs.append((write.resource, write.fence.epoch))
        return result

    office.journal._write = note  # type: ignore[method-assign]
    return epochs


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("move", MOVES)
async def test_a_control_that_dies_at_any_step_leaves_work_and_no_damage(
    move: str, after: bool
) -> None:
    """G1, G5, G6: its successor ends what was begun, whatever was done by then."""
    for step in range(1, STEPS_MAX):
        striker = Striker(step, after, sleeps=False)
        office, task = await begun(move, striker)
        epochs = noted(office)
        await task
        for left in office.pending:
            left.close()
        successor = await taken_over(office, move)
        assert_right(successor, epochs)
        if not striker.struck:
            assert step > 5, "the move has hardly any step: nothing was tried"
            return
    raise AssertionError(f"{move} has more than {STEPS_MAX} steps")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("move", MOVES)
async def test_a_control_that_wakes_up_at_any_step_undoes_nothing(move: str, after: bool) -> None:
    """G5: it believes that it leads, and carries its move to the end."""
    for step in range(1, STEPS_MAX):
        striker = Striker(step, after, sleeps=True)
        office, task = await begun(move, striker)
        epochs = noted(office)
        begin = {name: office.lease(name) for name in RESOURCES}
        successor = await taken_over(office, move)
        done = {name: office.lease(name) for name in RESOURCES}
        striker.woken.set()
        async with asyncio.timeout(5.0):
            await task
        await successor.reconcile()
        assert_right(successor, epochs)
        # What the other replica left as it was may still be moved, in order; what it moved may not.
        moved = [name for name in RESOURCES if done[name] != begin[name]]
        assert {name: office.lease(name) for name in moved} == {name: done[name] for name in moved}
        if not striker.struck:
            return
    raise AssertionError(f"{move} has more than {STEPS_MAX} steps")
