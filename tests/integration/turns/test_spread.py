"""Control spreads AUTO resources over processes that come, go and are killed. Callers see nothing but time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter

import pytest
from aegis_control.infrastructure.admin_client import AdminClient, AdminError
from aegis_sdk.contract.control import LeaseState, Rebalance, TargetInstance
from aegis_sdk.contract.envelope import OutcomeKind

from tests.integration.turns.support import SERVICE, WAIT_S, Told, Worker, World
from tests.integration.turns.test_end_to_end import Traffic, check
from tests.integration.turns.test_ownership import admin, control, member, new_world

__all__ = ["new_world"]

ACCOUNTS = [f"ACC-{n:02}" for n in range(30)]


async def actives(world: World) -> Counter[str]:
    """How many resources each instance is active for, as operators see it."""
    async with admin(world) as operator:
        found = await operator.describe(SERVICE)
    held = [route for route in found.routes if route.state is LeaseState.HELD]
    return Counter(str(route.active) for route in held)


async def until_spread(world: World, *names: str) -> None:
    """Each has its share of the accounts, or one more."""
    share = len(ACCOUNTS) // len(names)
    async with asyncio.timeout(WAIT_S):
        while True:
            found = Counter[str]()
            with contextlib.suppress(AdminError):  # on a busy machine control may change its leader
                found = await actives(world)
            if set(found) == set(names) and set(found.values()) <= {share, share + 1}:
                return
            await asyncio.sleep(0.05)


async def serving(world: World, *names: str) -> list[Worker]:
    """Processes that start together."""
    return list(await asyncio.gather(*(member(world, name, ACCOUNTS) for name in names)))


async def until_a_rebalance_would_move(operator: AdminClient) -> None:
    """It is refused until all instances are heard."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(AdminError):
                if (await operator.rebalance(Rebalance(dry_run=True))).services:
                    return
            await asyncio.sleep(0.05)


async def ended(traffic: Traffic, world: World, told: Told) -> None:
    """G2, G3, G8: each call has its effect, once, and no caller saw an error."""
    await traffic.end()
    await check(world, told)
    assert {outcome.kind for outcome in told.outcomes.values()} == {OutcomeKind.EXECUTED}


async def test_accounts_are_spread_under_load_when_instances_start_and_leave(
    new_world: World,
) -> None:
    world, told = new_world, Told()
    async with control(world, spread=True, spread_wait_s=0.3), admin(world) as operator:
        await serving(world, "a", "b")
        traffic = Traffic([await world.client()], told, seed=1, resources=ACCOUNTS)
        async with asyncio.timeout(WAIT_S):
            await until_spread(world, "a", "b")
            await traffic.until_answered(100)
            await operator.drain(TargetInstance(instance_id="a"))
            await until_spread(world, "b")
            await traffic.until_answered(100)
        await ended(traffic, world, told)


@pytest.mark.scenario
async def test_a_service_that_grows_loses_one_and_starts_anew_is_even_each_time(
    new_world: World,
) -> None:
    """With control's defaults."""
    world, told = new_world, Told()
    async with control(world, spread=True):
        abc = await serving(world, "a", "b", "c")
        traffic = Traffic([await world.client()], told, seed=2, resources=ACCOUNTS)
        began_s = time.monotonic()
        await until_spread(world, "a", "b", "c")
        assert set((await actives(world)).values()) == {10}
        assert time.monotonic() - began_s < 15
        [d] = await serving(world, "d")
        await until_spread(world, "a", "b", "c", "d")
        await traffic.until_answered(200)
        abc[0].send(signal.SIGKILL)
        await until_spread(world, "b", "c", "d")
        await traffic.until_answered(200)
        await ended(traffic, world, told)
        for worker in (*abc[1:], d):
            worker.send(signal.SIGKILL)
        await serving(world, "e", "f", "g")
        await until_spread(world, "e", "f", "g")
        again = Traffic([await world.client()], told, seed=3, resources=ACCOUNTS)
        await again.until_answered(100)
        await ended(again, world, told)


async def test_switched_off_it_waits_for_an_operator(new_world: World) -> None:
    world = new_world
    async with control(world), admin(world) as operator:
        await serving(world, "a", "b")
        await until_a_rebalance_would_move(operator)
        assert len(await actives(world)) == 1
        await operator.rebalance(Rebalance(service=SERVICE, by="eve"))
        await until_spread(world, "a", "b")
