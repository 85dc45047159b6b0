"""Giving up on purpose: a cancel has one definite answer, and a caller that is cancelled takes its request with it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import (
    Aegis,
    AegisError,
    Cancelled,
    Context,
    ContractError,
    InvalidName,
    Method,
    NeverAccepted,
    OutcomeKind,
    OutcomeUnknown,
    ResourceContext,
    Role,
    Service,
    UnknownService,
)
from aegis_sdk.log_line import Line
from aegis_sdk.testing import MemoryAegis, blocking_harness, harness

from tests.adverse.adding import ADD, PRICE, TOTAL
from tests.integration.control.support import control
from tests.scenarios.system import Process

HOLD: Method[int, int] = Method("desk", "hold", request=int, reply=int)
PUT: Method[int, int] = Method("desk", "put", request=int, reply=int)
GROUP: Method[int, int] = Method("desk", "group", request=int, reply=int)
ASK: Method[int, int] = Method("desk", "ask", request=int, reply=int)


class Desk:
    """`HOLD` waits until it is released; all say what they ran."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.release = asyncio.Event()
        self.ran: list[int] = []
        self.service = Service("desk")

        @self.service.handles(HOLD)
        async def hold(ctx: ResourceContext, n: int) -> int:
            self.begun.set()
            await self.release.wait()
            ctx.state.set("n", n)
            return n

        @self.service.handles(PUT)
        async def put(ctx: ResourceContext, n: int) -> int:
            self.ran.append(n)
            before = ctx.state.get("n", int) or 0
            ctx.state.set("n", n)
            return before

        @self.service.handles(GROUP)
        async def group(ctx: Context, n: int) -> int:
            self.begun.set()
            await self.release.wait()
            return n

        @self.service.handles(ASK)
        async def ask(ctx: Context, n: int) -> int:
            asked = asyncio.create_task(ctx.request(HOLD, n, resource="R"))
            await self.begun.wait()
            asked.cancel()
            await asyncio.wait({asked})
            return n


Client = Aegis | MemoryAegis


@pytest.fixture(params=["nats", "memory"])
async def world(
    request: pytest.FixtureRequest, server: EmbeddedNats, prefix: str
) -> AsyncIterator[tuple[Client, Desk]]:
    desk = Desk()
    if request.param == "memory":
        async with harness(desk.service, resources={"R"}) as memory:
            yield memory, desk
            desk.release.set()
        return
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as serving,
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        await serving.serve(desk.service, resources={"R": Role.AUTO})
        yield aegis, desk
        desk.release.set()


async def held(aegis: Client, desk: Desk) -> asyncio.Task[int]:
    """One request is at work at R, and the others wait behind it."""
    task = asyncio.create_task(aegis.request(HOLD, 1, resource="R", timeout_s=30.0))
    await desk.begun.wait()
    return task


async def until_open(aegis: Client, count: int) -> None:
    """So many requests of this client wait for their outcomes."""
    requester = aegis._requester if isinstance(aegis, MemoryAegis) else aegis._requests.requester
    way: Any = requester._way
    async with asyncio.timeout(5):
        while len(way.open._waiting) < count:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.002)


async def timed_out(aegis: Client) -> None:
    """A call whose time is over when it is open."""
    async with asyncio.timeout(None) as scope, asyncio.TaskGroup() as beside:
        beside.create_task(aegis.request(PUT, 5, resource="R", timeout_s=30.0))
        await until_open(aegis, 2)
        scope.reschedule(0)


async def test_one_that_waits_is_cancelled_and_never_runs(world: tuple[Client, Desk]) -> None:
    """G2, G4: for whoever asks, now and later."""
    aegis, desk = world
    holding = await held(aegis, desk)
    ticket = await aegis.submit(PUT, 5, resource="R", key="k")
    plain = await aegis.submit(PUT, 6, resource="R")
    for each in (ticket, plain):
        assert await aegis.cancel(each.id) is OutcomeKind.CANCELLED
        assert await aegis.cancel(each.id, PUT) is OutcomeKind.CANCELLED
    desk.release.set()
    assert await holding == 1
    assert await aegis.request(PUT, 7, resource="R") == 1
    assert desk.ran == [7]
    with pytest.raises(Cancelled):
        await aegis.attach(ticket.id, PUT)
    with pytest.raises(Cancelled):
        await aegis.request(PUT, 5, resource="R", key="k")


