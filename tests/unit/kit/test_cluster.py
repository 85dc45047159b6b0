"""The test kit, as a user's suite has it: failovers, partitions and losses in milliseconds."""

from __future__ import annotations

import asyncio
import time

import pytest
from aegis_sdk import (
    Cancelled,
    Method,
    Rejected,
    ResourceContext,
    Resources,
    Role,
    Service,
)
from aegis_sdk.testing import Cluster, MemoryAegis
from aegis_sdk.testing import cluster as a_cluster
from pydantic import BaseModel


class Position(BaseModel):
    quantity: int = 0


class Fill(BaseModel):
    quantity: int


BOOK = Method("accounts", "book", request=Fill, reply=Position)
SLOWLY = Method("accounts", "slowly", request=Fill, reply=Position)
PLAIN = Method("accounts", "plain", request=Fill, reply=Position)


def accounts() -> Service:
    service = Service("accounts")

    def book(ctx: ResourceContext, fill: Fill) -> Position:
        if not fill.quantity:
            raise Rejected("empty", "nothing to book")
        before = ctx.state.get("position", Position) or Position()
        after = Position(quantity=before.quantity + fill.quantity)
        ctx.state.set("position", after)
        return after

    async def slowly(ctx: ResourceContext, fill: Fill) -> Position:
        await asyncio.sleep(20.0)
        return book(ctx, fill)

    def plain(ctx: ResourceContext, fill: Fill) -> Position:
        time.sleep(0.02)  # it works
        return book(ctx, fill)

    service.handles(BOOK, pure=True)(book)
    service.handles(SLOWLY)(slowly)
    service.handles(PLAIN)(plain)
    return service


async def pair(cluster: Cluster) -> None:
    for instance_id in ("one", "two"):
        await cluster.serve(accounts(), resources={"ACC-1"}, instance_id=instance_id)


async def book(cluster: Cluster, quantity: int = 1, timeout_s: float = 5.0) -> int:
    reply = await cluster.aegis.request(
        BOOK, Fill(quantity=quantity), resource="ACC-1", timeout_s=timeout_s
    )
    return reply.quantity


async def test_a_standby_goes_on_where_a_killed_active_was(cluster: Cluster) -> None:
    await pair(cluster)
    await book(cluster)
    assert await cluster.failover("ACC-1") == "two"
    assert await book(cluster) == 2
    cluster.assert_exactly_once()
    assert cluster.value("ACC-1", "position", Position) == Position(quantity=2)


async def test_a_request_under_way_survives_the_kill(cluster: Cluster) -> None:
    await pair(cluster)
    call = asyncio.create_task(
        cluster.aegis.request(SLOWLY, Fill(quantity=3), resource="ACC-1", timeout_s=120.0)
    )
    await asyncio.sleep(10.0)
    await cluster.kill("one")
    assert (await call).quantity == 3
    cluster.assert_exactly_once()


async def test_minutes_take_milliseconds(cluster: Cluster) -> None:
    await pair(cluster)
    begun_s, unix_s = time.perf_counter(), time.time()
    reply = await cluster.aegis.request(SLOWLY, Fill(quantity=1), resource="ACC-1", timeout_s=60.0)
    assert reply.quantity == 1
    assert 20.0 <= time.time() - unix_s < 21.0
    assert time.perf_counter() - begun_s < 5.0


async def test_a_deadline_is_virtual_too(cluster: Cluster) -> None:
    await pair(cluster)
    with pytest.raises(Cancelled):
        await cluster.aegis.request(SLOWLY, Fill(quantity=1), resource="ACC-1", timeout_s=5.0)
    await cluster.settle()
    cluster.assert_exactly_once()


async def test_who_is_cut_off_for_a_second_is_replaced_and_comes_back(cluster: Cluster) -> None:
    await pair(cluster)
    await book(cluster)
    cluster.partition("one")
    assert await book(cluster, timeout_s=30.0) == 2
    assert cluster.active("ACC-1") == "two"
    await cluster.heal("one")
    assert await cluster.failover("ACC-1") == "one"
    assert await book(cluster) == 3
    cluster.assert_exactly_once()


