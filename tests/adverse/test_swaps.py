"""A resource that goes to and fro between instances, faster than they can read of it, is served by the last one (G6, G8)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from aegis_sdk import HandlerFailed, Role, testing
from aegis_sdk.testing import Flow, MemoryAegis

from tests.adverse.support_doors import ADD, totals


@pytest.fixture
async def aegis() -> AsyncIterator[MemoryAegis]:
    async with testing.harness(totals()) as aegis:
        for name in ("one", "two"):
            await aegis.serve(totals(), resources={"T-1": Role.AUTO}, instance_id=name)
        assert await aegis.request(ADD, 1, resource="T-1") == 1
        yield aegis


async def add(aegis: MemoryAegis, amount: int = 1) -> int:
    return await aegis.request(ADD, amount, resource="T-1", timeout_s=3.0)


async def test_an_instance_that_misses_its_own_replacement_reads_by_the_newest_grant_alone(
    aegis: MemoryAegis,
) -> None:
    """It was replaced and is active again when it reads on."""
    one = aegis.instances[1]
    for n in range(2, 14):
        one.link.hold(Flow.ENTRIES)
        aegis.bus.control.grant("totals", "T-1", "two")
        aegis.bus.control.grant("totals", "T-1", "one")
        one.link.release(Flow.ENTRIES)
        assert await add(aegis) == n


@pytest.mark.parametrize("seed", range(12))
async def test_swaps_in_quick_succession_leave_the_resource_served(
    aegis: MemoryAegis, seed: int
) -> None:
    """By chance, requests are under way meanwhile; each that has a reply took effect once."""
    chance = random.Random(seed)
    asked: list[asyncio.Task[int]] = []
    for n in range(12):
        asked += [asyncio.create_task(add(aegis)) for _ in range(chance.randint(0, 4))]
        for _ in range(chance.randint(0, 30)):
            await asyncio.sleep(0)
        aegis.bus.control.grant("totals", "T-1", ("two", "one")[n % 2])
    replies = await asyncio.gather(*asked, return_exceptions=True)
    unserved = [r for r in replies if not isinstance(r, int | HandlerFailed)]
    assert unserved == []
    taken = [reply for reply in replies if isinstance(reply, int)]
    assert len(set(taken)) == len(taken)
    assert await add(aegis) == 2 + len(taken)
