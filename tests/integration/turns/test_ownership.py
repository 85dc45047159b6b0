"""Control says who owns what by entries of the log. Instances are processes, and so is control where it sleeps or dies."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aegis_control.bootstrap import Control
from aegis_control.infrastructure.admin_client import AdminClient
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.settings import load
from aegis_sdk.contract.control import FailoverResources, LeaseRecord, LeaseState, TargetInstance
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.contract.turns.writers import run_of
from aegis_sdk.domain.turns.entries import Claim, Entry, Gate, Own
from aegis_sdk.domain.turns.ownership import NOBODY, Ownership
from aegis_sdk.infrastructure.messages import last_message
from aegis_sdk.infrastructure.turns.log import store_gate
from aegis_sdk.infrastructure.turns.reader import LogReader

from tests.integration.turns.support import SERVICE, WAIT_S, Told, Worker, World
from tests.integration.turns.test_end_to_end import RESOURCES, Traffic, check

MANY = 1_000


def settings(world: World, **changes: Any) -> dict[str, Any]:
    assert isinstance(world.server, EmbeddedNats)
    return {
        "url": world.server.url,
        "system_url": world.server.system_url,
        "prefix": world.subjects.prefix,
        "http_port": 0,
        "spread": False,
        "leader_timeout_s": 0.5,
        "leader_renewal_s": 0.1,
    } | changes


@asynccontextmanager
async def control(world: World, **changes: Any) -> AsyncIterator[Control]:
    """A replica in this process."""
    replica = Control(load(settings(world, **changes)).settings)
    running = asyncio.create_task(replica.run())
    await replica.started.wait()
    try:
        yield replica
    finally:
        replica.stop()
        await running


class ControlProcess:
    """`control.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, world: World, *, stops_at: int = 0) -> ControlProcess:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.turns.control"),
            *(json.dumps(settings(world)), str(stops_at)),
            stdout=asyncio.subprocess.PIPE,
        )
        made = cls(process)
        world.stack.push_async_callback(made.end)
        return made

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def says(self, line: str) -> None:
        """Its lines up to this one; control logs there, too."""
        async with asyncio.timeout(WAIT_S):
            while await self._lines.get() != line:
                pass

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._lines.put_nowait(line.decode().strip())

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._listening


@pytest.fixture
async def new_world(server: EmbeddedNats) -> AsyncIterator[World]:
    """Nothing is there: control provides it."""
    world = World(server)
    try:
        yield world
    finally:
        await world.close()


async def member(world: World, name: str, resources: Iterable[str] = RESOURCES) -> Worker:
    return await Worker.start(world, name, resources, module="tests.integration.turns.member")


async def members(world: World, count: int) -> list[Worker]:
    """The first one owns everything."""
    return [await member(world, f"accounts-{n}") for n in range(count)]


async def log_of(world: World) -> tuple[Ownership, list[Own]]:
    """What the log says of ownership, and by which entries."""
    link = await world.link()
    marker = await store_gate(link, world.names, "reader")
    found = Ownership()
    entries: list[Own] = []

    def read(entry: Entry | Claim) -> None:
        if isinstance(entry, Own):
            entries.append(entry)
            found.read_own(entry.number, entry.moves)
        elif isinstance(entry, Gate):
            found.read_gate(entry.writer, entry.seq)

    reader = LogReader(
        link,
        world.names,
        on_entry=read,
        on_unreadable=lambda seq, why, words: pytest.fail(why),
        filters=world.names.ownership_and_ends,
    )
    await reader.start()
    async with asyncio.timeout(WAIT_S):
        await reader.reached(marker)
    await reader.stop()
    await link.close()
    return found, entries


async def until_owned(world: World, *names: str, resources: Iterable[str] = RESOURCES) -> Ownership:
    """Returns when the log says that `names` own the resources, and nobody before them may write."""
    wanted = list(resources)
    async with asyncio.timeout(WAIT_S):
        while True:
            found, _ = await log_of(world)
            owners = {run_of(found.owner(resource))[0] for resource in wanted}
            if owners == set(names) and not found.unshut(wanted):
                return found
            await asyncio.sleep(0.05)


async def until_leases_follow(world: World, found: Ownership) -> None:
    link = await world.link()
    bucket = world.subjects.leases_bucket
    async with asyncio.timeout(WAIT_S):
        for resource in RESOURCES:
            subject = f"$KV.{bucket}.{world.subjects.lease_key(SERVICE, resource)}"
            while True:
                stored = await last_message(link, f"KV_{bucket}", subject)
                if stored is not None:
                    lease = LeaseRecord.model_validate_json(stored.payload)
                    said = (lease.owner, lease.incarnation, lease.epoch)
                    if said == (*run_of(found.owner(resource)), found.epoch(resource)):
                        assert lease.state is LeaseState.HELD
                        break
                await asyncio.sleep(0.02)


def admin(world: World) -> AdminClient:
    return AdminClient(world.server.url, prefix=world.subjects.prefix)


async def test_a_killed_active_is_replaced_by_one_entry(new_world: World) -> None:
    """G3, G5, G6: whatever it owned, and nothing that callers were told is lost."""
    world = new_world
    async with control(world):
        first, _ = await members(world, 2)
        await until_owned(world, "accounts-0")
        told = Told()
        traffic = Traffic([await world.client() for _ in range(2)], told, seed=1)
        async with asyncio.timeout(30):
            await traffic.until_answered(200)
            first.send(signal.SIGKILL)
            found = await until_owned(world, "accounts-1")
            await traffic.until_answered(200)
        await traffic.end()
        await check(world, told)
        _, entries = await log_of(world)
        assert [set(entry.moves) for entry in entries] == [set(RESOURCES)] * 2
        assert {found.epoch(resource) for resource in RESOURCES} == {2}
        await until_leases_follow(world, found)


async def test_a_polite_handover_and_a_drain_are_the_same_entry(new_world: World) -> None:
    """G1, G3, G7: the active pauses, ends what has begun, and the other one goes on."""
    world = new_world
    async with control(world):
        first, _ = await members(world, 2)
        await until_owned(world, "accounts-0")
        told = Told()
        traffic = Traffic([await world.client() for _ in range(2)], told, seed=2)
        async with asyncio.timeout(30), admin(world) as operator:
            await traffic.until_answered(100)
            await operator.failover(FailoverResources(resources=[RESOURCES[0]], service=SERVICE))
            await until_owned(world, "accounts-1", resources=RESOURCES[:1])
            await traffic.until_answered(100)
            await operator.drain(TargetInstance(instance_id="accounts-0"))
            await until_owned(world, "accounts-1")
            assert "ended" in await first.said()
            await traffic.until_answered(100)
        await traffic.end()
        await check(world, told)
        _, entries = await log_of(world)
        assert [len(entry.moves) for entry in entries] == [6, 1, 5]


async def test_one_that_is_evicted_owns_nothing_though_nobody_takes_over(new_world: World) -> None:
    """G5: control shuts it out itself."""
    world = new_world
    async with control(world), admin(world) as operator:
        only, *_ = await members(world, 1)
        await until_owned(world, "accounts-0")
        await operator.disconnect(TargetInstance(instance_id="accounts-0"))
        await until_owned(world, run_of(NOBODY)[0])
        assert "ended" in await only.said()


@pytest.mark.scenario
async def test_a_control_that_slept_between_deciding_and_writing_is_refused(
    new_world: World,
) -> None:
    """G5: the other replica has moved everything meanwhile. The zombie's entry has a number that is given."""
    world = new_world
    zombie = await ControlProcess.start(world, stops_at=2)
    first, *_ = await members(world, 3)
    await zombie.says("1 stored")
    async with control(world):
        told = Told()
        traffic = Traffic([await world.client()], told, seed=3)
        async with asyncio.timeout(30):
            await traffic.until_answered(50)
            first.send(signal.SIGKILL)
            await zombie.says("decided 2")
            found = await until_owned(world, "accounts-1", "accounts-2")
            await traffic.until_answered(50)
            zombie.send(signal.SIGCONT)
            await zombie.says("2 conflict")
            await traffic.until_answered(50)
        await traffic.end()
        await check(world, told)
        again, entries = await log_of(world)
        assert [entry.number for entry in entries] == [1, 2]
        assert all(again.owner(name) == found.owner(name) for name in RESOURCES)


@pytest.mark.scenario
async def test_a_control_that_dies_between_deciding_and_writing_leaves_no_trace(
    new_world: World,
) -> None:
    """G1: its successor finds the loss, and decides itself."""
    world = new_world
    dying = await ControlProcess.start(world, stops_at=2)
    first, *_ = await members(world, 2)
    await dying.says("1 stored")
    first.send(signal.SIGKILL)
    await dying.says("decided 2")
    await dying.end()
    async with control(world):
        await until_owned(world, "accounts-1")
        client = await world.client()
        outcome = await Told().call(client, RESOURCES[0])
        assert outcome is not None
        assert outcome.kind is OutcomeKind.EXECUTED


@pytest.mark.scenario
@pytest.mark.parametrize(
    ("seed", "kills"), [(1, 0), *(pytest.param(n, 2, marks=pytest.mark.slow) for n in (2, 3))]
)
async def test_random_failovers_lose_and_double_nothing(
    new_world: World, seed: int, kills: int
) -> None:
    """G1 to G5: two controls and three instances; any of them is killed, sleeps, or is told to move things."""
    world, chance = new_world, random.Random(seed)
    other = await ControlProcess.start(world)
    async with control(world), admin(world) as operator:
        alive = dict(enumerate(await members(world, 3)))
        await until_owned(world, "accounts-0")
        told = Told()
        traffic = Traffic([await world.client() for _ in range(3)], told, seed=seed)

        async def kill() -> None:
            n = chance.randrange(3)
            alive[n].send(signal.SIGKILL)
            await traffic.until_answered(30)
            alive[n] = await member(world, f"accounts-{n}")

        async def sleep() -> None:
            n = chance.randrange(3)
            alive[n].send(signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            alive[n].send(signal.SIGCONT)

        async def move() -> None:
            order = FailoverResources(resources=[chance.choice(RESOURCES)], service=SERVICE)
            await asyncio.gather(operator.failover(order), return_exceptions=True)

        async def control_sleeps() -> None:
            other.send(signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.2, 0.8))
            other.send(signal.SIGCONT)

        async with asyncio.timeout(100):
            strikes = [*[kill] * kills, sleep, sleep, move, move, move, control_sleeps]
            for strike in chance.sample(strikes, len(strikes)):
                await traffic.until_answered(30)
                await strike()
            await traffic.until_answered(100)
        await traffic.end()
        await check(world, told)
        found, entries = await log_of(world)
        assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
        await until_leases_follow(world, found)


@pytest.mark.scenario
@pytest.mark.parametrize("count", [MANY, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_any_number_of_resources_is_served_again_in_a_moment(
    new_world: World, count: int
) -> None:
    """Each is called once from the kill on. The figures are those of `bench failover`; here they are only bounded."""
    world = new_world
    resources = [f"ACC-{n}" for n in range(count)]
    async with control(world):
        first = await member(world, "accounts-0", resources)
        await member(world, "accounts-1", resources)
        await until_owned(world, "accounts-0", resources=resources)
        client, told = await world.client(), Told()
        async with asyncio.timeout(60):
            await asyncio.gather(*(told.call(client, name, timeout_s=30) for name in resources))
            await asyncio.sleep(0.5)  # control has to hear that the second one has read everything
            began_s = time.monotonic()
            first.send(signal.SIGKILL)
            await asyncio.gather(*(told.call(client, name, timeout_s=30) for name in resources))
        assert time.monotonic() - began_s < 10.0
        await check(world, told)
        _, entries = await log_of(world)
        assert [len(entry.moves) for entry in entries] == [count, count]
