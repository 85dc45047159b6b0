"""Resources that come and go while an instance runs, in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aegis_sdk import (
    Draining,
    InvalidArgument,
    InvalidName,
    NoRoute,
    Role,
    SecondActive,
    Unavailable,
)
from aegis_sdk.contract.control import LeaseState
from aegis_sdk.testing import Faults, MemoryBus, harness

from tests.unit.sdk.support import ADD, SERVICE, Add, ledger, settle, until


async def test_an_added_resource_is_served_and_a_removed_one_is_nobodys() -> None:
    service, _ = ledger()
    async with harness(service, resources={"A"}) as aegis:
        (instance,) = aegis.instances
        await instance.add(["B"])
        assert await aegis.request(ADD, Add(n=2), resource="B") == 2
        await instance.remove(["B"])
        assert instance.active_resources == ["A"]
        with pytest.raises(NoRoute):
            await aegis.request(ADD, Add(), resource="B", timeout_s=0.1)


async def test_a_removed_resource_goes_to_its_standby_with_its_state() -> None:
    service, _ = ledger()
    async with harness(service, resources={"A"}) as aegis:
        other = await aegis.serve(service)
        await aegis.request(ADD, Add(n=5), resource="A")
        await other.add({"A": Role.STANDBY})
        await aegis.instances[0].remove(["A"])
        assert await aegis.request(ADD, Add(n=2), resource="A") == 7
        assert other.active_resources == ["A"]


async def test_one_that_comes_back_to_the_same_instance_has_its_state() -> None:
    """Its own turns are read like anybody's: what it had in memory is gone."""
    service, _ = ledger()
    async with harness(service, resources={"A"}) as aegis:
        (instance,) = aegis.instances
        for total in range(1, 6):
            assert await aegis.request(ADD, Add(), resource="A") == total
            await instance.remove(["A"])
            assert not instance._serving.host.writer.held
            await instance.add(["A"])


async def test_what_was_stored_for_it_while_it_was_nobodys_runs_before_what_is_sent_now() -> None:
    """G7: the instance has passed these requests long ago."""
    service, runs = ledger()
    async with harness(service, resources={"A", "B"}) as aegis:
        (instance,) = aegis.instances
        await instance.remove(["A"])
        lost = aegis.bus.control.leases[SERVICE, "A"]
        aegis.bus.control.leases[SERVICE, "A"] = lost.model_copy(
            update={"state": LeaseState.WAITING}
        )
        first = await aegis.submit(ADD, Add(n=1, tag="first"), resource="A")
        assert await aegis.request(ADD, Add(), resource="B") == 1
        aegis.bus.control.leases[SERVICE, "A"] = lost
        await instance.add(["A"])
        assert await aegis.request(ADD, Add(n=1, tag="second"), resource="A") == 2
        assert await aegis.attach(first.id, ADD) == 1
        assert [tag for tag in runs.tags if tag] == ["first", "second"]


async def test_a_request_that_runs_ends_before_its_resource_is_given_away() -> None:
    service, runs = ledger()
    async with harness(service, resources={"A"}) as aegis:
        (instance,) = aegis.instances
        runs.holds["slow"] = asyncio.Event()
        call = asyncio.create_task(aegis.request(ADD, Add(tag="slow"), resource="A"))
        await until(lambda: runs.begun)
        with pytest.raises(Unavailable, match="a request of 'A' is still under way"):
            await instance.remove(["A"], timeout_s=0.05)
        assert instance.active_resources == ["A"]
        removing = asyncio.create_task(instance.remove(["A"]))
        await settle()
        assert not removing.done()
        runs.holds["slow"].set()
        assert await call == 1
        await removing
        assert len(runs.begun) == 1


async def test_a_removal_that_failed_leaves_the_resource_served() -> None:
    service, _ = ledger()
    async with harness(service, resources={"A"}) as aegis:
        (instance,) = aegis.instances
        aegis.bus.control.running = False
        with pytest.raises(Unavailable):
            await instance.remove(["A"], timeout_s=0.05)
        with pytest.raises(Unavailable):
            await instance.add(["B"], timeout_s=0.05)
        assert await aegis.request(ADD, Add(), resource="A") == 1
        aegis.bus.control.running = True
        await instance.add(["B"])
        await instance.remove(["A"])
        assert await aegis.request(ADD, Add(), resource="B") == 1
        assert instance.active_resources == ["B"]


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ({"A": Role.ACTIVE}, InvalidArgument, "offers 'A' as auto already: remove it"),
        ({"B": Role.ACTIVE, "C": "leader"}, InvalidArgument, "one of active"),
        ([""], InvalidName, "empty"),
        (["x" * 201], InvalidName, "200"),
        ("ACC-1", InvalidArgument, "must be as"),
        ([7], InvalidName, "resource's id"),
        ({"H": Role.ACTIVE}, SecondActive, "'H'"),
    ],
)
async def test_an_addition_that_is_wrong_says_so_and_adds_nothing(
    wanted: Any, error: type[Exception], words: str
) -> None:
    service, _ = ledger()
    async with harness(service, resources={"A"}) as aegis:
        await aegis.serve(service, resources={"H": Role.ACTIVE})
        instance = aegis.instances[0]
        with pytest.raises(error, match=words):
            await instance.add(wanted)
        assert list(instance._membership.resources) == ["A"]


async def test_only_what_is_offered_can_be_removed() -> None:
    service, _ = ledger()
    async with harness(service, resources={"A", "B"}) as aegis:
        (instance,) = aegis.instances
        with pytest.raises(InvalidArgument, match="does not offer 'Z' and 1 more: nothing was"):
            await instance.remove(["A", "Z", "Y"])
        assert instance.active_resources == ["A", "B"]


async def test_to_add_what_is_there_and_to_change_nothing_are_no_errors() -> None:
    service, _ = ledger()
    async with harness(service, resources={"A"}) as aegis:
        (instance,) = aegis.instances
        aegis.bus.control.running = False  # it is not even asked
        await instance.add(["A"])
        await instance.add([])
        await instance.remove([])


async def test_an_instance_that_leaves_takes_nothing_more() -> None:
    service, _ = ledger()
    async with harness(service, resources={"A"}) as aegis:
        (instance,) = aegis.instances
        await instance.drain()
        with pytest.raises(Draining, match="is draining, or has ended"):
            await instance.add(["B"])
        with pytest.raises(Draining):
            await instance.remove(["A"])


async def test_under_calls_and_faults_resources_wander_and_each_call_has_one_effect() -> None:
    """G1, G2: a row of additions and removals at two instances while callers go on."""
    service, _ = ledger()
    names = [f"R{n}" for n in range(6)]
    bus = MemoryBus(faults=Faults(seed=7, lost_answers=0.02, delay_s_max=0.001))
    async with harness(service, resources=names, bus=bus) as aegis:
        second = await aegis.serve(service, resources=names)
        done = dict.fromkeys(names, 0)
        stop = asyncio.Event()

        async def call(name: str) -> None:
            while not stop.is_set():
                done[name] += 1
                assert await aegis.request(ADD, Add(), resource=name) == done[name]

        callers = [asyncio.create_task(call(name)) for name in names]
        for n in range(30):
            gives = (aegis.instances[0], second)[n % 2]
            some = names[n % 3 :: 2]
            await gives.remove(some)
            await settle_a_little()
            await gives.add(some)
        stop.set()
        await asyncio.gather(*callers)
        assert min(done.values()) > 10


async def settle_a_little() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
