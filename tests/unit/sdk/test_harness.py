"""The bus and harness that users test their services with, and the promises under seeded faults."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import aegis_sdk.testing
import pytest
from aegis_sdk import (
    AegisError,
    Context,
    Method,
    NoRoute,
    NotExecuted,
    ResourceContext,
    Role,
    SecondActive,
    Service,
    Unavailable,
)
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.testing import Faults, ManualClock, MemoryAegis, MemoryBus, harness

from tests.unit.sdk.support import ADD, ECHO, SERVICE, WAIT_S, Add, ledger, until


def test_the_public_names_are_these() -> None:
    assert aegis_sdk.testing.__all__ == [
        "Clock",
        "Cluster",
        "Fault",
        "Faults",
        "Flow",
        "LoopClock",
        "ManualClock",
        "MemoryAegis",
        "MemoryBus",
        "MemoryInstance",
        "MemoryLink",
        "Op",
        "VirtualTime",
        "blocking_harness",
        "cluster",
        "harness",
        "virtual_time",
    ]


async def test_a_service_is_tested_in_three_lines() -> None:
    async with harness(ledger()[0], resources={"ACC-1"}) as aegis:
        assert await aegis.request(ADD, Add(n=2), resource="ACC-1") == 2
        assert await aegis.request(ECHO, "hi") == "hi"


async def test_what_its_method_has_stored_is_there_before_its_handler_begins() -> None:
    """G1: in memory as on a server; an argument that is no flag is refused where it is given."""
    order = Method(SERVICE, "order", request=int, reply=int, stored=True)
    service = Service(SERVICE)
    bus = MemoryBus()

    @service.handles(order)
    def handle(ctx: ResourceContext, n: int) -> int:
        return bus.requests(SERVICE).last_seq

    async with harness(service, resources={"A"}, bus=bus) as aegis:
        assert [await aegis.request(order, 7, resource="A") for _ in range(2)] == [1, 2]
    with pytest.raises(aegis_sdk.InvalidArgument, match="stored must be a bool"):
        Method(SERVICE, "order", request=int, reply=int, stored="yes")  # type: ignore[arg-type]


async def test_services_ask_each_other() -> None:
    place = Method("orders", "place", request=int, reply=int)
    orders = Service("orders")

    @orders.handles(place)
    async def handle(ctx: Context, n: int) -> int:
        reply = await ctx.request(ADD, Add(n=n), resource="A")
        await ctx.submit(ADD, Add(n=100), resource="A")
        return reply

    async with harness(ledger()[0], resources={"A"}) as aegis:
        await aegis.serve(orders)
        assert await aegis.request(place, 3) == 3
        async with asyncio.timeout(WAIT_S):
            while await aegis.request(ADD, Add(n=0), resource="A") != 103:
                pass


async def test_two_resources_may_ask_each_other_one_way_and_not_both() -> None:
    ping = Method("ring", "ping", request=int, reply=str)
    ring = Service("ring")

    @ring.handles(ping)
    async def handle(ctx: ResourceContext, n: int) -> str:
        if n == 0:
            return ctx.resource
        return await ctx.request(ping, n - 1, resource="B" if ctx.resource == "A" else "A")

    async with harness(ring, resources={"A", "B"}) as aegis:
        assert await aegis.request(ping, 1, resource="A") == "B"
        with pytest.raises(AegisError, match="already holds it"):
            await aegis.request(ping, 2, resource="A")


async def test_a_failover_shows_as_time_only() -> None:
    """G6, G8: the standby has the state, and the call that waited is answered."""
    async with harness(ledger()[0], resources={"A"}) as aegis:
        standby = await aegis.serve(ledger()[0], resources={"A": Role.STANDBY})
        assert await aegis.request(ADD, Add(n=1), resource="A") == 1
        await aegis.instances[0].kill()
        assert await aegis.request(ADD, Add(n=10), resource="A") == 11
        assert standby.active_resources == ["A"]


async def test_the_last_instance_leaves_no_route() -> None:
    async with harness(ledger()[0], resources={"A"}) as aegis:
        await aegis.instances[0].drain()
        with pytest.raises(NoRoute):
            await aegis.request(ADD, Add(), resource="A")
        with pytest.raises(NoRoute):
            await aegis.request(ECHO, "x")


async def test_a_second_active_is_refused() -> None:
    """G5: as control refuses it."""
    async with harness(ledger()[0], resources={"A": Role.ACTIVE}) as aegis:
        with pytest.raises(SecondActive, match="ledger-1"):
            await aegis.serve(ledger()[0], resources={"A": Role.ACTIVE})


async def test_without_control_nothing_new_is_served_and_the_rest_works() -> None:
    async with harness(ledger()[0], resources={"A"}) as aegis:
        aegis.bus.control.running = False
        with pytest.raises(Unavailable):
            await aegis.serve(ledger()[0])
        assert await aegis.request(ADD, Add(), resource="A") == 1


async def test_draining_ends_open_requests_first() -> None:
    service, runs = ledger()
    async with harness(service, resources={"A"}) as aegis:
        release = runs.hold("slow")
        task = asyncio.create_task(aegis.request(ADD, Add(tag="slow"), resource="A"))
        await until(lambda: runs.begun)
        draining = asyncio.create_task(aegis.drain())
        release.set()
        await draining
        assert await task == 1


async def test_who_drains_serves_its_resources_until_its_group_requests_have_ended() -> None:
    """G8: as over NATS; from the pause of a resource to its handover nobody would serve it."""
    service, runs = ledger()
    async with harness(service, resources={"A"}) as aegis:
        release = runs.hold("slow")
        slow = asyncio.create_task(aegis.request(ECHO, "slow"))
        await until(lambda: runs.begun)
        draining = asyncio.create_task(aegis.instances[0].drain())
        assert await aegis.request(ADD, Add(), resource="A") == 1
        assert not draining.done()
        release.set()
        assert await slow == "slow"
        await draining


def test_manual_time_stands_still_until_it_is_moved() -> None:
    clock, fired = ManualClock(), []
    clock.call_later(2.0, lambda: fired.append(("b", clock.now_s())))
    clock.call_later(1.0, lambda: fired.append(("a", clock.now_s())))
    clock.call_later(1.5, lambda: fired.append(("never", 0.0))).cancel()
    clock.advance(0.9)
    assert fired == []
    clock.advance(5.0)
    assert fired == [("a", 1.0), ("b", 2.0)]
    assert clock.now_s() == pytest.approx(5.9)


def test_the_same_seed_draws_the_same_faults() -> None:
    def drawn(seed: int) -> list[object]:
        faults = Faults(seed=seed, lost=0.3, lost_answers=0.3, twice=0.5)
        return [faults.draw(op) for op in [*aegis_sdk.testing.Op] * 20]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


# --- the promises, with everything going wrong at once ------------------------------------------------------

WAVES, IN_A_WAVE = 8, 6


async def _disrupt(aegis: MemoryAegis, dice: random.Random, name: str) -> None:
    """A new standby comes, and one of the others is killed or cut off for a moment."""
    await aegis.serve(ledger()[0], resources=["A", "B"], instance_id=name)
    alive = [i for i in aegis.instances if (SERVICE, i.id) in aegis.bus.control.instances]
    victim = dice.choice(alive[:-1])
    if dice.random() < 0.5:
        await victim.kill()
    else:
        victim.link.cut()
        aegis.bus.control.lose(SERVICE, victim.id)
        await asyncio.sleep(dice.uniform(0.0, 0.03))
        victim.link.restore()


async def _ask(aegis: MemoryAegis, n: int) -> tuple[str, object]:
    resource = "AB"[n % 2]
    try:
        return resource, await aegis.request(
            ADD, Add(n=1, tag=str(n)), resource=resource, timeout_s=8.0
        )
    except NotExecuted as error:
        return resource, error


@pytest.mark.parametrize("seed", range(6))
async def test_each_request_has_one_effect_through_faults_and_failovers(
    seed: int,
) -> None:
    """G1, G2, G3, G4, G6: what callers were told is what is in the journal, each once."""
    faults = Faults(seed=seed, lost=0.04, lost_answers=0.06, twice=0.1, delay_s_max=0.003)
    bus, dice = MemoryBus(faults=faults, ack_wait_s=0.05), random.Random(seed)
    answers: list[tuple[str, object]] = []
    async with harness(ledger()[0], resources={"A", "B"}, bus=bus) as aegis:
        await aegis.serve(ledger()[0], resources=["A", "B"])
        for wave in range(WAVES):
            disruption = asyncio.create_task(_disrupt(aegis, dice, f"x-{wave}"))
            numbers = range(wave * IN_A_WAVE, (wave + 1) * IN_A_WAVE)
            answers += await asyncio.gather(*(_ask(aegis, n) for n in numbers))
            await disruption
        outcomes = list(bus.outcomes(SERVICE).values())
        stored = Counter(outcome.kind for outcome in outcomes)
        assert stored.total() == len(answers) == WAVES * IN_A_WAVE
        for resource in "AB":
            replies = [a for r, a in answers if r == resource and isinstance(a, int)]
            assert sorted(replies) == list(range(1, len(replies) + 1))
        told = sum(isinstance(answer, int) for _, answer in answers)
        assert told == stored[OutcomeKind.EXECUTED]
        assert max(outcome.epoch for outcome in outcomes) > 1
