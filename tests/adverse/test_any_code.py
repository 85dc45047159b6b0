"""AegisIPC from code of any kind: threads, scripts, forks, notebooks. What can't work says so immediately."""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import json
import secrets
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import (
    Aegis,
    AegisError,
    Context,
    ContractError,
    Draining,
    HandlerFailed,
    InvalidPayload,
    Method,
    NoRoute,
    OutcomeUnknown,
    Rejected,
    ResourceContext,
    Role,
    Service,
    blocking,
)
from aegis_sdk.testing import blocking_harness, harness

from tests.adverse.threads import ECHO, SLOW, words
from tests.integration.control.support import control
from tests.scenarios.system import Process

ADD: Method[int, int] = Method("sums", "add", request=int, reply=int)
BLOCKED_S_MAX = 3.0
THREADS = ThreadPoolExecutor(40)


def sums() -> Service:
    service = Service("sums")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, n: int) -> int:
        if n < 0:
            raise Rejected("negative")
        total = (ctx.state.get("total", int) or 0) + n
        ctx.state.set("total", total)
        return total

    return service


class World:
    def __init__(self, url: str, prefix: str) -> None:
        self.url, self.prefix = url, prefix
        self.begun = asyncio.Event()
        self.release = asyncio.Event()

    def connect(self) -> Any:
        return aegis_sdk.connect(self.url, prefix=self.prefix)

    def connect_blocking(self) -> blocking.Aegis:
        return blocking.connect(self.url, prefix=self.prefix)


@pytest.fixture
async def world(server: EmbeddedNats) -> AsyncIterator[World]:
    """Two services, on a client and a loop of their own: that of the test."""
    made = World(server.url, f"t{secrets.token_hex(4)}")
    async with control(made.url, made.prefix), made.connect() as serving:
        await serving.serve(words(made.begun, made.release))
        await serving.serve(sums(), resources={"R": Role.AUTO})
        yield made
        made.release.set()


async def in_thread(work: Callable[[], Any], *, timeout_s: float = 10.0) -> Any:
    async with asyncio.timeout(timeout_s):
        return await asyncio.get_running_loop().run_in_executor(THREADS, work)


# --- threads ----------------------------------------------------------------------------------------------
async def test_a_thread_has_the_verbs_of_the_client(world: World) -> None:
    def work() -> None:
        with world.connect_blocking() as aegis:
            assert aegis.request(ADD, 2, resource="R") == 2
            ticket = aegis.submit(ADD, 3, resource="R", key="k")
            assert aegis.attach(ticket.id, ADD) == 5
            with pytest.raises(Rejected, match="negative"):
                aegis.request(ADD, -1, resource="R")
            with pytest.raises(NoRoute):
                aegis.request(ADD, 1, resource="nobody's")
            with pytest.raises(InvalidPayload):
                aegis.request(ADD, "one", resource="R")  # type: ignore[misc]
            with pytest.raises(TypeError):
                aegis.request()  # type: ignore[call-arg]
            assert aegis.serve_metrics(0) > 0

    await in_thread(work)


def test_each_verb_takes_what_the_asynchronous_one_takes() -> None:
    for theirs, ours in ((Aegis, blocking.Aegis), (aegis_sdk.Instance, blocking.Instance)):
        for name, verb in inspect.getmembers(theirs, inspect.isfunction):
            if not name.startswith("_") and name not in ("start", "until_ended"):
                mine = inspect.signature(getattr(ours, name))
                assert mine.parameters == inspect.signature(verb).parameters, name
    assert inspect.signature(blocking.connect) == inspect.signature(aegis_sdk.connect)


async def test_thirty_two_threads_share_one_client(world: World) -> None:
    """G3: each of their requests takes effect once."""

    def work() -> None:
        with world.connect_blocking() as aegis, ThreadPoolExecutor(32) as threads:
            sums_ = list(threads.map(lambda _: aegis.request(ADD, 1, resource="R"), range(640)))
        assert sorted(sums_) == list(range(1, 641))

    await in_thread(work, timeout_s=30.0)