async def test_a_short_partition_moves_nothing(cluster: Cluster) -> None:
    await pair(cluster)
    cluster.partition("one")
    await asyncio.sleep(0.5)
    await cluster.heal("one")
    await asyncio.sleep(5.0)
    assert cluster.active("ACC-1") == "one"
    assert await book(cluster) == 1


@pytest.mark.parametrize("what", ["send", "commit", "reply"])
@pytest.mark.parametrize("answer", [False, True])
async def test_what_is_lost_is_done_once(cluster: Cluster, what: str, answer: bool) -> None:
    await pair(cluster)
    cluster.lose(what, times=3, answer=answer and what != "reply")
    for n in range(3):
        assert await book(cluster, timeout_s=60.0) == n + 1
    cluster.assert_exactly_once()


@pytest.mark.aegis(seed=11)
async def test_chance_loses_and_doubles_nothing(cluster: Cluster) -> None:
    cluster.faults.lost, cluster.faults.lost_answers, cluster.faults.delay_s_max = 0.1, 0.1, 0.05
    await pair(cluster)
    await asyncio.gather(*(book(cluster, timeout_s=300.0) for _ in range(20)))
    await cluster.failover("ACC-1")
    await asyncio.gather(*(book(cluster, timeout_s=300.0) for _ in range(20)))
    await cluster.settle()
    cluster.assert_exactly_once()
    assert cluster.value("ACC-1", "position", Position) == Position(quantity=40)


async def test_a_state_of_an_earlier_day(cluster: Cluster) -> None:
    await cluster.seed_state("accounts", "ACC-1", {"position": Position(quantity=100)})
    await pair(cluster)
    assert await book(cluster, 5) == 105


async def test_a_plain_handler_is_waited_for_in_real_time(cluster: Cluster) -> None:
    await pair(cluster)
    reply = await cluster.aegis.request(PLAIN, Fill(quantity=1), resource="ACC-1", timeout_s=0.5)
    assert reply.quantity == 1
    assert await asyncio.to_thread(lambda: time.perf_counter() > 0)


async def test_the_fixture_aegis_is_the_cluster_s_client(
    aegis: MemoryAegis, cluster: Cluster
) -> None:
    assert aegis is cluster.aegis
    await aegis.serve(accounts(), resources={"ACC-1": Role.ACTIVE})
    with pytest.raises(Rejected):
        await aegis.request(BOOK, Fill(quantity=0), resource="ACC-1")


async def test_a_request_without_an_outcome_is_told_with_the_seed() -> None:
    async with a_cluster(seed=5) as cluster:
        await pair(cluster)
        cluster.partition("one")
        cluster.partition("two")
        await cluster.aegis.submit(BOOK, Fill(quantity=1), resource="ACC-1")
        with pytest.raises(AssertionError, match="has no outcome\ncluster seed 5"):
            cluster.assert_exactly_once()


async def test_an_outcome_that_is_there_twice_is_told() -> None:
    async with a_cluster(seed=5) as cluster:
        await pair(cluster)
        await book(cluster)
        log = cluster.bus.log("accounts")
        turn = next(entry for entry in log.entries() if entry.records())
        log.write("turn.somebody.1", turn.data, turn.header)
        with pytest.raises(AssertionError) as told:
            cluster.assert_exactly_once()
        assert "has 2 outcomes" in str(told.value)
        assert "ACC-1's effect 1 comes behind effect 1" in str(told.value)


async def test_a_test_that_waits_for_nothing_ends() -> None:
    with pytest.raises(TimeoutError):
        async with a_cluster(limit_s=60.0):
            await asyncio.Event().wait()


async def test_a_resource_comes_on_demand_has_a_standby_and_goes_when_it_is_idle() -> None:
    async with a_cluster() as cluster:
        for name in ("one", "two", "three"):
            await cluster.serve(
                accounts(), resources=Resources("ACC-*", idle_s=60.0), instance_id=name
            )
        assert await cluster.aegis.request(BOOK, Fill(quantity=5), resource="ACC-1") == Position(
            quantity=5
        )
        assert await cluster.failover("ACC-1") is not None
        after = await cluster.aegis.request(BOOK, Fill(quantity=1), resource="ACC-1")
        assert after.quantity == 6
        await asyncio.sleep(120.0)
        assert cluster.active("ACC-1") is None
        after = await cluster.aegis.request(BOOK, Fill(quantity=1), resource="ACC-1")
        assert after.quantity == 7
