"""The journal is trimmed: what is past its retention goes, what a standby needs stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Aegis, Method, ResourceContext, Role, Service
from aegis_sdk.application.resource_host import ResourceHost
from aegis_sdk.application.serving import Serving
from aegis_sdk.form import TURNS
from aegis_sdk.instance import Instance

from tests.integration.control.support import Broker, control, until

pytestmark = pytest.mark.skipif(
    TURNS, reason="of the first form: tests/integration/turns/test_trim.py"
)
KEEP_S = 2.0
ADD = Method("ledger", "add", request=int, reply=int)
READ = Method("ledger", "read", request=int, reply=int)
LARGE = Method("ledger", "large", request=int, reply=int)


def ledger() -> Service:
    service = Service("ledger")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, n: int) -> int:
        total = (ctx.state.get("total", int) or 0) + n
        ctx.state.set("total", total)
        return total

    @service.handles(READ)
    async def read(ctx: ResourceContext, _: int) -> int:
        return ctx.state.get("total", int) or 0

    @service.handles(LARGE)
    async def large(ctx: ResourceContext, size: int) -> int:
        ctx.state.set(f"large-{size}", "x" * size)
        return size

    return service


@pytest.fixture
async def aegis(server: EmbeddedNats, prefix: str) -> AsyncIterator[Aegis]:
    settings = {"requests_max_age_s": KEEP_S, "outcome_ttl_s": KEEP_S, "return_grace_s": 60.0}
    async with (
        control(server.url, prefix, **settings),
        aegis_sdk.connect(server.url, prefix=prefix) as client,
    ):
        yield client


async def serve(aegis: Aegis, **resources: Role) -> Instance:
    return await aegis.serve(ledger(), resources=resources)


async def entries(broker: Broker, kind: str) -> int:
    stream = broker.subjects.journal_stream("ledger")
    info = await broker.api(f"STREAM.INFO.{stream}", {"subjects_filter": f"*.jrn.ledger.*.{kind}"})
    return len(info["state"].get("subjects") or {})


async def until_no(broker: Broker, kind: str) -> None:
    async def none() -> bool:
        return not await entries(broker, kind)

    await until(none, f"no {kind} is left")


async def test_outcomes_past_their_retention_go_and_the_state_stays(
    aegis: Aegis, broker: Broker
) -> None:
    """G6: a standby that comes later has everything from the checkpoint."""
    active = await serve(aegis, R1=Role.ACTIVE, R2=Role.ACTIVE)
    for n in range(1, 31):
        await aegis.request(ADD, n, resource="R1")
        await aegis.request(READ, n, resource="R2")
    assert await entries(broker, "out.>") == 60
    await until_no(broker, "out.>")
    assert await entries(broker, "fence") == 2
    assert await aegis.request(ADD, 1, resource="R1") == 466
    standby = await serve(aegis, R1=Role.STANDBY)
    await active.stop()
    await until_active(standby, "R1")
    assert await aegis.request(ADD, 1, resource="R1") == 467


async def test_what_no_checkpoint_covers_holds_the_trim_up_until_its_instance_is_back(
    aegis: Aegis, broker: Broker
) -> None:
    """G6: an outage of any length expires nothing."""
    other = await serve(aegis, R1=Role.ACTIVE)
    gone = await serve(aegis, R2=Role.ACTIVE)
    assert await aegis.request(ADD, 7, resource="R2") == 7
    await gone.stop()  # before it wrote a checkpoint
    await aegis.request(ADD, 1, resource="R1")
    events: list[Any] = []
    listener = await broker.client.subscribe(broker.subjects.event("journal_trim_held_up"))
    events.append(await listener.next_msg(timeout=KEEP_S + 10))
    assert b'"R2"' in events[0].data
    assert await entries(broker, "out.>") == 2
    back = await serve(aegis, R2=Role.AUTO)
    await until_active(back, "R2")
    assert await aegis.request(READ, 0, resource="R2") == 7
    await until_no(broker, "out.>")
    assert await aegis.request(ADD, 1, resource="R2") == 8
    await other.stop()


def host_of(instance: Instance) -> ResourceHost:
    assert isinstance(instance._serving, Serving)
    return instance._serving.host


async def test_a_large_state_keeps_the_parts_of_its_newest_checkpoint_alone(
    aegis: Aegis, broker: Broker
) -> None:
    active = await serve(aegis, R1=Role.ACTIVE)
    written = host_of(active).actors["R1"].journal
    sizes = range(400_000, 400_006)

    async def covered() -> bool:
        return written.is_covered

    for size in sizes:
        await aegis.request(LARGE, size, resource="R1")
        await until(covered, "a checkpoint by age")
    await until_no(broker, "out.>")
    assert 0 < await entries(broker, "part.>") <= 6
    standby = await serve(aegis, R1=Role.STANDBY)
    await active.stop()
    await until_active(standby, "R1")
    values = host_of(standby).actors["R1"].journal.values
    assert {len(values[f"large-{size}"]) for size in sizes} == set(sizes)


@pytest.mark.parametrize(
    ("chunks", "changes"),
    [(4, 3_000), pytest.param(20, 100_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
async def test_a_standby_that_was_away_for_all_of_a_large_history_takes_over(
    server: EmbeddedNats, prefix: str, chunks: int, changes: int
) -> None:
    """G6: state of 2 MB (10 MB in the long form), then as many small changes as a day may bring."""
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as client,
    ):
        active = await serve(client, R1=Role.ACTIVE)
        for n in range(chunks):
            await client.request(LARGE, 500_000 + n, resource="R1")
        await in_flight(client, changes, 64)
        began = time.monotonic()
        standby = await serve(client, R1=Role.STANDBY)
        behind = host_of(standby).actors["R1"].journal

        async def caught_up() -> bool:
            return behind.last_request_seq == chunks + changes

        await until(caught_up, "the standby has it all", deadline_s=60.0)
        assert time.monotonic() - began < 20.0  # about a second for the long form
        await active.stop()
        await until_active(standby, "R1")
        assert await client.request(ADD, 1, resource="R1") == changes + 1
        assert len(behind.values) == chunks + 1


async def in_flight(client: Aegis, calls: int, at_once: int) -> None:
    left = iter(range(calls))

    async def one_after_the_other() -> None:
        for _ in left:
            await client.request(ADD, 1, resource="R1", timeout_s=30.0)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(one_after_the_other())


async def until_active(instance: Instance, resource: str) -> None:
    async def active() -> bool:
        return resource in instance.active_resources

    await until(active, f"{instance.id} is active for {resource}")