async def test_an_instance_is_served_beside_threads(world: World) -> None:
    service = Service("own")
    own = Method("own", "twice", request=int, reply=int)

    @service.handles(own)
    async def twice(ctx: Context, n: int) -> int:
        return 2 * await ctx.request(ECHO, n)

    def work() -> None:
        with world.connect_blocking() as aegis:
            instance = aegis.serve(service, resources={"R": Role.AUTO})
            instance.ready()
            assert instance.id.startswith("own-")
            assert instance.active_resources == ["R"]
            assert aegis.request(own, 4) == 8
            instance.drain()
            instance.serve_forever(signals=False)  # it has ended

    await in_thread(work, timeout_s=20.0)
    gc.unfreeze()  # what serve_forever did: others use this process, too


async def test_a_close_ends_what_other_threads_have_open(world: World) -> None:
    """G4: by OutcomeUnknown with the id, which can be attached to; later verbs say that it is closed."""
    aegis: blocking.Aegis = await in_thread(world.connect_blocking)
    asked = [
        asyncio.create_task(in_thread(partial(aegis.request, SLOW, n, timeout_s=60.0)))
        for n in range(4)
    ]
    await world.begun.wait()
    await in_thread(aegis.close, timeout_s=BLOCKED_S_MAX)
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(end) for end in ends} <= {OutcomeUnknown, Draining}
    for verb in (
        lambda: aegis.request(ECHO, 1),
        lambda: aegis.submit(ECHO, 1),
        lambda: aegis.attach("a.1", ECHO),
        lambda: aegis.serve(sums()),
        lambda: aegis.serve_metrics(0),
    ):
        with pytest.raises(Draining, match="closed"):
            await in_thread(verb)
    await in_thread(aegis.close)
    await in_thread(aegis.drain)
    assert not aegis._home._thread.is_alive()


def _until_refused(aegis: blocking.Aegis) -> AegisError:
    while True:
        try:
            aegis.request(ECHO, 1)
        except AegisError as error:
            return error


async def test_many_threads_may_close_and_ask_at_the_same_time(world: World) -> None:
    """None of them is left waiting."""
    for _ in range(5):
        aegis = await in_thread(world.connect_blocking)

        asked = [asyncio.create_task(in_thread(partial(_until_refused, aegis))) for _ in range(6)]
        await in_thread(partial(aegis.request, ECHO, 1))
        await asyncio.gather(*(in_thread(aegis.close) for _ in range(3)))
        async with asyncio.timeout(BLOCKED_S_MAX):
            assert {type(end) for end in await asyncio.gather(*asked)} <= {Draining, OutcomeUnknown}


async def test_a_connection_that_fails_leaves_no_thread(world: World) -> None:
    def work() -> None:
        with pytest.raises(aegis_sdk.Unavailable):
            blocking.connect("nats://127.0.0.1:1", wait_s=0.0)
        with pytest.raises(aegis_sdk.InvalidAddress):
            blocking.connect("nonsense://")

    await in_thread(work)
    assert [each for each in threading.enumerate() if each.name == "aegis-blocking"] == []


async def test_a_thread_that_would_wait_for_itself_is_told_so(world: World) -> None:
    """A handler, or anything else on a loop that serves an instance; never a wait until the deadline."""
    service = Service("own")
    own = Method("own", "ask", request=int, reply=int)
    clients: list[blocking.Aegis] = []

    @service.handles(own)
    async def ask(ctx: Context, n: int) -> int:
        return clients[0].request(ECHO, n)

    def work() -> None:
        with world.connect_blocking() as aegis:
            clients.append(aegis)
            aegis.serve(service)
            with pytest.raises(HandlerFailed, match=r"await ctx\.request"):
                aegis.request(own, 1)

    await in_thread(work)
    aegis = await in_thread(world.connect_blocking)
    with pytest.raises(ContractError, match="event loop of this thread"):
        aegis.request(ECHO, 1)
    await in_thread(aegis.close)


