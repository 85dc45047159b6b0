"""Events between services on real NATS and control: each has one effect, in order, through kills, pauses and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_streams import NatsStreams, StreamSettings
from aegis_sdk import Aegis, ResourceContext, Role, Service
from aegis_sdk.contract.control import SubscriptionView
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.nats.jetstream import JetStream
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server

from tests.integration.control.support import control
from tests.integration.sdk.support_events import (
    EMITTERS,
    TELL,
    TOLD,
    WAIT_S,
    Member,
    emitter,
    heard,
    heard_of,
    member,
    subscriber,
)


@contextlib.asynccontextmanager
async def environment() -> AsyncIterator[tuple[EmbeddedNats, Aegis]]:
    with EmbeddedNats() as server:
        async with control(server.url, "aegis"), aegis_sdk.connect(server.url) as aegis:
            yield server, aegis


async def lags(server: EmbeddedNats) -> list[SubscriptionView]:
    """As `ipc-cli top` and the metrics have them."""
    link = await Link.open(Server(server.url), name="lags")
    try:
        return await NatsStreams(JetStream(link), Subjects(), StreamSettings()).subscriptions()
    finally:
        await link.close()


async def tell(aegis: Aegis, of: str, *numbers: int, resource: str = "A") -> None:
    for n in numbers:
        await aegis.request(TELL[of], n, resource=resource, timeout_s=WAIT_S)


async def test_an_event_of_nobodys_contract_finds_its_stream_and_its_subscribers() -> None:
    """A late one begins where it says."""
    async with environment() as (server, aegis):
        await aegis.serve(emitter("out0"), resources={"A": Role.AUTO})
        await tell(aegis, "out0", 1, 2)
        await asyncio.sleep(1.0)
        then = datetime.now(UTC)
        await tell(aegis, "out0", 3)
        await aegis.serve(subscriber("in0", ["out0"]), resources={"A": Role.AUTO})
        late = Service("in1")

        @late.on(TOLD["out0"], resource=lambda told: told[0], begin=then)
        async def on_told(ctx: ResourceContext, told: tuple[str, int]) -> None:
            ctx.state.set("out0", [*(ctx.state.get("out0", list[int]) or []), told[1]])

        @late.handles(heard_of("in1"), pure=True)
        def heard_late(ctx: ResourceContext, of: str) -> list[int]:
            return ctx.state.get(of, list[int]) or []

        serving = await aegis.serve(late, resources={"A": Role.AUTO})
        await tell(aegis, "out0", 4)
        assert await heard(aegis, "in0", "out0", "A", 1) == [4]
        assert await heard(aegis, "in1", "out0", "A", 2) == [3, 4]
        await serving.drain()
        await tell(aegis, "out0", 5, 6)
        assert await heard(aegis, "in0", "out0", "A", 3) == [4, 5, 6]
        await asyncio.sleep(0.3)  # its position is kept four times a second
        taken, lagging = await lags(server)
        assert (taken.service, taken.position, taken.lag_entries, taken.lag_s) == ("in0", 6, 0, 0)
        assert (lagging.service, lagging.takes, lagging.lag_entries) == ("in1", "out0.told", 2)
        assert lagging.lag_s > 0.2


async def test_ten_emitters_and_ten_subscribers() -> None:
    """Many to many: each event once at each subscriber, in its emitter's order."""
    async with environment() as (_, aegis):
        names = [f"in{n}" for n in range(10)]
        services = [subscriber(name) for name in names] + [emitter(name) for name in EMITTERS]
        await asyncio.gather(
            *(aegis.serve(service, resources={"A": Role.AUTO}) for service in services)
        )
        await asyncio.gather(*(tell(aegis, name, *range(10)) for name in EMITTERS))
        for name in names:
            for of in EMITTERS:
                assert await heard_now(aegis, name, of, "A") == list(range(10))


async def heard_now(aegis: Aegis, name: str, of: str, resource: str) -> list[int]:
    async with asyncio.timeout(WAIT_S):
        while True:
            found = await aegis.request(heard_of(name), of, resource=resource, timeout_s=WAIT_S)
            if len(found) >= 10:
                return found
            await asyncio.sleep(0.05)


SERVICES = {"out": "out0", "in": "in0:out0"}


@pytest.mark.scenario
async def test_each_once_and_in_order_when_emitters_and_relays_are_killed_or_sleep() -> None:
    """kill -9 of whoever emits, and of whoever relays; a relay that sleeps, and wakes when another one has gone on."""
    async with environment() as (server, aegis), contextlib.AsyncExitStack() as stack:

        async def start(name: str) -> Member:
            service = SERVICES[name.partition("-")[0]]
            return await stack.enter_async_context(member(server.url, service, name, "A"))

        members = {name: await start(name) for name in ("in-1", "in-2", "out-1", "out-2")}
        for round_ in range(6):
            first = round_ * 30
            asking = asyncio.create_task(tell(aegis, "out0", *range(first, first + 30)))
            await asyncio.sleep(0.05)
            name = sorted(members)[round_ % 4]
            if round_ == 5:
                await sleeps(members[name])
            else:
                await members.pop(name).kill()
                members[f"{name}b"] = await start(f"{name}b")
            await asking
        assert await heard(aegis, "in0", "out0", "A", 180) == list(range(180))


async def sleeps(victim: Member) -> None:
    """For longer than control waits."""
    victim.send(signal.SIGSTOP)
    await asyncio.sleep(1.2)
    victim.send(signal.SIGCONT)


async def test_each_once_and_in_order_when_nats_restarts() -> None:
    async with environment() as (server, aegis):
        await aegis.serve(emitter("out0"), resources={"A": Role.AUTO})
        await aegis.serve(subscriber("in0", ["out0"]), resources={"A": Role.AUTO})
        for n in range(0, 120, 40):
            asking = asyncio.create_task(tell(aegis, "out0", *range(n, n + 40)))
            await asyncio.sleep(0.02)
            server.kill()
            await asyncio.to_thread(server.start)
            await asking
        assert await heard(aegis, "in0", "out0", "A", 120) == list(range(120))
