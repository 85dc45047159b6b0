"""A standby that was away for all of a large history has everything when it takes over."""

from __future__ import annotations

import asyncio
import time

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Aegis, Method, ResourceContext, Role, Service

from tests.integration.control.support import control, until

ADD = Method("ledger", "add", request=int, reply=int)
LARGE = Method("ledger", "large", request=int, reply=int)
IN_FLIGHT = 64


def ledger() -> Service:
    service = Service("ledger")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, n: int) -> int:
        total = (ctx.state.get("total", int) or 0) + n
        ctx.state.set("total", total)
        return total

    @service.handles(LARGE)
    async def large(ctx: ResourceContext, size: int) -> int:
        ctx.state.set(f"large-{size}", "x" * size)
        return len(ctx.state.keys())

    return service


@pytest.mark.parametrize(
    ("chunks", "changes"),
    [(4, 1_000), pytest.param(20, 100_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
async def test_a_standby_that_was_away_for_all_of_a_large_history_takes_over(
    server: EmbeddedNats, prefix: str, chunks: int, changes: int
) -> None:
    """G6: state of 2 MB (10 MB in the long form), then as many small changes as a day may bring."""
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as client,
        aegis_sdk.connect(server.url, prefix=prefix) as other,
    ):
        active = await client.serve(ledger(), resources={"R1": Role.ACTIVE})
        for n in range(chunks):
            await client.request(LARGE, 500_000 + n, resource="R1")
        await in_flight(client, changes)
        began = time.monotonic()
        standby = await other.serve(ledger(), resources={"R1": Role.STANDBY}, wait_s=60.0)
        await active.drain()

        async def is_active() -> bool:
            return "R1" in standby.active_resources

        await until(is_active, "the standby is active", deadline_s=60.0)
        assert time.monotonic() - began < 30.0
        assert await client.request(ADD, 1, resource="R1") == changes + 1
        assert await client.request(LARGE, 500_000, resource="R1") == chunks + 1


async def in_flight(client: Aegis, calls: int) -> None:
    left = iter(range(calls))

    async def one_after_the_other() -> None:
        for _ in left:
            await client.request(ADD, 1, resource="R1", timeout_s=30.0)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(one_after_the_other())