async def test_a_handler_in_a_thread_may_use_a_blocking_client(world: World) -> None:
    service = Service("own")
    own = Method("own", "ask", request=int, reply=int)
    aegis = await in_thread(world.connect_blocking)

    @service.handles(own)
    def ask(ctx: Context, n: int) -> int:
        reply: int = aegis.request(ECHO, n)
        return reply

    async with world.connect() as serving:
        await serving.serve(service)
        assert await asyncio.gather(*(serving.request(own, n) for n in range(40))) == list(
            range(40)
        )
    await in_thread(aegis.close)


# --- loops ------------------------------------------------------------------------------------------------
def _on_a_loop_of_its_own(verb: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    asyncio.run(verb())


async def test_another_loop_is_told_so_by_each_verb(world: World) -> None:
    """It was a raw error of asyncio, or a wait past the deadline."""
    async with world.connect() as aegis:
        instance = await aegis.serve(with_echo("own"))
        for verb in (
            lambda: aegis.request(ECHO, 1),
            lambda: aegis.submit(ECHO, 1),
            lambda: aegis.attach("a.1", ECHO),
            lambda: aegis.serve(sums()),
            aegis.drain,
            aegis.close,
            instance.ready,
            instance.drain,
            instance.stop,
            lambda: instance.serve_forever(signals=False),
        ):
            began_s = time.monotonic()
            with pytest.raises(ContractError, match="another event loop"):
                await in_thread(partial(_on_a_loop_of_its_own, verb))
            assert time.monotonic() - began_s < 1.0
        assert await aegis.request(ECHO, 2) == 2


def with_echo(name: str) -> Service:
    service = Service(name)

    @service.handles(Method(name, "echo", request=int, reply=int))
    async def echo(ctx: Context, n: int) -> int:
        return n

    return service


async def test_a_loop_that_has_ended_leaves_a_client_that_says_so(world: World) -> None:
    """As in a web application that runs a loop for each of its requests."""
    opening = world.connect()
    kept: list[Aegis] = []

    async def open_() -> None:
        kept.append(await opening.__aenter__())
        assert await kept[0].request(ECHO, 1) == 1

    def work() -> None:
        asyncio.run(open_())
        with pytest.raises(ContractError, match="another event loop"):
            asyncio.run(kept[0].request(ECHO, 1))

    await in_thread(work)


@pytest.mark.parametrize("of", ["ctx", "client"])
async def test_a_loop_within_a_handlers_thread_is_told_so(of: str) -> None:
    service = with_echo("words")
    ask = Method("words", "ask", request=int, reply=int)
    clients: list[Any] = []

    @service.handles(ask)
    def ask_(ctx: Context, n: int) -> int:
        asker: Any = ctx if of == "ctx" else clients[0]
        reply: int = asyncio.run(asker.request(ECHO, n))
        return reply

    async with harness(service) as aegis:
        clients.append(aegis)
        with pytest.raises(HandlerFailed, match="request_blocking"):
            await aegis.request(ask, 1)


# --- notebooks --------------------------------------------------------------------------------------------
class Notebook:
    """Runs cells as IPython does: each is compiled with top-level `await`, and all share one loop and names."""

    def __init__(self, **names: Any) -> None:
        self.names = names

    async def run(self, cell: str) -> None:
        code = compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, self.names)
        if inspect.iscoroutine(result):
            await result


CELLS = [
    "async with aegis_sdk.connect(url, prefix=prefix) as aegis:\n    replies = [await aegis.request(ECHO, 1)]",
    "opening = aegis_sdk.connect(url, prefix=prefix)\naegis = await opening.__aenter__()",
    "replies.append(await aegis.request(ECHO, 2))",
    "await aegis.close()",
    "threads = aegis_sdk.blocking.connect(url, prefix=prefix)",
    "replies.append(threads.request(ECHO, 3))",
    "with aegis_sdk.blocking.connect(url, prefix=prefix) as more:\n    replies.append(more.request(ECHO, 4))",
    "threads.close()",
]


