"""Subscriptions: each event has one effect at each subscriber, in its emitter's order for each resource."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aegis_sdk import (
    Context,
    ContractError,
    Event,
    InvalidArgument,
    Method,
    Rejected,
    ResourceContext,
    Resources,
    Service,
)
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.testing import Cluster, MemoryAegis, cluster, harness
from pydantic import BaseModel


class Fill(BaseModel):
    account: str
    quantity: int


BOOK = Method("accounts", "book", request=Fill, reply=int)
FILLED = Event("accounts", "filled", Fill)
HEARD = Method("pnl", "heard", request=str, reply=list[int])


def accounts() -> Service:
    service = Service("accounts")

    @service.handles(BOOK, pure=True)
    def book(ctx: ResourceContext, fill: Fill) -> int:
        ctx.emit(FILLED, fill)
        return fill.quantity

    return service


def pnl(
    name: str = "pnl",
    *,
    take: Callable[[Fill], None] = lambda fill: None,
    resource: Callable[[Fill], Any] = lambda fill: fill.account,
    **more: Any,
) -> Service:
    """Each account's state has the quantities, in the order in which they took effect."""
    service = Service(name)

    @service.on(FILLED, resource=resource, **more)
    async def on_filled(ctx: ResourceContext, fill: Fill) -> None:
        take(fill)
        ctx.state.set("heard", [*(ctx.state.get("heard", list[int]) or []), fill.quantity])

    @service.handles(Method(name, "heard", request=str, reply=list[int]), pure=True)
    def heard(ctx: ResourceContext, _: str) -> list[int]:
        return ctx.state.get("heard", list[int]) or []

    return service


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30.0):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.01)


async def taken(aegis: MemoryAegis, service: str, count: int) -> None:
    """Return when so many events have an outcome there."""
    log = aegis.bus.log(service)
    await until(lambda: sum(":" in r.request_id for r in log.records()) >= count)


async def book(aegis: MemoryAegis, *quantities: int, account: str = "A") -> None:
    for n in quantities:
        await aegis.request(
            BOOK, Fill(account=account, quantity=n), resource=account, timeout_s=60.0
        )


async def test_each_event_has_one_effect_in_the_emitters_order() -> None:
    async with harness(accounts(), resources={"A"}) as aegis:
        await aegis.serve(pnl(), resources={"A"})
        await book(aegis, *range(50))
        await taken(aegis, "pnl", 50)
        assert [fill.quantity for fill in aegis.bus.emitted(FILLED)] == list(range(50))
        assert await aegis.request(HEARD, "", resource="A") == list(range(50))


async def test_a_new_subscription_begins_now_or_where_it_says() -> None:
    async with harness(accounts(), resources={"A"}) as aegis:
        await book(aegis, 1, 2)
        await asyncio.sleep(0.01)
        then = datetime.now(UTC)
        await book(aegis, 3)
        await asyncio.sleep(0.01)
        for name, begin in (("now", None), ("all", "all"), ("at", then), ("third", 3)):
            await aegis.serve(pnl(name, begin=begin), resources={"A"})
        await book(aegis, 4)
        for name, heard in (("now", [4]), ("all", [1, 2, 3, 4]), ("at", [3, 4]), ("third", [3, 4])):
            await taken(aegis, name, len(heard))
            method = Method(name, "heard", request=str, reply=list[int])
            assert await aegis.request(method, "", resource="A") == heard


async def test_it_goes_on_where_it_was_whatever_begin_says_then() -> None:
    """Also with what was emitted while nobody was there."""
    async with harness(accounts(), resources={"A"}) as aegis:
        first = await aegis.serve(pnl(), resources={"A"})
        await book(aegis, 1)
        await taken(aegis, "pnl", 1)
        await first.drain()
        await book(aegis, 2)
        await aegis.serve(pnl(begin="all"), resources={"A"})
        await taken(aegis, "pnl", 2)
        assert await aegis.request(HEARD, "", resource="A") == [1, 2]


async def test_the_group_takes_each_once() -> None:
    heard: list[int] = []
    service = Service("archive")

    @service.on(FILLED)
    async def on_filled(ctx: Context, fill: Fill) -> None:
        heard.append(fill.quantity)

    async with harness(accounts(), resources={"A"}) as aegis:
        await aegis.serve(service)
        await aegis.serve(service)
        await book(aegis, *range(30))
        await until(lambda: len(heard) >= 30)
        assert sorted(heard) == list(range(30))


def refusing(fill: Fill) -> None:
    if fill.quantity == 2:
        raise Rejected("no", "not this one")
    if fill.quantity == 3:
        raise RuntimeError("broken")


async def test_what_is_refused_for_good_is_a_dead_letter_and_holds_nobody_up() -> None:
    async with harness(accounts(), resources={"A"}) as aegis:
        await aegis.serve(pnl(take=refusing), resources={"A"})
        await book(aegis, 1, 2, 3, 4)
        await taken(aegis, "pnl", 4)
        assert await aegis.request(HEARD, "", resource="A") == [1, 4]
        letters = aegis.bus.dead_letters.values()
        assert [outcome.kind for _, outcome in letters] == [
            OutcomeKind.REJECTED,
            OutcomeKind.FAILED,
        ]
        assert {request.resource for request, _ in letters} == {"A"}


