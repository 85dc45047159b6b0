"""Handlers that wait for each other, crowds, and handlers that never return: nobody else pays for them."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Aegis, Cancelled, Context, Method, NotExecuted, ResourceContext, Role, Service
from aegis_sdk.application import runs

from tests.integration.control.support import control

SUM: Method[int, int] = Method("sums", "sum", request=int, reply=int)
FAST: Method[int, int] = Method("sums", "fast", request=int, reply=int)
HANG: Method[int, int] = Method("sums", "hang", request=int, reply=int)
ASK: Method[int, int] = Method("desk", "ask", request=int, reply=int)
ADD: Method[int, int] = Method("desk", "add", request=int, reply=int)


@pytest.fixture
async def aegis(server: EmbeddedNats) -> AsyncIterator[Aegis]:
    prefix = f"t{secrets.token_hex(4)}"
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as client,
    ):
        yield client


async def eventually(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10.0):
        while not true():  # noqa: ASYNC110 - many places make it true
            await asyncio.sleep(0.01)


def sums(release: threading.Event | None = None) -> Service:
    """`sum` of n asks its own group for the sum of n - 1; `hang` returns when it is released."""
    service = Service("sums")

    @service.handles(SUM)
    async def sum_(ctx: Context, n: int) -> int:
        return n + await ctx.request(SUM, n - 1) if n else 0

    @service.handles(FAST)
    async def fast(ctx: Context, n: int) -> int:
        return n

    @service.handles(HANG)
    def hang(ctx: Context, n: int) -> int:
        assert release is not None
        release.wait(60)
        return n

    return service


@pytest.mark.parametrize(("callers", "depth"), [(16, 1), (40, 1), (300, 1), (50, 8), (16, 15)])
async def test_handlers_that_ask_their_own_group_are_answered(
    aegis: Aegis, callers: int, depth: int
) -> None:
    """G8: a handler that waits gives its credit back, so its nested request is read, at any depth."""
    await aegis.serve(sums())
    asked = [aegis.request(SUM, depth, timeout_s=10.0) for _ in range(callers)]
    assert await asyncio.gather(*asked) == [depth * (depth + 1) // 2] * callers


async def test_two_services_that_ask_each_other_are_answered(aegis: Aegis) -> None:
    """G8: what waits is not told by its service."""
    ping: Method[int, int] = Method("pings", "ping", request=int, reply=int)
    pong: Method[int, int] = Method("pongs", "pong", request=int, reply=int)
    pings, pongs = Service("pings"), Service("pongs")

    @pings.handles(ping)
    async def on_ping(ctx: Context, n: int) -> int:
        return 1 + await ctx.request(pong, n - 1) if n else 0

    @pongs.handles(pong)
    async def on_pong(ctx: Context, n: int) -> int:
        return 1 + await ctx.request(ping, n - 1) if n else 0

    await asyncio.gather(aegis.serve(pings), aegis.serve(pongs))
    asked = [aegis.request(ping, 6, timeout_s=10.0) for _ in range(60)]
    assert await asyncio.gather(*asked) == [6] * 60


async def test_a_handler_that_asks_by_a_client_or_gathers_gives_its_credit_back_too(
    aegis: Aegis,
) -> None:
    """G8: whoever makes the request, and however many at once, in tasks of the handler's own."""
    service = sums()
    both: Method[int, int] = Method("sums", "both", request=int, reply=int)

    @service.handles(both)
    async def on_both(ctx: Context, n: int) -> int:
        asked = (ctx.request(FAST, n), aegis.request(FAST, n), ctx.request(FAST, n))
        return sum(await asyncio.gather(*asked))

    await aegis.serve(service)
    asked = [aegis.request(both, 1, timeout_s=10.0) for _ in range(40)]
    assert await asyncio.gather(*asked) == [3] * 40


def desk(resources: int) -> Service:
    """`ask` blocks in its thread on another resource of the same instance."""
    service = Service("desk")

    @service.handles(ASK)
    def ask(ctx: ResourceContext, n: int) -> int:
        return 1 + ctx.request_blocking(ADD, n, resource=f"to-{n % resources}")

    @service.handles(ADD)
    def add(ctx: ResourceContext, n: int) -> int:
        total = int(ctx.state.get("total") or 0) + 1
        ctx.state.set("total", total)
        return total

    return service


