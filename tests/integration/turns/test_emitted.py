"""Events are part of the outcome: stored once that is, by whoever owns the resource, in the order of its outcomes."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest
from aegis_sdk import Event, Method, ResourceContext, Service
from aegis_sdk.infrastructure.turns.assembly import TurnInstance

from tests.integration.turns.support import SERVICE, WAIT_S, Add, Owners, Sum, Told, World, give

TELL: Final = Method(SERVICE, "tell", request=Add, reply=Sum)
COUNTED: Final = Event(SERVICE, "counted", int)


def telling() -> Service:
    """`tell` emits `n` numbers, which go on where the last ones ended."""
    service = Service(SERVICE)

    @service.handles(TELL, pure=True)
    def tell(ctx: ResourceContext, request: Add) -> Sum:
        begun = ctx.state.get("told", int) or 0
        for n in range(request.n):
            ctx.emit(COUNTED, begun + n + 1)
        ctx.state.set("told", begun + request.n)
        return Sum(total=begun + request.n, count=0, epoch=ctx.epoch)

    return service


async def make_stream(world: World, **more: object) -> None:
    """As control makes it."""
    config = {
        "name": world.subjects.emitted_stream(SERVICE),
        "subjects": [world.subjects.emitted_all(SERVICE)],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "discard_new_per_subject": True,
        "allow_atomic": True,
        "allow_direct": True,
        "num_replicas": world.replicas,
        **more,
    }
    await (await world.link()).api(f"STREAM.CREATE.{config['name']}", config)


async def stored(world: World, count: int, resource: str = "*") -> list[int]:
    """What any NATS client reads by the subject, when there are `count`."""
    link = await world.link()
    js = link.client.jetstream()
    subject = f"{world.subjects.prefix}.evt.{SERVICE}.counted.{resource}.>"
    found = await js.subscribe(subject, ordered_consumer=True)
    numbers: list[int] = []
    async with asyncio.timeout(WAIT_S):
        while len(numbers) < count:
            numbers.append(int((await found.next_msg(timeout=WAIT_S)).data))
    return numbers


async def waiting(instance: TurnInstance, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while instance.hand_ins != count:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("count", [1, 300])
async def test_any_nats_client_reads_what_was_emitted_in_order(world: World, count: int) -> None:
    """Also where so much waits that it goes together."""
    await make_stream(world)
    await give(world, await world.instance("accounts-1", ["ACC-1"], telling()), ["ACC-1"])
    client, told = await world.client(), Told()
    for _ in range(3):
        await told.call_with(client, "ACC-1", "tell", b'{"n":%d}' % count)
    assert await stored(world, 3 * count, "ACC-1") == list(range(1, 3 * count + 1))


@pytest.mark.parametrize("holds", ["missing", "full"])
async def test_what_its_owner_could_not_store_the_next_one_does(
    small_world: World, holds: str
) -> None:
    """G1: the outcomes are there meanwhile, and nobody waits for the events."""
    world = small_world
    if holds == "full":
        await make_stream(world, max_msgs=1)
    first = await world.instance("accounts-1", ["ACC-1"], telling())
    second = await world.instance("accounts-2", ["ACC-1"], telling())
    await give(world, first, ["ACC-1"])
    client, told = await world.client(), Told()
    for _ in range(10):
        await told.call_with(client, "ACC-1", "tell", b'{"n":2}')
    left = 20 if holds == "missing" else 19
    await waiting(first, left)
    assert first.lacking == ([SERVICE] if holds == "missing" else [])
    await first.stop()
    await Owners(await world.link(), world.names).move({"ACC-1": second.writer})
    await waiting(second, left)
    if holds == "missing":
        await make_stream(world)
    else:
        link, name = await world.link(), world.subjects.emitted_stream(SERVICE)
        config = (await link.api(f"STREAM.INFO.{name}", {}))["config"]
        await link.api(f"STREAM.UPDATE.{name}", config | {"max_msgs": -1})
    assert await stored(world, 20) == list(range(1, 21))
    await waiting(second, 0)
