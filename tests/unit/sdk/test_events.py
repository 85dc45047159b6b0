"""Events: part of the outcome, each stored once, in the order of their resource's outcomes."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk import (
    Context,
    ContractError,
    Event,
    HandlerFailed,
    InvalidName,
    Method,
    Rejected,
    ResourceContext,
    Service,
)
from aegis_sdk.testing import Fault, MemoryAegis, Op, cluster, harness
from pydantic import BaseModel


class Fill(BaseModel):
    account: str
    quantity: int


BOOK = Method("accounts", "book", request=Fill, reply=int)
QUOTE = Method("accounts", "quote", request=Fill, reply=int)
FILLED = Event("accounts", "filled", Fill)
NETTED = Event("accounts", "netted", int)


def accounts(*, pure: bool = False, ends: str = "well") -> Service:
    service = Service("accounts", emits=[FILLED])

    def told(ctx: Context, fill: Fill) -> int:
        ctx.emit(FILLED, fill)
        ctx.emit(NETTED, fill.quantity)
        if ends == "rejects":
            raise Rejected("no", "not today")
        if ends == "raises":
            raise RuntimeError("no")
        return fill.quantity

    if pure:

        @service.handles(BOOK, pure=True)
        def book(ctx: ResourceContext, fill: Fill) -> int:
            return told(ctx, fill)

    else:

        @service.handles(BOOK)
        async def book_slowly(ctx: ResourceContext, fill: Fill) -> int:
            return told(ctx, fill)

    @service.handles(QUOTE)
    async def quote(ctx: Context, fill: Fill) -> int:
        return told(ctx, fill)

    return service


def fills(count: int) -> list[Fill]:
    return [Fill(account="ACC-1", quantity=n) for n in range(1, count + 1)]


async def stored(aegis: MemoryAegis, count: int) -> list[tuple[str, bytes, str | None]]:
    """What the stream has, when it has `count` events, and nothing more comes."""
    stream = aegis.bus.events("accounts")
    async with asyncio.timeout(5.0):
        while stream.last_seq < count:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    return [(e.emitted.event, e.emitted.payload, e.emitted.resource) for e in stream.all()]


@pytest.mark.parametrize("pure", [True, False])
async def test_events_are_stored_in_the_order_of_the_outcomes(pure: bool) -> None:
    async with harness(accounts(pure=pure), resources={"ACC-1"}) as aegis:
        for fill in fills(20):
            await aegis.request(BOOK, fill, resource="ACC-1")
        found = await stored(aegis, 40)
    assert [payload for event, payload, _ in found if event == "netted"] == [
        b"%d" % n for n in range(1, 21)
    ]
    assert [event for event, _, _ in found] == ["filled", "netted"] * 20
    assert {resource for _, _, resource in found} == {"ACC-1"}


@pytest.mark.parametrize("ends", ["rejects", "raises"])
async def test_a_handler_without_an_effect_has_emitted_nothing(ends: str) -> None:
    async with harness(accounts(ends=ends), resources={"ACC-1"}) as aegis:
        with pytest.raises((Rejected, HandlerFailed)):
            await aegis.request(BOOK, fills(1)[0], resource="ACC-1")
        assert await stored(aegis, 0) == []


async def test_the_group_emits_too_without_a_resource() -> None:
    async with harness(accounts(), resources={"ACC-1"}) as aegis:
        assert await aegis.request(QUOTE, fills(1)[0]) == 1
        assert await stored(aegis, 2) == [
            ("filled", b'{"account":"ACC-1","quantity":1}', None),
            ("netted", b"1", None),
        ]


async def test_a_store_whose_answer_is_lost_is_tried_again_and_stays_one() -> None:
    async with harness(accounts(), resources={"ACC-1"}) as aegis:
        aegis.bus.faults.once(Op.EMIT, Fault.LOST_ANSWER, times=2)
        aegis.bus.faults.once(Op.EMIT, Fault.LOST, times=2)
        for fill in fills(5):
            await aegis.request(BOOK, fill, resource="ACC-1")
        found = await stored(aegis, 10)
    assert [event for event, _, _ in found] == ["filled", "netted"] * 5


@pytest.mark.parametrize("seed", range(20))
async def test_the_next_owner_stores_what_the_last_one_could_not(seed: int) -> None:
    """Each once and in order, whatever is lost on the way, and whoever dies."""
    async with cluster(seed=seed) as system:
        system.faults.lost = system.faults.lost_answers = 0.1
        system.faults.delay_s_max = 0.02
        for name in ("one", "two"):
            await system.serve(accounts(pure=seed % 2 == 0), resources={"ACC-1"}, instance_id=name)
        for fill in fills(30):
            await system.aegis.request(BOOK, fill, resource="ACC-1", timeout_s=60.0)
            if fill.quantity == 15:
                await system.kill("one")
        found = await stored(system.aegis, 60)
        system.assert_exactly_once()
    assert [payload for event, payload, _ in found if event == "netted"] == [
        b"%d" % n for n in range(1, 31)
    ]


async def test_wrong_use_is_refused_where_it_is_written() -> None:
    other = Event("risk", "breached", int)
    with pytest.raises(InvalidName, match="lower-case letter"):
        Event("accounts", "Filled", Fill)
    with pytest.raises(ContractError, match="not an event of service accounts"):
        Service("accounts", emits=[other])
    with pytest.raises(ContractError, match="twice"):
        Service("accounts", emits=[FILLED, FILLED])
    service = Service("accounts")
    refused: list[str] = []

    @service.handles(BOOK)
    async def book(ctx: ResourceContext, fill: Fill) -> int:
        for event, payload in ((other, 1), (FILLED, {"account": 1})):
            try:
                ctx.emit(event, payload)  # type: ignore[misc]
            except ContractError as error:
                refused.append(str(error))
        return 1

    async with harness(service, resources={"ACC-1"}) as aegis:
        await aegis.request(BOOK, fills(1)[0], resource="ACC-1")
        assert await stored(aegis, 0) == []
    assert "a service emits its own events" in refused[0]
    assert "payload of accounts.filled" in refused[1]