async def test_plain_handlers_that_block_on_each_other_never_wait_for_a_thread(
    aegis: Aegis,
) -> None:
    """G8: a thread that waits for an answer does not count among those at work."""
    names = [f"from-{n}" for n in range(40)] + [f"to-{n}" for n in range(40)]
    await aegis.serve(desk(40), resources=dict.fromkeys(names, Role.AUTO))
    asked = [aegis.request(ASK, n, resource=f"from-{n}", timeout_s=10.0) for n in range(40)]
    assert await asyncio.gather(*asked) == [2] * 40


async def test_plain_group_handlers_that_block_on_their_own_group_are_answered(
    aegis: Aegis,
) -> None:
    """G8: threads and credit together, three calls deep."""
    service = Service("sums")

    @service.handles(SUM)
    def sum_(ctx: Context, n: int) -> int:
        return n + ctx.request_blocking(SUM, n - 1) if n else 0

    await aegis.serve(service)
    asked = [aegis.request(SUM, 3, timeout_s=10.0) for _ in range(100)]
    assert await asyncio.gather(*asked) == [6] * 100


@pytest.mark.parametrize("crowd", [700, 5_000])
async def test_a_crowd_at_one_resource_costs_the_others_nothing(aegis: Aegis, crowd: int) -> None:
    """G7, G8: however many wait for one, the others are served meanwhile; the crowd's order stays."""
    service = Service("desk")
    release = asyncio.Event()
    order: list[int] = []

    @service.handles(ADD)
    async def add(ctx: ResourceContext, n: int) -> int:
        if ctx.resource == "busy":
            await release.wait()
            order.append(n)
        return n

    await aegis.serve(service, resources={"busy": Role.AUTO, "idle": Role.AUTO})
    tickets = [await aegis.submit(ADD, n, resource="busy") for n in range(crowd)]
    assert await aegis.request(ADD, 7, resource="idle", timeout_s=5.0) == 7
    release.set()
    assert await aegis.attach(tickets[-1].id, ADD, timeout_s=60.0) == crowd - 1
    assert order == list(range(crowd))


async def test_handlers_that_never_return_do_not_keep_the_group_from_others(
    aegis: Aegis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G4, G8: past its deadline a handler is cancelled, or given up when it is a thread or does not listen."""
    monkeypatch.setattr(runs, "GIVE_UP_S", 0.2)
    release = threading.Event()
    service = sums(release)
    deaf: Method[int, int] = Method("sums", "deaf", request=int, reply=int)
    cancelled: list[int] = []
    listening = asyncio.Event()

    @service.handles(deaf)
    async def on_deaf(ctx: Context, n: int) -> int:
        while not listening.is_set():
            try:
                await listening.wait()
            except asyncio.CancelledError:
                cancelled.append(n)
        return n

    await aegis.serve(service)
    asked = [aegis.request(method, n, timeout_s=0.3) for n in range(40) for method in (HANG, deaf)]
    try:
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(end, Cancelled) for end in ends), ends
        assert await aegis.request(FAST, 5, timeout_s=5.0) == 5
        await eventually(lambda: cancelled)
    finally:
        release.set()
        listening.set()


async def test_handlers_without_deadline_that_hang_leave_their_place_and_are_told(
    aegis: Aegis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """G8: they hang by their author's will; the group goes on, and the log names them."""
    monkeypatch.setattr(runs, "LONG_S", 0.3)
    release = threading.Event()
    await aegis.serve(sums(release))
    try:
        for n in range(40):
            await aegis.submit(HANG, n)
        assert await aegis.request(FAST, 5, timeout_s=10.0) == 5
        await eventually(lambda: "handler_runs_long " in caplog.text)
        assert "method=hang" in caplog.text
    finally:
        release.set()


async def test_a_cancelled_handler_still_has_its_outcome(aegis: Aegis) -> None:
    """G2, G4: what nobody waits for ends as expired, in its resource's turn, and the next one is served."""
    service = Service("desk")
    stopped = asyncio.Event()

    @service.handles(ADD)
    async def add(ctx: ResourceContext, n: int) -> int:
        if not n:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
        return n

    await aegis.serve(service, resources={"ACC-1": Role.AUTO})
    ticket = await aegis.submit(ADD, 0, resource="ACC-1", expires_s=0.3)
    assert await aegis.request(ADD, 1, resource="ACC-1", timeout_s=5.0) == 1
    assert stopped.is_set()
    with pytest.raises(NotExecuted, match="deadline"):
        await aegis.attach(ticket.id, ADD)