async def test_cells_of_a_notebook_use_either_client(world: World) -> None:
    """A kernel runs its cells on one loop, which runs on between them (ipykernel) or stands still (IPython)."""
    names = {"aegis_sdk": aegis_sdk, "ECHO": ECHO, "url": world.url, "prefix": world.prefix}

    def kernel() -> list[int]:
        notebook = Notebook(**names)
        with asyncio.Runner() as runner:
            for cell in CELLS:
                runner.run(notebook.run(cell))
        return list(notebook.names["replies"])

    def running_kernel() -> list[int]:
        notebook = Notebook(**names)

        async def cells() -> None:
            for cell in CELLS:
                await notebook.run(cell)

        asyncio.run(cells())
        return list(notebook.names["replies"])

    assert await in_thread(kernel) == [1, 2, 3, 4]
    assert await in_thread(running_kernel) == [1, 2, 3, 4]


# --- the harness ------------------------------------------------------------------------------------------
def test_the_harness_is_there_for_threads_too() -> None:
    with blocking_harness(sums(), resources={"R"}) as aegis:
        assert aegis.request(ADD, 2, resource="R") == 2
        ticket = aegis.submit(ADD, 3, resource="R")
        assert aegis.attach(ticket.id, ADD) == 5
        with pytest.raises(ContractError, match="another event loop"):
            asyncio.run(aegis._inner.request(ADD, 1, resource="R"))
        with pytest.raises(ContractError, match="another event loop"):
            asyncio.run(aegis._inner.attach(ticket.id, ADD))
    with pytest.raises(Draining):
        aegis.request(ADD, 1, resource="R")


# --- processes --------------------------------------------------------------------------------------------
async def script(world: World, kind: str, folder: Path) -> Process:
    arguments = ("-m", "tests.adverse.threads", world.url, world.prefix, kind)
    return await Process.start(kind, *arguments, folder=folder)


async def ended(process: Process) -> list[dict[str, Any]]:
    """What it said until it ended by itself, without an error."""
    async with asyncio.timeout(30):
        code = await process._process.wait()
        await process._listener
    assert code == 0, process.log_text()
    assert "Traceback" not in process.log_text()
    return process.events


async def test_ctrl_c_in_a_thread_that_waits_leaves_the_client_usable(
    world: World, tmp_path: Path
) -> None:
    process = await script(world, "interrupted", tmp_path)
    await process.wait_for("ready")
    await world.begun.wait()
    process.send(signal.SIGINT)
    said = await ended(process)
    assert said[-1] == {"event": "interrupted", "reply": 7}
    assert process.logged("caller_cancelled")[0]["request_id"]
    assert [each["outcome"] for each in process.logged("cancelled_request_ended")] == ["cancelled"]


async def test_a_script_that_closes_nothing_ends_and_its_threads_have_their_answers(
    world: World, tmp_path: Path
) -> None:
    said = await ended(await script(world, "left_open", tmp_path))
    assert said == [{"event": "late", "reply": 3}]


@pytest.mark.parametrize(("kind", "verbs"), [("forks", 4), ("pool", 4), ("async_forks", 5)])
async def test_a_forked_child_is_told_so_by_each_verb_and_its_parent_goes_on(
    world: World, tmp_path: Path, kind: str, verbs: int
) -> None:
    """Whichever client; also while other threads are in the middle of a call."""
    said = await ended(await script(world, kind, tmp_path))
    refused = [each for each in said if each["event"] == "refused"]
    assert len(refused) == verbs, json.dumps(said)
    assert {each["error"] for each in refused} == {"ContractError"}
    assert all("connect in the child" in each["text"] for each in refused)
    assert said[-1]["event"] == "parent"
    assert said[-1]["reply"] == 2
    assert said[-1].get("code", 0) == 0
    assert any(each["event"] in ("own", "closed") for each in said)
