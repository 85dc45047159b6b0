"""What operators pause: instances are processes that are killed, or sleep through it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import aegis_sdk
import pytest
from aegis_control.infrastructure.admin_client import AdminClient
from aegis_sdk import Aegis, Paused
from aegis_sdk.contract.control import AcceptLoss, PauseTraffic

from tests.integration.turns.support import (
    ADD,
    ADD_SLOWLY,
    GREET,
    SERVICE,
    TOTAL,
    WAIT_S,
    Add,
    Worker,
    World,
)
from tests.integration.turns.test_ownership import (
    admin,
    control,
    new_world,  # noqa: F401
    until_owned,
)

WHY = "wrong prices"


@pytest.fixture
async def operator(new_world: World) -> AsyncIterator[AdminClient]:  # noqa: F811
    async with control(new_world), admin(new_world) as made:
        yield made


@pytest.fixture
async def caller(new_world: World) -> AsyncIterator[Aegis]:  # noqa: F811
    async with aegis_sdk.connect(new_world.server.url, prefix=new_world.subjects.prefix) as made:
        yield made


class Begun:
    """What the handlers of an instance have begun."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.numbers: list[int] = []
        self._more = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            while True:
                self.numbers.append(int((await self.worker.said()).removeprefix("began ")))
                self._more.set()
        except EOFError:
            pass

    async def begins(self, number: int) -> None:
        """Return when it has."""
        async with asyncio.timeout(WAIT_S):
            while number not in self.numbers:
                self._more.clear()
                await self._more.wait()


async def serves(world: World, name: str, *resources: str) -> Begun:
    module = "tests.integration.turns.telling"
    return Begun(await Worker.start(world, name, resources, module=module))


def paused(target: str, **more: str) -> PauseTraffic:
    return PauseTraffic(target=target, by="ann", reason=WHY, **more)


async def lost(operator: AdminClient) -> None:
    """Return when control has told it."""
    async with asyncio.timeout(WAIT_S):
        while True:
            if (await operator.checkup()).losses:
                return
            await asyncio.sleep(0.1)


async def test_callers_are_told_and_nothing_of_it_begins_until_it_is_resumed(
    new_world: World, operator: AdminClient, caller: Aegis  # noqa: F811
) -> None:
    begun = await serves(new_world, "a", "R1", "R2")
    running = asyncio.create_task(caller.request(ADD_SLOWLY, Add(n=100), resource="R1"))
    await begun.begins(100)
    waiting = asyncio.create_task(caller.request(ADD, Add(n=1), resource="R1"))
    done = await operator.pause(paused("R1"))
    assert (done.unconfirmed, done.asleep) == ([], [])
    assert done.running == 1
    with pytest.raises(Paused, match=f"accounts.add: R1 is paused by ann: {WHY}"):
        await waiting
    with pytest.raises(Paused):
        await caller.request(ADD, Add(n=2), resource="R1", key="k1")
    ticket = await caller.submit(ADD, Add(n=3), resource="R1")
    assert (await caller.request(ADD, Add(n=4), resource="R2")).total == 4
    assert (await running).total == 100  # what had begun was not cut off
    assert await caller.read(TOTAL, "total", resource="R1") == 100
    assert (await operator.status()).paused[0].what == "R1"
    assert begun.numbers == [100, 4]
    await operator.resume(paused("R1"))
    assert (await caller.attach(ticket.id, ADD)).total == 103
    assert (await caller.request(ADD, Add(n=5), resource="R1")).total == 108


async def test_a_method_and_the_group_are_paused_everywhere(
    new_world: World, operator: AdminClient, caller: Aegis  # noqa: F811
) -> None:
    begun = [await serves(new_world, name, "R1") for name in ("a", "b")]
    assert (await caller.request(GREET, Add(n=1))).total == 1
    await operator.pause(paused(f"{SERVICE}/greet"))
    for _ in range(4):
        with pytest.raises(Paused):
            await caller.request(GREET, Add(n=2))
    ticket = await caller.submit(GREET, Add(n=3))
    assert (await caller.request(ADD, Add(n=4), resource="R1")).total == 4
    await asyncio.sleep(0.2)
    assert sorted(begun[0].numbers + begun[1].numbers) == [1, 4]
    await operator.resume(paused(f"{SERVICE}/greet"))
    assert (await caller.attach(ticket.id, GREET, timeout_s=WAIT_S)).total == 3


