"""An instance that starts reads checkpoints, and the log behind them (G6)."""

from __future__ import annotations

import asyncio

from aegis_sdk.infrastructure.turns.start import newest_checkpoints

from tests.integration.turns.support import ADD, Add, World, adder, give


async def test_a_start_needs_nothing_of_the_log_behind_its_checkpoints(world: World) -> None:
    """The turns that a checkpoint covers are removed: the next owner goes on from there, duplicates included."""
    instance = await world.instance("accounts-1", ["A"])
    await give(world, instance, ["A"])
    client = await world.client()
    for n in range(1, 6):
        assert (await client.request(ADD, Add(n=1), resource="A", timeout_s=5.0)).total == n
    link = await world.link()
    while not instance.host.writer.pause("A") or not instance.host.writer.is_saved("A"):
        instance.host._soon()
        await asyncio.sleep(0.01)
    checkpoint, _ = (await newest_checkpoints(link, world.names, ["A"]))["A"]
    assert checkpoint.number == 5
    turns = world.names.all.replace(">", "turn.>")
    await link.api(f"STREAM.PURGE.{world.names.stream}", {"filter": turns})
    second = await world.instance("accounts-2", ["A"], adder())
    await give(world, second, ["A"])
    assert (await client.request(ADD, Add(n=1), resource="A", timeout_s=5.0)).total == 6
