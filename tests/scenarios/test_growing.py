"""Resources that come and go under traffic, on real processes, some of which are killed."""

from __future__ import annotations

import asyncio
import random
import signal

import aegis_sdk
import pytest
from aegis_sdk import Aegis, NotExecuted, Unavailable

from tests.scenarios.system import Process, System, running_system
from tests.scenarios.wanderer import ADD, NAMES

pytestmark = pytest.mark.scenario


async def wanderer(system: System, instance_id: str, seed: int | str) -> Process:
    process = await Process.start(
        f"{instance_id}-{seed}",
        "-m",
        "tests.scenarios.wanderer",
        system.url,
        instance_id,
        str(seed),
        folder=system.folder,
    )
    system.processes.append(process)
    await process.wait_for("ready", timeout_s=30.0)
    return process


class Callers:
    """One a resource. What was told stands against what is there in the end."""

    def __init__(self, aegis: Aegis, *, rests_s: float = 0.0) -> None:
        """`rests_s`: each calls some times, and then not for up to so long."""
        self._aegis = aegis
        self._rests_s = rests_s
        self._timeout_s = 20.0 if rests_s else 3.0
        self._chance = random.Random(7)
        self._ends = asyncio.Event()
        self.told = dict.fromkeys(NAMES, 0)
        self._tasks = [asyncio.create_task(self._call(name)) for name in NAMES]

    async def _call(self, name: str) -> None:
        while not self._ends.is_set():
            try:
                total = await self._aegis.request(ADD, 1, resource=name, timeout_s=self._timeout_s)
            except (NotExecuted, Unavailable):  # nobody has it just now, or control is away
                await asyncio.sleep(0.01)
            else:
                self.told[name] += 1
                assert total == self.told[name]
            if self._rests_s and self._chance.random() < 0.1:
                await asyncio.sleep(self._chance.uniform(0.0, self._rests_s))

    async def some_more(self, calls: int = 100) -> None:
        wanted = sum(self.told.values()) + calls
        async with asyncio.timeout(30.0):
            while sum(self.told.values()) < wanted:
                for task in self._tasks:
                    assert not task.done(), task.exception()
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        self._ends.set()
        await asyncio.gather(*self._tasks)


async def test_resources_wander_while_instances_and_control_are_killed() -> None:
    """G1, G2, G3, G6: each acknowledged call has its effect once, and in the end everything is served."""
    async with running_system() as system, aegis_sdk.connect(system.url) as aegis:
        a, b = await asyncio.gather(wanderer(system, "a", 1), wanderer(system, "b", 2))
        callers = Callers(aegis)
        await callers.some_more()
        await a.kill()
        await callers.some_more()
        a = await wanderer(system, "a", 3)
        await callers.some_more()
        await system.processes[0].kill()  # control
        await system.start_control()
        await callers.some_more()
        await asyncio.gather(*(each.wait_for("changed", after=len(each.events)) for each in (a, b)))
        for each in (a, b):
            each.send(signal.SIGUSR1)
            await each.wait_for("settled", timeout_s=30.0)
        await callers.end()
        for name in NAMES:
            total = await aegis.request(ADD, 0, resource=name, timeout_s=10.0)
            assert total == callers.told[name]


async def test_what_comes_on_demand_and_rests_loses_nothing_while_all_are_killed() -> None:
    """G1, G2, G3: a resource rests about when it is asked for again, and its instances, control and NATS are killed."""
    async with running_system() as system, aegis_sdk.connect(system.url) as aegis:
        names = ("a", "b", "c")
        there = [await wanderer(system, name, "on-demand") for name in names]
        callers = Callers(aegis, rests_s=2.0)
        await callers.some_more()
        for n, name in enumerate(names):
            await there[n].kill()
            await callers.some_more()
            there[n] = await wanderer(system, name, "on-demand")
        there[0].send(signal.SIGSTOP)
        await callers.some_more()
        there[0].send(signal.SIGCONT)
        await system.processes[0].kill()  # control
        await system.start_control()
        await callers.some_more()
        await system.crash_nats()
        await callers.some_more()
        await callers.end()
        for name in NAMES:
            total = await aegis.request(ADD, 0, resource=name, timeout_s=20.0)
            assert total == callers.told[name]