async def test_it_survives_a_kill_a_failover_a_new_control_and_a_trimmed_start(
    new_world: World, caller: Aegis  # noqa: F811
) -> None:
    async with control(new_world), admin(new_world) as operator:
        first = await serves(new_world, "a", "R1")
        await operator.pause(paused("R1"))
        ticket = await caller.submit(ADD, Add(n=1), resource="R1")
        second = await serves(new_world, "b", "R1")
        first.worker.send(signal.SIGKILL)
        await until_owned(new_world, "b", resources=["R1"])
        with pytest.raises(Paused):
            await caller.request(ADD, Add(n=2), resource="R1", timeout_s=WAIT_S)
    async with control(new_world), admin(new_world) as operator:
        second.worker.send(signal.SIGKILL)
        third = await serves(new_world, "c", "R1")
        await until_owned(new_world, "c", resources=["R1"])
        with pytest.raises(Paused):
            await caller.request(ADD, Add(n=3), resource="R1", timeout_s=WAIT_S)
        assert [p.what for p in (await operator.status()).paused] == ["R1"]
        assert (first.numbers, second.numbers, third.numbers) == ([], [], [])
        await operator.resume(paused("R1"))
        assert (await caller.attach(ticket.id, ADD, timeout_s=WAIT_S)).total == 1


@pytest.mark.parametrize("target", ["R1", f"{SERVICE}/greet"])
async def test_an_instance_that_sleeps_through_it_begins_nothing_when_it_wakes(
    new_world: World, operator: AdminClient, caller: Aegis, target: str  # noqa: F811
) -> None:
    """Requests lie in its socket, and so much behind them that it does not read the pause with them."""
    begun = await serves(new_world, "a", "R1")
    assert (await caller.request(ADD, Add(n=1), resource="R1")).total == 1
    assert (await caller.request(GREET, Add(n=2))).total == 2
    begun.worker.send(signal.SIGSTOP)
    methods = [(ADD, "R1"), (ADD_SLOWLY, "R1")] if target == "R1" else [(GREET, None)] * 2
    asked = [
        asyncio.create_task(caller.request(method, Add(n=5), resource=resource, timeout_s=WAIT_S))
        for method, resource in methods
    ]
    await asyncio.sleep(0.1)
    link = await new_world.link()
    for _ in range(4):
        link.publish(new_world.names.sent("R1"), bytes(500_000))
    done = await operator.pause(paused(target))
    assert (done.unconfirmed, done.asleep) == ([], ["a"])
    begun.worker.send(signal.SIGCONT)
    for each in asked:
        with pytest.raises(Paused):
            await each
    assert begun.numbers == [1, 2]


async def test_it_is_paused_still_when_its_log_was_lost(
    new_world: World, operator: AdminClient, caller: Aegis  # noqa: F811
) -> None:
    begun = await serves(new_world, "a", "R1")
    assert (await caller.request(ADD, Add(n=1), resource="R1")).total == 1
    await operator.pause(paused("R1"))
    link = await new_world.link()
    await link.api(f"STREAM.DELETE.{new_world.names.stream}", {})
    await lost(operator)
    await operator.accept_loss(AcceptLoss(service=SERVICE, by="ann"))
    await until_owned(new_world, "a", resources=["R1"])
    with pytest.raises(Paused):
        await caller.request(ADD, Add(n=2), resource="R1", timeout_s=WAIT_S)
    assert begun.numbers == [1]
    await operator.resume(paused("R1"))
    assert (await caller.request(ADD, Add(n=3), resource="R1", timeout_s=WAIT_S)).total == 3
