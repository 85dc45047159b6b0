"""Resources that come and go under traffic, on real processes, some of which are killed."""

from __future__ import annotations

import asyncio
import signal

import aegis_sdk
import pytest
from aegis_sdk import Aegis, NotExecuted

from tests.scenarios.system import Process, System, running_system
from tests.scenarios.wanderer import ADD, NAMES

pytestmark = pytest.mark.scenario


async def wanderer(system: System, instance_id: str, seed: int) -> Process:
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

    def __init__(self, aegis: Aegis) -> None:
        self._aegis = aegis
        self._ends = asyncio.Event()
        self.told = dict.fromkeys(NAMES, 0)
        self._tasks = [asyncio.create_task(self._call(name)) for name in NAMES]

    async def _call(self, name: str) -> None:
        while not self._ends.is_set():
            try:
                total = await self._aegis.request(ADD, 1, resource=name, timeout_s=3.0)
            except NotExecuted:  # nobody has it just now
                await asyncio.sleep(0.01)
            else:
                self.told[name] += 1
                assert total == self.told[name]

    async def some_more(self, calls: int = 100) -> None:
        wanted = sum(self.told.values()) + calls
        async with asyncio.timeout(30.0):
            while sum(self.told.values()) < wanted:
                assert not any(task.done() for task in self._tasks)
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
