"""An instance that starts reads checkpoints, and the log behind them (G6)."""

from __future__ import annotations

import asyncio
from typing import Final

from aegis_sdk import Method, ResourceContext, Service
from aegis_sdk.infrastructure.turns.assembly import TurnInstance
from aegis_sdk.infrastructure.turns.start import newest_checkpoints

from tests.integration.turns.support import ADD, SERVICE, Add, Owners, Sum, World, adder, give


async def test_a_start_needs_nothing_of_the_log_behind_its_checkpoints(world: World) -> None:
    """The turns that a checkpoint covers are removed: the next owner goes on from there, duplicates included."""
    instance = await world.instance("accounts-1", ["A"])
    await give(world, instance, ["A"])
    client = await world.client()
    for n in range(1, 6):
        assert (await client.request(ADD, Add(n=1), resource="A", timeout_s=5.0)).total == n
    link = await world.link()
    await saved(instance, "A")
    found = (await newest_checkpoints(link, world.names, ["A"]))["A"]
    assert isinstance(found, tuple)
    assert found[0].number == 5
    turns = world.names.all.replace(">", "turn.>")
    await link.api(f"STREAM.PURGE.{world.names.stream}", {"filter": turns})
    second = await world.instance("accounts-2", ["A"], adder())
    await give(world, second, ["A"])
    assert (await client.request(ADD, Add(n=1), resource="A", timeout_s=5.0)).total == 6


async def saved(instance: TurnInstance, resource: str) -> None:
    """Return when its newest checkpoint has all of it."""
    while not instance.host.writer.pause(resource) or not instance.host.writer.is_saved(resource):
        instance.host._soon()
        await asyncio.sleep(0.01)
    instance.host.writer.resume(resource)


async def test_a_checkpoint_that_cannot_be_read_keeps_its_resource_from_this_version_alone(
    small_world: World,
) -> None:
    """G6: what the log still has behind it is not all there is. What else the instance follows it serves."""
    world = small_world
    link = await world.link()
    await link.store(world.names.checkpoint("B"), b"9 from the future", {}, timeout_s=5.0)
    instance = TurnInstance(
        link, world.subjects, adder(), instance_id="accounts-1", resources=["A", "B"]
    )
    world.stack.push_async_callback(instance.stop)
    told: list[str] = []
    instance.on_unreadable = told.append
    await instance.start()
    await Owners(link, world.names).move({"A": instance.writer, "B": instance.writer})
    async with asyncio.timeout(10):
        await instance.host.until(lambda: "A" in instance.host.serving)
    assert told == ["B"]
    assert instance.active_resources == ["A"]


GROW: Final = Method(SERVICE, "grow", request=Add, reply=Sum)


def grower() -> Service:
    service = Service(SERVICE)

    @service.handles(GROW)
    async def grow(ctx: ResourceContext, request: Add) -> Sum:
        ctx.state.set(f"key {request.n}", "x" * 500_000)
        return Sum(total=0, count=len(ctx.state.keys()), epoch=ctx.epoch)

    return service


async def test_a_state_that_is_larger_than_a_message_is_saved_in_parts(world: World) -> None:
    """Its next owner reads them, and parts that a newer checkpoint replaced are gone."""
    instance = await world.instance("accounts-1", ["A"], grower())
    await give(world, instance, ["A"])
    client, link = await world.client(), await world.link()
    for n in range(1, 5):
        reply = await client.request(GROW, Add(n=n), resource="A", timeout_s=5.0)
        assert reply.count == n
        await saved(instance, "A")
    stream = f"STREAM.INFO.{world.names.stream}"
    async with asyncio.timeout(10.0):
        while True:  # the older ones go in a moment
            info = await link.api(stream, {"subjects_filter": world.names.parts("A")})
            if len(info["state"].get("subjects") or {}) == 3:
                break
    turns = world.names.all.replace(">", "turn.>")
    await link.api(f"STREAM.PURGE.{world.names.stream}", {"filter": turns})
    second = await world.instance("accounts-2", ["A"], grower())
    await give(world, second, ["A"])
    assert (await client.request(GROW, Add(n=5), resource="A", timeout_s=5.0)).count == 5
