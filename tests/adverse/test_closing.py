"""Closing a client: each open call ends with what is known of it, and afterwards every verb says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aegis_sdk
import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import (
    Aegis,
    AegisError,
    Context,
    Draining,
    Evicted,
    Instance,
    Method,
    OutcomeUnknown,
    Service,
    Unavailable,
)
from aegis_sdk.contract.subjects import Subjects
from nats.aio.msg import Msg

from tests.integration.cli.support import run_cli
from tests.integration.control.support import control, until

SLOW: Method[int, int] = Method("slow", "slow", request=int, reply=int)


class World:
    def __init__(self, url: str, prefix: str) -> None:
        self.url, self.prefix = url, prefix
        self.begun = asyncio.Event()
        self.release = asyncio.Event()
        self.service = Service("slow")

        @self.service.handles(SLOW)
        async def slow(ctx: Context, n: int) -> int:
            self.begun.set()
            await self.release.wait()
            return n

    def connect(self) -> Any:
        return aegis_sdk.connect(self.url, prefix=self.prefix)


@pytest.fixture
async def world(server: EmbeddedNats) -> AsyncIterator[World]:
    """A service that answers when it is released, served by a client of its own."""
    made = World(server.url, f"t{secrets.token_hex(4)}")
    async with control(made.url, made.prefix), made.connect() as serving:
        await serving.serve(made.service)
        yield made
        made.release.set()


async def test_open_calls_end_at_once_with_their_ids_and_can_be_attached_to(world: World) -> None:
    """G4: the caller knows that it does not know, and how it can."""
    async with world.connect() as aegis:
        asked = [asyncio.create_task(aegis.request(SLOW, n, timeout_s=60.0)) for n in range(5)]
        await world.begun.wait()
        ticket = await aegis.submit(SLOW, 7)
        attached = asyncio.create_task(aegis.attach(ticket.id, SLOW, timeout_s=60.0))
        await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await aegis.close()
            ends = await asyncio.gather(*asked, attached, return_exceptions=True)
    assert {type(end) for end in ends} == {OutcomeUnknown}
    ids = [end.request_id for end in ends if isinstance(end, OutcomeUnknown)]
    world.release.set()
    async with world.connect() as again:
        replies = [await again.attach(request_id, SLOW) for request_id in ids]
    assert sorted(replies) == [0, 1, 2, 3, 4, 7]


@pytest.mark.parametrize("turns", range(8))
async def test_calls_that_are_closed_at_any_step_end_with_an_error_of_ours(
    world: World, turns: int
) -> None:
    """G4: also before they are sent, while the registry is read for the first time."""
    async with world.connect() as aegis:
        tasks = [
            asyncio.create_task(call)
            for call in (
                aegis.request(SLOW, 1, timeout_s=60.0),
                aegis.request(SLOW, 1, timeout_s=60.0, key=f"k{turns}"),
                aegis.submit(SLOW, 2, timeout_s=60.0),
                aegis.submit(SLOW, 2, timeout_s=60.0, key=f"s{turns}"),
                aegis.attach("nobody.1", SLOW, timeout_s=60.0),
                aegis.serve(world.service, wait_s=60.0),
            )
        ]
        for _ in range(turns**2):
            await asyncio.sleep(0)
        async with asyncio.timeout(4):
            await aegis.close()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            assert isinstance(end, (Draining, OutcomeUnknown, Unavailable)), repr(end)


VERBS: dict[str, Callable[[Aegis], Awaitable[object]]] = {
    "request": lambda aegis: aegis.request(SLOW, 1),
    "submit": lambda aegis: aegis.submit(SLOW, 1),
    "attach": lambda aegis: aegis.attach("nobody.1", SLOW),
    "serve": lambda aegis: aegis.serve(Service("other")),
    "serve_metrics": lambda aegis: asyncio.to_thread(aegis.serve_metrics, 0),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("end", ["close", "drain"])
async def test_every_verb_says_that_the_client_is_closed(world: World, verb: str, end: str) -> None:
    async with world.connect() as aegis:
        await getattr(aegis, end)()
        with pytest.raises(Draining, match="closed"):
            await VERBS[verb](aegis)
        for again in (aegis.close, aegis.drain):
            await again()


async def test_a_client_is_closed_once_however_many_close_it(world: World) -> None:
    async with world.connect() as aegis:
        await asyncio.gather(aegis.close(), aegis.close(), aegis.drain())


async def test_a_close_that_is_cancelled_goes_on(world: World) -> None:
    async with world.connect() as aegis:
        asked = asyncio.create_task(aegis.request(SLOW, 1, timeout_s=60.0))
        await world.begun.wait()
        closing = asyncio.create_task(aegis.close())
        await asyncio.sleep(0)
        closing.cancel()
        async with asyncio.timeout(2):
            with pytest.raises(OutcomeUnknown):
                await asked
    assert not aegis._link.is_connected


async def test_a_drain_waits_for_open_calls_and_a_close_meanwhile_ends_them(world: World) -> None:
    async with world.connect() as aegis:
        asked = asyncio.create_task(aegis.request(SLOW, 1, timeout_s=60.0))
        await world.begun.wait()
        draining = asyncio.create_task(aegis.drain(timeout_s=30.0))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.shield(asked)
        async with asyncio.timeout(2):
            await aegis.close()
            with pytest.raises(OutcomeUnknown):
                await asked
            await draining


async def test_a_connect_that_is_cancelled_leaves_nothing_open(world: World) -> None:
    before = asyncio.all_tasks()
    for turns in range(12):
        task = asyncio.create_task(world.connect().__aenter__())
        for _ in range(turns**2):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await task.result().close()
    left = asyncio.all_tasks() - before
    if left:
        await asyncio.wait(left, timeout=2)  # less than a flush waits for the server
    assert not asyncio.all_tasks() - before


async def test_a_serve_that_waits_for_control_ends_with_its_client(server: EmbeddedNats) -> None:
    """It would go on for as long as `wait_s`, on a connection of its own."""
    before = asyncio.all_tasks()
    prefix = f"t{secrets.token_hex(4)}"
    async with (
        _silent_control(server.url, prefix) as asked,
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        serving = asyncio.create_task(aegis.serve(_nothing(), wait_s=60.0))
        async with asyncio.timeout(5.0):
            await asked.wait()
        async with asyncio.timeout(2.0):
            await aegis.close()
            with pytest.raises(Draining):
                await serving
    assert not asyncio.all_tasks() - before


async def test_a_close_is_quick_also_while_nats_does_not_answer() -> None:
    """What waits for a server that hangs is left: an instance that leaves, a drain, a serve that begins."""
    before = asyncio.all_tasks()
    with EmbeddedNats() as server:
        async with (
            control(server.url, "aegis"),
            aegis_sdk.connect(server.url) as aegis,
        ):
            instance, _ = await aegis.serve(_nothing()), await aegis.serve(_nothing())

            async def leaves() -> bool:
                return instance._membership._left

            pid = server._process.pid if server._process else 0
            os.kill(pid, signal.SIGSTOP)
            try:
                draining = asyncio.create_task(instance.drain())
                serving = asyncio.create_task(aegis.serve(_nothing()))
                await until(leaves, "it waits for its leaving")
                async with asyncio.timeout(4.0):
                    await aegis.close()
                    await draining
                    with pytest.raises(Draining):
                        await serving
            finally:
                os.kill(pid, signal.SIGCONT)
    assert not asyncio.all_tasks() - before


@contextlib.asynccontextmanager
async def _silent_control(url: str, prefix: str) -> AsyncIterator[asyncio.Event]:
    """It never answers; the event tells that it was asked."""
    asked = asyncio.Event()

    async def on_registration(_: Msg) -> None:
        asked.set()

    client = await nats.connect(url)
    try:
        await client.subscribe(Subjects(prefix).register, cb=on_registration)
        await client.flush()
        yield asked
    finally:
        await client.close()


def _nothing() -> Service:
    service = Service("idle")

    @service.handles(Method("idle", "idle", request=int, reply=int))
    async def idle(ctx: Context, n: int) -> int:
        return n

    return service


@pytest.mark.parametrize(("verb", "error"), [("disconnect", Evicted), ("drain", None)])
async def test_an_instance_that_is_told_to_end_while_it_starts_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, verb: str, error: type[AegisError] | None
) -> None:
    """Whatever it waits for just then: its connection is gone, and nothing would ever come."""
    starts = asyncio.Event()

    async def wait(_: Instance) -> None:
        starts.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Instance, "_serve_group", wait)
    where = ("--url", world.url, "--prefix", world.prefix)
    async with world.connect() as aegis, asyncio.timeout(10.0):
        serving = asyncio.create_task(aegis.serve(world.service, instance_id="new"))
        await starts.wait()
        assert (await run_cli(verb, "new", "--yes", *where)).code == 0
        with contextlib.nullcontext() if error is None else pytest.raises(error):
            await (await serving).serve_forever(signals=False)