async def test_an_event_asks_for_a_resource_that_comes_on_demand() -> None:
    async with harness(accounts(), resources={"A", "B"}) as aegis:
        await aegis.serve(pnl(), resources=Resources("*"))
        for account in "AB":
            await book(aegis, 1, 2, account=account)
        await taken(aegis, "pnl", 4)
        for account in "AB":
            assert await aegis.request(HEARD, "", resource=account) == [1, 2]


class Strict(BaseModel):
    account: str
    quantity: int
    currency: str


@pytest.mark.parametrize(
    ("resource", "why"),
    [
        (lambda fill: fill.owner, "raised"),
        (lambda fill: None, "gave None"),
        (lambda fill: fill.quantity, "gave 1"),
        (lambda fill: "", "is empty"),
    ],
)
async def test_what_has_no_resource_is_a_dead_letter_that_says_why(
    resource: Callable[[Fill], Any], why: str
) -> None:
    async with harness(accounts(), resources={"A"}) as aegis:
        await aegis.serve(pnl(resource=resource), resources={"A"})
        await book(aegis, 1)
        await until(lambda: bool(aegis.bus.dead_letters))
        ((request, outcome),) = aegis.bus.dead_letters.values()
    assert (request.service, request.method) == ("pnl", "on-accounts-filled")
    assert why in outcome.body.decode()


async def test_a_payload_that_cannot_be_read_is_a_dead_letter_and_is_routed_when_it_is_sent_again() -> (
    None
):
    narrow = Event("accounts", "filled", Strict)
    service = Service("pnl")

    @service.on(narrow, resource=lambda fill: fill.account)
    async def on_filled(ctx: ResourceContext, fill: Strict) -> None: ...

    async with harness(accounts(), resources={"A"}) as aegis:
        old = await aegis.serve(service, resources={"A"})
        await book(aegis, 1)
        await until(lambda: bool(aegis.bus.dead_letters))
        ((request, outcome),) = aegis.bus.dead_letters.values()
        assert "currency" in outcome.body.decode()
        await old.drain()
        await aegis.serve(pnl(), resources={"A"})
        request.request_id += "+1"  # as `ipc-cli dlq redrive` does
        request.attempt = 2
        await aegis.link.requests.append(request, timeout_s=1.0)
        await until(lambda: bool(aegis.bus.outcomes("pnl")))
        assert await aegis.request(HEARD, "", resource="A") == [1]


async def relayed_through_trouble(system: Cluster, seed: int) -> None:
    """Two instances of each; each emitter and each relay dies once, and comes back."""
    chance = random.Random(seed)
    services = {"accounts": accounts, "pnl": pnl}
    names = [(service, f"{service}-{n}") for service in services for n in (1, 2)]
    for service, name in names:
        await system.serve(services[service](), resources={"A", "B"}, instance_id=name)
    killed = {chance.randrange(40): name for _, name in names}
    for n in range(40):
        if n in killed:
            name = killed[n]
            await system.kill(name)
            service = name.partition("-")[0]
            await system.serve(
                services[service](), resources={"A", "B"}, instance_id=f"{name}-again"
            )
        await book(system.aegis, n, account=chance.choice("AB"))


@pytest.mark.parametrize("seed", range(25))
async def test_each_once_and_in_order_whatever_is_lost_and_whoever_dies(seed: int) -> None:
    """Of both resources, at the same time."""
    async with cluster(seed=seed) as system:
        system.faults.lost = system.faults.lost_answers = 0.05
        system.faults.delay_s_max = 0.02
        await relayed_through_trouble(system, seed)
        log = system.bus.log("pnl")
        await until(lambda: sum(":" in r.request_id for r in log.records()) >= 40)
        emitted = {
            account: [
                Fill.model_validate_json(e.emitted.payload).quantity
                for e in system.bus.events("accounts").all()
                if e.emitted.resource == account
            ]
            for account in "AB"
        }
        for account in "AB":
            heard = await system.aegis.request(HEARD, "", resource=account, timeout_s=60.0)
            assert heard == emitted[account] == sorted(heard)
        system.assert_exactly_once()


def test_wrong_use_is_refused_where_it_is_written() -> None:
    service = pnl()
    with pytest.raises(ContractError, match=r"Event\(accounts.filled\) has a handler already"):
        service.on(FILLED)
    other = Event("accounts", "netted", int)
    with pytest.raises(ContractError, match="say which resource"):

        @service.on(other)
        async def targeted(ctx: ResourceContext, n: int) -> None: ...

    with pytest.raises(ContractError, match="annotate its first parameter as ResourceContext"):

        @service.on(other, resource=str)
        async def grouped(ctx: Context, n: int) -> None: ...

    with pytest.raises(ContractError, match="characters together"):
        service.on(Event("a" * 40, "b" * 40, int))
    naive = datetime(2026, 1, 1)
    for begin in ("today", 0, -1, 1.5, True, naive):
        with pytest.raises(InvalidArgument, match="begin"):
            service.on(other, begin=begin)  # type: ignore[arg-type]
