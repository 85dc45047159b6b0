"""What a handler hands in is part of its outcome: sent once that is stored, by whoever owns the resource, and never without it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest
from aegis_sdk import Context, Method, Rejected, ResourceContext, Service
from aegis_sdk.contract.dead_letter import ERROR_CODE
from aegis_sdk.contract.envelope import METHOD, OutcomeKind
from aegis_sdk.infrastructure.messages import message_at
from aegis_sdk.infrastructure.turns.assembly import TurnInstance

from tests.integration.turns.support import (
    ADD,
    GREET,
    SERVICE,
    WAIT_S,
    Add,
    Owners,
    Sum,
    Told,
    World,
    add,
    give,
)

PASS_ON: Final = Method(SERVICE, "pass_on", request=Add, reply=Sum)
BILL: Final = Method("billing", "bill", request=Add, reply=Sum)


def passing_on(*, ends: str = "well") -> Service:
    """`pass_on` hands in an `add` to its own resource and a bill to another service."""
    service = Service(SERVICE)
    service.handles(ADD, pure=True)(add)

    @service.handles(PASS_ON)
    async def pass_on(ctx: ResourceContext, request: Add) -> Sum:
        for n in range(request.n):
            await ctx.submit(ADD, Add(n=10**n), resource=ctx.resource)
        await ctx.submit(BILL, request, resource="CUSTOMER")
        if ends == "raises":
            raise RuntimeError("no")
        if ends == "rejects":
            raise Rejected("no", "not today")
        if ends == "is late":
            await asyncio.sleep(WAIT_S)
        return Sum(total=request.n, count=0, epoch=ctx.epoch)

    @service.handles(GREET)
    async def greet(ctx: Context, request: Add) -> Sum:
        await ctx.submit(BILL, request, resource="CUSTOMER")
        return Sum(total=request.n, count=0, epoch=0)

    return service


async def make_stream(world: World, name: str, subject: str) -> None:
    link = await world.link()
    await link.api(
        f"STREAM.CREATE.{name}", {"name": name, "subjects": [subject], "storage": "memory"}
    )


async def make_billing(world: World) -> None:
    await make_stream(
        world, world.subjects.request_stream("billing"), world.subjects.requests("billing")
    )


async def stored(world: World, stream: str, count: int) -> list[dict[str, Any]]:
    """The headers of what is in the stream, when it has `count` messages."""
    link = await world.link()
    async with asyncio.timeout(WAIT_S):
        while True:
            info = await link.api(f"STREAM.INFO.{stream}", {})
            if info["state"]["messages"] >= count:
                break
            await asyncio.sleep(0.01)
    last = info["state"]["last_seq"]
    return [dict((await message_at(link, stream, seq)).headers) for seq in range(1, last + 1)]


async def total(world: World, resource: str, wanted: int) -> None:
    """Return when the state says so."""
    client, told = await world.client(), Told()
    async with asyncio.timeout(WAIT_S):
        while True:
            outcome = await told.call(client, resource, "add")
            assert outcome is not None
            found = Sum.model_validate_json(outcome.body)
            if found.total - found.count >= wanted:
                return


async def test_what_is_handed_in_is_sent_when_its_outcome_is_stored(world: World) -> None:
    """G1: to another service, and to the resource itself, which is free by then."""
    await make_billing(world)
    await give(world, await world.instance("accounts-1", ["ACC-1"], passing_on()), ["ACC-1"])
    client, told = await world.client(), Told()
    outcome = await told.call_with(client, "ACC-1", "pass_on", b'{"n":3}')
    assert outcome.kind is OutcomeKind.EXECUTED
    (bill,) = await stored(world, world.subjects.request_stream("billing"), 1)
    assert bill[METHOD] == "bill"
    await total(world, "ACC-1", 111 - 3)


@pytest.mark.parametrize("ends", ["raises", "rejects", "is late"])
async def test_a_handler_that_has_no_effect_has_sent_nothing(small_world: World, ends: str) -> None:
    """G2: what it handed in is as void as what it did to its state."""
    world = small_world
    await make_billing(world)
    service = passing_on(ends=ends)
    await give(world, await world.instance("accounts-1", ["ACC-1"], service), ["ACC-1"])
    client, told = await world.client(), Told()
    outcome = await told.call_with(client, "ACC-1", "pass_on", b'{"n":1}', timeout_s=0.5)
    assert outcome.kind is not OutcomeKind.EXECUTED
    last = await told.call(client, "ACC-1")  # behind all that it could have sent to itself
    assert last is not None
    assert Sum.model_validate_json(last.body).count == 1
    assert await stored(world, world.subjects.request_stream("billing"), 0) == []


async def test_a_group_request_hands_in_too(small_world: World) -> None:
    world = small_world
    await make_billing(world)
    await world.instance("accounts-1", [], passing_on())
    client, told = await world.client(members=["accounts-1"]), Told()
    outcome = await told.call(client, None, "greet")
    assert outcome is not None
    assert outcome.kind is OutcomeKind.EXECUTED
    assert len(await stored(world, world.subjects.request_stream("billing"), 1)) == 1


async def test_what_is_handed_in_to_a_service_that_comes_later_waits_for_it(
    small_world: World,
) -> None:
    """G1: the handler does not fail by it; and the next owner sends what this one could not."""
    world = small_world
    first = await world.instance("accounts-1", ["ACC-1"], passing_on())
    second = await world.instance("accounts-2", ["ACC-1"], passing_on())
    await give(world, first, ["ACC-1"])
    client, told = await world.client(), Told()
    outcome = await told.call_with(client, "ACC-1", "pass_on", b'{"n":0}')
    assert outcome.kind is OutcomeKind.EXECUTED
    await waiting(first, 1)
    assert second.hand_ins == 0
    await first.stop()
    await Owners(await world.link(), world.names).move({"ACC-1": second.writer})
    await make_billing(world)
    assert len(await stored(world, world.subjects.request_stream("billing"), 1)) == 1
    await waiting(second, 0)


async def waiting(instance: TurnInstance, count: int) -> None:
    """Return when so much that was handed in waits there."""
    async with asyncio.timeout(WAIT_S):
        while instance.hand_ins != count:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


async def test_what_nobody_ever_takes_becomes_a_dead_letter(small_world: World) -> None:
    """It waits for a time that an operator notices; then it is kept where operators look."""
    world = small_world
    await make_stream(world, world.subjects.dlq_stream, world.subjects.dead_letters)
    instance = await world.instance("accounts-1", ["ACC-1"], passing_on(), unsent_s=0.1)
    await give(world, instance, ["ACC-1"])
    client, told = await world.client(), Told()
    outcome = await told.call_with(client, "ACC-1", "pass_on", b'{"n":0}')
    assert outcome.kind is OutcomeKind.EXECUTED
    (letter,) = await stored(world, world.subjects.dlq_stream, 1)
    assert letter[ERROR_CODE] == "not_sent"
    assert instance.host.hand_ins == 0