async def test_one_that_has_ended_says_how(world: tuple[Client, Desk]) -> None:
    aegis, _ = world
    ticket = await aegis.submit(PUT, 5, resource="R")
    assert await aegis.attach(ticket.id, PUT) == 0
    assert await aegis.cancel(ticket.id) is OutcomeKind.EXECUTED
    assert await aegis.attach(ticket.id, PUT) == 0


async def test_one_that_has_begun_has_one_end_whatever_its_handler_does(
    world: tuple[Client, Desk],
) -> None:
    aegis, desk = world
    ticket = await aegis.submit(HOLD, 9, resource="R")
    await desk.begun.wait()
    assert await aegis.cancel(ticket.id) is OutcomeKind.CANCELLED
    desk.release.set()
    assert await aegis.request(PUT, 1, resource="R") == 0, "nothing of it took effect"
    with pytest.raises(Cancelled):
        await aegis.attach(ticket.id, HOLD)


async def test_a_request_of_the_group_is_cancelled_too(world: tuple[Client, Desk]) -> None:
    aegis, desk = world
    ticket = await aegis.submit(GROUP, 9)
    await desk.begun.wait()
    assert await aegis.cancel(ticket.id) is OutcomeKind.CANCELLED
    with pytest.raises(Cancelled):
        await aegis.attach(ticket.id, GROUP)


async def test_one_that_somebody_here_waits_for_is_cancelled_for_both(
    world: tuple[Client, Desk],
) -> None:
    aegis, desk = world
    holding = await held(aegis, desk)
    asked = asyncio.create_task(aegis.request(PUT, 5, resource="R", key="k", timeout_s=30.0))
    await until_open(aegis, 2)
    assert await aegis.cancel("key-desk.k") is OutcomeKind.CANCELLED
    with pytest.raises(Cancelled):
        await asked
    desk.release.set()
    assert await holding == 1
    assert desk.ran == []


async def test_what_is_nowhere_was_never_accepted_or_may_have_been_sent(
    world: tuple[Client, Desk],
) -> None:
    """No guess: an id that was only sent can be ended where its method and resource are known."""
    aegis, _ = world
    for nobody in ("abcdef.5t", "key-desk.nobodys", "abc~5.put-0123456789abcdef"):
        with pytest.raises(NeverAccepted):
            await aegis.cancel(nobody)
    with pytest.raises(OutcomeUnknown, match="name its method and resource") as caught:
        await aegis.cancel("abcdef.5")
    assert not isinstance(caught.value, NeverAccepted)
    assert await aegis.cancel("abcdef.5", PUT, resource="R") is OutcomeKind.CANCELLED
    assert await aegis.cancel("abcdef.6", GROUP) is OutcomeKind.CANCELLED
    with pytest.raises(ContractError):
        await aegis.cancel("abcdef.7", PUT)
    with pytest.raises(UnknownService):
        await aegis.cancel("abcdef.8", Method("nobody", "x", request=int, reply=int))
    with pytest.raises(InvalidName):
        await aegis.cancel("no id")


