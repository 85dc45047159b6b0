"""A handler that runs again makes the same calls as before, in whatever order: each gets its own reply, and none
has a second effect (G3).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aegis_sdk import (
    CallChanged,
    Context,
    HandlerFailed,
    Method,
    NoRoute,
    Rejected,
    ResourceContext,
    Retries,
    Service,
    testing,
)
from aegis_sdk.application.calls import Calls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PRICE = Method("pricing", "price", request=str, reply=int)
BOOK = Method("ledger", "book", request=int, reply=int)
RUN = Method("desk", "run", request=str, reply=dict[str, int])
MOVE = Method("desk", "move", request=int, reply=int)
PRICES = {"AAPL": 190, "MSFT": 420, "IBM": 250}


class World:
    """Two services that are asked, and what they did."""

    def __init__(self) -> None:
        self.priced: Counter[str] = Counter()
        self.booked: Counter[str] = Counter()
        self.fail_next = 0
        self.desk = Service("desk")
        self.pricing = Service("pricing")
        self.ledger = Service("ledger")

        @self.pricing.handles(PRICE)
        async def price(ctx: Context, symbol: str) -> int:
            self.priced[symbol] += 1
            return PRICES[symbol]

        @self.ledger.handles(BOOK)
        async def book(ctx: ResourceContext, n: int) -> int:
            if self.fail_next:
                self.fail_next -= 1
                raise OSError("the disk is full")
            total: int = (ctx.state.get("total", int) or 0) + n
            ctx.state.set("total", total)
            self.booked[ctx.resource] += n
            return total

    async def serve(self, aegis: testing.MemoryAegis) -> None:
        await aegis.serve(self.pricing)
        await aegis.serve(self.ledger, resources={"A", "B", "C"})
        await aegis.serve(self.desk, resources={"D"})


@pytest.fixture
async def aegis() -> AsyncIterator[testing.MemoryAegis]:
    async with testing.harness() as made:
        yield made


@given(st.lists(st.permutations(["AAPL", "MSFT", "IBM"]), min_size=2, max_size=4), st.booleans())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_gathered_calls_get_their_own_replies_in_whatever_order_they_are_made(
    orders: list[list[str]], grouped: bool
) -> None:
    """G3: `asyncio.gather` and `TaskGroup` in a handler that is retried."""

    async def attack() -> None:
        world, runs = World(), iter(orders)

        @world.desk.handles(RUN, retries=Retries(len(orders), wait_s=0.0))
        async def run(ctx: ResourceContext, _: str) -> dict[str, int]:
            order, turns = next(runs), [asyncio.Event() for _ in range(4)]
            turns[0].set()

            async def ask(symbol: str) -> int:
                turn = order.index(symbol)
                await turns[turn].wait()
                asked = asyncio.ensure_future(ctx.request(PRICE, symbol))
                await asyncio.sleep(0)
                turns[turn + 1].set()
                return await asked

            if grouped:
                async with asyncio.TaskGroup() as group:
                    tasks = {symbol: group.create_task(ask(symbol)) for symbol in PRICES}
                found = {symbol: task.result() for symbol, task in tasks.items()}
            else:
                prices = await asyncio.gather(*map(ask, PRICES))
                found = dict(zip(PRICES, prices, strict=True))
            if ctx.attempt < len(orders):
                raise OSError("again")
            return found

        async with testing.harness() as aegis:
            await world.serve(aegis)
            assert await aegis.request(RUN, "", resource="D") == PRICES
        assert world.priced == dict.fromkeys(PRICES, 1)

    asyncio.run(attack())


async def test_a_transfer_is_booked_once_when_its_handler_is_killed_and_runs_in_another_order(
    aegis: testing.MemoryAegis,
) -> None:
    """G3: also minutes later, when the stream's own window for duplicates has passed."""
    world, booked = World(), asyncio.Event()
    orders = iter([("A", "B"), ("B", "A")])

    @world.desk.handles(MOVE)
    async def move(ctx: ResourceContext, n: int) -> int:
        amounts = {"A": -n, "B": n}
        for resource in next(orders):
            await ctx.request(BOOK, amounts[resource], resource=resource)
        if ctx.attempt == 1:
            booked.set()
            await asyncio.Event().wait()
        return n

    await world.serve(aegis)
    asked = asyncio.create_task(aegis.request(MOVE, 100, resource="D", timeout_s=20.0))
    await booked.wait()
    second = await aegis.serve(world.desk, resources={"D"})
    await aegis.instances[2].kill()
    aegis.bus.requests("ledger").forget_ids()
    assert await asked == 100
    assert second.active_resources == ["D"]
    assert world.booked == {"A": -100, "B": 100}


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_call_that_is_another_one_in_the_next_run_is_refused(
    aegis: testing.MemoryAegis,
    killed: bool,
    elsewhere: bool,
) -> None:
    """G3: a clock or chance in what a handler asks would book twice. The caller learns why."""
    world, booked, clock = World(), asyncio.Event(), itertools.count(1)
    seen: list[Exception] = []

    @world.desk.handles(MOVE, retries=Retries(1 if killed else 2, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        now = next(clock)
        try:
            if elsewhere:
                await ctx.request(BOOK, n, resource="AB"[now % 2])
            else:
                await ctx.request(BOOK, n + now, resource="A")
        except CallChanged as error:
            seen.append(error)
            raise
        if ctx.attempt == 1:
            booked.set()
            if killed:
                await asyncio.Event().wait()
            raise OSError("again")
        return n

    await world.serve(aegis)
    asked = asyncio.create_task(aegis.request(MOVE, 100, resource="D", timeout_s=2.0))
    if killed:
        await booked.wait()
        await aegis.serve(world.desk, resources={"D"})
        await aegis.instances[2].kill()
    with pytest.raises(HandlerFailed, match=r"CallChanged: ledger\.book on '.'.*clock"):
        await asked
    assert sum(world.booked.values()) in (100, 101)
    assert len(seen) == 1


async def test_a_call_waits_for_what_its_siblings_asked_before(aegis: testing.MemoryAegis) -> None:
    """G3, G8: the first run died between two calls; the next one makes the missing one first."""
    world, booked = World(), asyncio.Event()
    order: list[str] = []

    @world.desk.handles(MOVE)
    async def move(ctx: ResourceContext, n: int) -> int:
        async def ask(resource: str, *, wait: bool) -> None:
            if wait:
                if ctx.attempt == 1:
                    await asyncio.Event().wait()
                await asyncio.sleep(0.02)
            await ctx.request(BOOK, n, resource=resource)
            order.append(resource)
            booked.set()

        first = ctx.attempt == 1
        await asyncio.gather(ask("A", wait=not first), ask("B", wait=first))
        return n

    async def run() -> None:
        await world.serve(aegis)
        asked = asyncio.create_task(aegis.request(MOVE, 7, resource="D", timeout_s=20.0))
        await booked.wait()
        await aegis.serve(world.desk, resources={"D"})
        await aegis.instances[2].kill()
        assert await asked == 7

    async with asyncio.timeout(10.0):
        await run()
    assert order == ["A", "A", "B"]
    assert world.booked == {"A": 7, "B": 7}


async def test_equal_calls_are_counted(aegis: testing.MemoryAegis) -> None:
    """G3: two that ask just the same are two, in each run the same two."""
    world = World()

    @world.desk.handles(MOVE, retries=Retries(3, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        for _ in range(3):
            last = await ctx.request(BOOK, n, resource="A")
        if ctx.attempt < 3:
            raise OSError("again")
        return last

    await world.serve(aegis)
    assert await aegis.request(MOVE, 5, resource="D") == 15
    assert world.booked == {"A": 15}


async def test_submits_of_a_handler_that_runs_again_are_accepted_once(
    aegis: testing.MemoryAegis,
) -> None:
    """G3: the second run hands in under the first one's ids, which are known."""
    world, tickets = World(), []
    orders = iter([("A", "B", "C"), ("C", "A", "B")])

    @world.desk.handles(MOVE, retries=Retries(2, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        for resource in next(orders):
            tickets.append((await ctx.submit(BOOK, n, resource=resource)).id)
        if ctx.attempt == 1:
            raise OSError("again")
        return n

    await world.serve(aegis)
    await aegis.request(MOVE, 3, resource="D")
    for ticket in tickets:
        assert await aegis.attach(ticket, BOOK) == 3
    assert len(set(tickets)) == 3
    assert world.booked == {"A": 3, "B": 3, "C": 3}


async def test_a_retry_asks_anew_what_failed_before(aegis: testing.MemoryAegis) -> None:
    """It was given its child's old failure again and again. What took effect is not asked again."""
    world = World()

    @world.desk.handles(MOVE, retries=Retries(3, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        await ctx.request(BOOK, n, resource="B")
        world.fail_next = 2 if ctx.attempt == 1 else world.fail_next
        return await ctx.request(BOOK, n, resource="A")

    await world.serve(aegis)
    assert await aegis.request(MOVE, 5, resource="D") == 5
    assert world.booked == {"A": 5, "B": 5}


async def test_a_run_after_a_crash_meets_the_old_failures_in_the_same_order(
    aegis: testing.MemoryAegis,
) -> None:
    """G3: it takes the branch that the first run took, and the retry finds what the first retry did."""
    world, retried = World(), asyncio.Event()
    branches: list[str] = []

    @world.desk.handles(MOVE, retries=Retries(2, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        try:
            total = await ctx.request(BOOK, n, resource="A")
        except HandlerFailed:
            branches.append("failed")
            raise
        branches.append("booked")
        if not retried.is_set():
            retried.set()
            await asyncio.Event().wait()
        return total

    await world.serve(aegis)
    world.fail_next = 1
    asked = asyncio.create_task(aegis.request(MOVE, 5, resource="D", timeout_s=20.0))
    await retried.wait()
    await aegis.serve(world.desk, resources={"D"})
    await aegis.instances[2].kill()
    assert await asked == 5
    assert branches == ["failed", "booked"] * 2
    assert world.booked == {"A": 5}


async def test_a_refusal_is_an_answer_that_no_retry_asks_for_again(
    aegis: testing.MemoryAegis,
) -> None:
    world, asked = World(), 0

    @world.pricing.handles(Method("pricing", "refuse", request=str, reply=int))
    async def refuse(ctx: Context, _: str) -> int:
        nonlocal asked
        asked += 1
        raise Rejected("no")

    @world.desk.handles(MOVE, retries=Retries(3, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        try:
            await ctx.request(Method("pricing", "refuse", request=str, reply=int), "x")
        except Rejected as error:
            raise OSError("again") from error
        return n

    await world.serve(aegis)
    with pytest.raises(HandlerFailed):
        await aegis.request(MOVE, 1, resource="D")
    assert asked == 1


async def test_a_handler_may_hand_in_a_request_to_its_own_resource(
    aegis: testing.MemoryAegis,
) -> None:
    """Nobody waits, so nothing is stuck: also from what was handed in, and on for ever."""
    world, done = World(), asyncio.Event()
    count = 0

    @world.desk.handles(MOVE)
    async def move(ctx: ResourceContext, n: int) -> int:
        nonlocal count
        count += 1
        if n:
            await ctx.submit(MOVE, n - 1, resource=ctx.resource)
        else:
            done.set()
        return n

    await world.serve(aegis)
    await aegis.request(MOVE, 60, resource="D")
    async with asyncio.timeout(10.0):
        await done.wait()
    assert count == 61


@pytest.mark.parametrize("seed", range(6))
async def test_by_chance_orders_kills_and_failures_book_each_call_once(
    aegis: testing.MemoryAegis, seed: int
) -> None:
    """G3: the state of each resource is as if the handler had run once."""
    dice, world = random.Random(seed), World()
    lives = itertools.count(1)

    @world.desk.handles(MOVE, retries=Retries(6, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        async def ask(resource: str, amount: int) -> None:
            await asyncio.sleep(dice.random() * 0.01)
            await ctx.request(BOOK, amount, resource=resource)

        amounts = [("A", n), ("B", -n), ("C", 2 * n), ("A", n), ("B", 3)]
        if ctx.attempt < 4:
            killer = asyncio.get_running_loop().call_later(dice.random() * 0.02, kill)
        async with asyncio.TaskGroup() as group:
            for resource, amount in dice.sample(amounts, k=len(amounts)):
                group.create_task(ask(resource, amount))
        if ctx.attempt < 4:
            killer.cancel()
        if dice.random() < 0.4:
            raise OSError("again")
        return n

    pending: list[asyncio.Task[None]] = []

    def kill() -> None:
        pending.append(asyncio.create_task(replace_active()))

    async def replace_active() -> None:
        active = next((i for i in aegis.instances if i.active_resources == ["D"]), None)
        if active is None:
            return  # killed a moment ago, and the next one does not serve yet
        await aegis.serve(world.desk, resources={"D"}, instance_id=f"desk-life-{next(lives)}")
        await active.kill()

    await world.serve(aegis)
    world.fail_next = dice.randrange(3)
    try:
        await aegis.request(MOVE, 10, resource="D", timeout_s=15.0)
    except HandlerFailed:
        assert world.booked["A"] in (0, 10, 20)
        assert world.booked["C"] in (0, 20)
    else:
        assert world.booked == {"A": 20, "B": -7, "C": 20}
    await asyncio.gather(*pending)


def test_a_call_with_a_set_in_it_is_the_same_call_in_each_process() -> None:
    """G3: a set of texts has another order in each process, and so have the bytes that are sent."""
    asked: Method[set[str], int] = Method("ledger", "tags", request=set[str], reply=int)
    forms = (b'["a","b","c"]', b'["c","b","a"]')
    tokens = {
        Calls().next_token("ledger", "tags", "A", asked.request.canonical(form)) for form in forms
    }
    assert len(tokens) == 1


# --- a fallback ---------------------------------------------------------------------------------------------
async def test_a_retry_keeps_the_failure_that_its_handler_has_answered_by_a_fallback(
    aegis: testing.MemoryAegis,
) -> None:
    """G3: the first call would take effect beside its fallback."""
    world, runs = World(), itertools.count(1)

    @world.desk.handles(MOVE, retries=Retries(3, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        try:
            total = await ctx.request(BOOK, n, resource="A")
        except HandlerFailed:
            total = await ctx.request(BOOK, n, resource="B")
        if next(runs) < 3:
            raise OSError("later")
        return total

    await world.serve(aegis)
    world.fail_next = 1
    assert await aegis.request(MOVE, 5, resource="D") == 5
    assert world.booked == {"B": 5}


async def test_a_retry_keeps_a_missing_route_that_its_handler_has_answered_by_a_fallback(
    aegis: testing.MemoryAegis,
) -> None:
    """G3: an instance comes between the two runs."""
    world, runs = World(), itertools.count(1)

    @world.desk.handles(MOVE, retries=Retries(2, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        try:
            total = await ctx.request(BOOK, n, resource="Z")
        except NoRoute:
            total = await ctx.request(PRICE, "IBM")
        if next(runs) == 1:
            await aegis.serve(world.ledger, resources={"Z"})
            raise OSError("later")
        return total

    await world.serve(aegis)
    assert await aegis.request(MOVE, 5, resource="D") == 250
    assert (world.booked, world.priced) == ({}, {"IBM": 1})


async def test_a_fallback_without_effect_leaves_the_first_call_to_the_retry(
    aegis: testing.MemoryAegis,
) -> None:
    world = World()

    @world.desk.handles(MOVE, retries=Retries(3, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        try:
            return await ctx.request(BOOK, n, resource="A")
        except HandlerFailed:
            return await ctx.request(BOOK, n, resource="B")

    await world.serve(aegis)
    world.fail_next = 2
    assert await aegis.request(MOVE, 5, resource="D") == 5
    assert world.booked == {"A": 5}


@given(
    st.lists(st.booleans(), min_size=0, max_size=6),
    st.lists(st.sampled_from(["raise", "crash", "go on"]), min_size=1, max_size=3),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_of_all_the_places_that_a_handler_tries_one_takes_effect(
    failures: list[bool], ends: list[str]
) -> None:
    """G3: whatever fails, raises and dies on the way."""
    world, fails, runs = World(), iter(failures), iter(ends)
    crashes: list[asyncio.Event] = []
    stuck = asyncio.Event()

    @world.desk.handles(MOVE, retries=Retries(8, wait_s=0.0))
    async def move(ctx: ResourceContext, n: int) -> int:
        for place in "ABC":
            world.fail_next = int(next(fails, False))
            try:
                total = await ctx.request(BOOK, n, resource=place)
            except HandlerFailed:
                continue
            match next(runs, "go on"):
                case "raise":
                    raise OSError("later")
                case "crash" if not crashes:
                    crashes.append(stuck)
                    stuck.set()
                    await asyncio.Event().wait()
            return total
        raise OSError("nowhere")

    async with testing.harness() as aegis:
        await world.serve(aegis)
        asked = asyncio.create_task(aegis.request(MOVE, 5, resource="D", timeout_s=20.0))
        crashed = asyncio.create_task(stuck.wait())
        await asyncio.wait({asked, crashed}, return_when=asyncio.FIRST_COMPLETED)
        if crashes:
            await aegis.serve(world.desk, resources={"D"})
            await aegis.instances[2].kill()
        crashed.cancel()
        assert await asked == 5
        assert sum(world.booked.values()) == 5
