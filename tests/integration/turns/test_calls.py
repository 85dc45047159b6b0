"""A call, on real servers: sent, run, stored as part of a turn, answered."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk import Method

from tests.integration.turns.support import ADD, ADD_SLOWLY, Add, Sum, World, give

RESOURCES = [f"ACC-{n}" for n in range(8)]


@pytest.mark.parametrize("method", [ADD, ADD_SLOWLY], ids=["pure", "waits"])
async def test_calls_have_one_effect_each_in_the_order_they_came(
    world: World, method: Method[Add, Sum]
) -> None:
    """G1, G2, G3, G7: many callers at once, and each sees the sum that follows from those before it."""
    instance = await world.instance("accounts-1", RESOURCES)
    await give(world, instance, RESOURCES)
    client = await world.client()

    async def call(n: int) -> int:
        reply = await client.request(method, Add(n=1), resource=RESOURCES[n % 8], timeout_s=5.0)
        return reply.total

    totals = await asyncio.gather(*(call(n) for n in range(400)))
    for k in range(8):
        assert totals[k::8] == list(range(1, 51))


async def test_one_call_is_answered_by_the_log_itself(small_world: World) -> None:
    """A turn of one outcome is republished: its writer sends nothing."""
    instance = await small_world.instance("accounts-1", ["A"])
    await give(small_world, instance, ["A"])
    client = await small_world.client()
    answered: list[str] = []
    instance.host._sent.answer = lambda request_id, outcome: answered.append(request_id)  # type: ignore[method-assign]
    reply = await client.request(ADD, Add(n=5), resource="A", timeout_s=5.0)
    assert (reply.total, reply.epoch, answered) == (5, 1, [])