async def _until_said(caplog: pytest.LogCaptureFixture, event: str) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while True:
            for record in caplog.records:
                if isinstance(record.msg, Line) and record.msg["event"] == event:
                    return record.msg
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["cancel", "timeout", "key", "group", "submit"])
async def test_a_caller_that_is_cancelled_takes_its_request_with_it(
    world: tuple[Client, Desk], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """A client that disconnects, `asyncio.timeout`: the request has no effect later, and the log has its id."""
    aegis, desk = world
    caplog.set_level("INFO", logger="aegis_sdk")
    holding = await held(aegis, desk)
    if how == "timeout":
        with pytest.raises(TimeoutError):
            await timed_out(aegis)
    else:
        asked: asyncio.Task[Any]
        if how == "group":
            asked = asyncio.create_task(aegis.request(GROUP, 5, timeout_s=30.0))
        elif how == "submit":
            asked = asyncio.create_task(aegis.submit(PUT, 5, resource="R"))
        else:
            key = "k" if how == "key" else None
            asked = asyncio.create_task(
                aegis.request(PUT, 5, resource="R", timeout_s=30.0, key=key)
            )
        if how == "submit":  # on its way: it is open only when it is stored
            for _ in range(3):
                await asyncio.sleep(0)
        else:
            await until_open(aegis, 2)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    left = await _until_said(caplog, "caller_cancelled")
    ended = await _until_said(caplog, "cancelled_request_ended")
    assert ended["request_id"] == left["request_id"]
    assert ended["outcome"] == "cancelled"
    desk.release.set()
    assert await holding == 1
    assert await aegis.request(PUT, 7, resource="R") == 1
    assert desk.ran == [7]


async def test_a_client_that_is_closed_right_after_still_ends_it(
    server: EmbeddedNats, prefix: str
) -> None:
    """As a program does that is interrupted."""
    desk = Desk()
    async with control(server.url, prefix), aegis_sdk.connect(server.url, prefix=prefix) as serving:
        await serving.serve(desk.service, resources={"R": Role.AUTO})
        holding = await held(serving, desk)
        async with aegis_sdk.connect(server.url, prefix=prefix) as aegis:
            asked = [
                asyncio.create_task(aegis.request(PUT, n, resource="R", timeout_s=30.0))
                for n in range(5)
            ]
            await until_open(aegis, 5)
            for each in asked:
                each.cancel()
            await asyncio.wait(asked)
        desk.release.set()
        assert await holding == 1
        assert await serving.request(PUT, 7, resource="R") == 1
        assert desk.ran == [7]


async def test_a_handlers_call_outlives_the_task_that_made_it(world: tuple[Client, Desk]) -> None:
    """Its next run asks for the reply: as before, what a handler asks has its effect."""
    aegis, desk = world
    asked = asyncio.create_task(aegis.request(ASK, 4, timeout_s=30.0))
    await desk.begun.wait()
    assert await asked == 4
    desk.release.set()
    assert await aegis.request(PUT, 1, resource="R") == 4


def test_a_thread_cancels_with_the_same_verb() -> None:
    service = Service("desk")

    @service.handles(PUT)
    async def put(ctx: ResourceContext, n: int) -> int:
        return n

    with blocking_harness(service, resources={"R"}) as aegis:
        ticket = aegis.submit(PUT, 3, resource="R")
        assert aegis.attach(ticket.id, PUT) == 3
        assert aegis.cancel(ticket.id) is OutcomeKind.EXECUTED


async def _outcome(aegis: Aegis, request_id: str, method: Method[int, int]) -> OutcomeKind:
    try:
        await aegis.attach(request_id, method, timeout_s=15.0)
    except Cancelled:
        return OutcomeKind.CANCELLED
    return OutcomeKind.EXECUTED


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.scenario
async def test_a_cancel_has_one_answer_while_its_active_is_killed(
    server: EmbeddedNats, prefix: str, tmp_path: Path, seed: int
) -> None:
    """G2, G4: whoever asks is told the same, and what was cancelled is not in the state."""
    chance = random.Random(seed)
    instances: list[Process] = []
    async with control(server.url, prefix), aegis_sdk.connect(server.url, prefix=prefix) as aegis:
        for n in range(2):
            arguments = ("-m", "tests.adverse.adding", server.url, prefix)
            instances.append(await Process.start(f"adds-{n}", *arguments, folder=tmp_path))
            await instances[-1].wait_for("ready", timeout_s=30.0)
        assert await aegis.request(ADD, 0, resource="R", timeout_s=15.0) == 0

        async def one(n: int) -> tuple[int, OutcomeKind, OutcomeKind]:
            method, resource = (ADD, "R") if n % 4 else (PRICE, None)
            ticket = await aegis.submit(method, 2**n, resource=resource, timeout_s=15.0)
            await asyncio.sleep(chance.random() * 0.6)
            hint = method if n % 2 else None
            told = await aegis.cancel(ticket.id, hint, resource=resource, timeout_s=15.0)
            return (2**n if resource else 0), told, await _outcome(aegis, ticket.id, method)

        async def left(n: int) -> None:
            """Sent, and its caller goes."""
            try:
                async with asyncio.timeout(chance.random() * 0.6):
                    await aegis.request(ADD, 2 ** (40 + n), resource="R", timeout_s=15.0)
            except (TimeoutError, AegisError):
                return

        work = [asyncio.create_task(one(n)) for n in range(32)]
        leaving = [asyncio.create_task(left(n)) for n in range(8)]
        await asyncio.sleep(0.3)
        instances[0].send(signal.SIGKILL)
        ends = await asyncio.gather(*work)
        await asyncio.gather(*leaving)
        assert [told for _, told, _ in ends] == [found for _, _, found in ends]
        executed = sum(n for n, told, _ in ends if told is OutcomeKind.EXECUTED)
        total = await aegis.request(TOTAL, 0, resource="R", timeout_s=15.0)
        assert total % 2**40 == executed
        assert {told for _, told, _ in ends} == {OutcomeKind.EXECUTED, OutcomeKind.CANCELLED}
        instances[1].send(signal.SIGKILL)
