"""Nothing is lost and nothing doubled: instances that are killed or sleep, owners that change, NATS that dies (G1 to G5).

What callers were told is compared with what the log holds, and each resource's effects with one another.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.infrastructure.turns.assembly import TurnClient

from tests.integration.turns.support import Owners, Told, Worker, World, a_world, give, read_log

RESOURCES = [f"ACC-{n}" for n in range(6)]


class Traffic:
    """Callers that call without a pause, pure handlers and waiting ones, until they are told to end."""

    def __init__(
        self,
        clients: list[TurnClient],
        told: Told,
        seed: int,
        timeout_s: float = 10.0,
        resources: Sequence[str] = RESOURCES,
    ) -> None:
        self._clients = clients
        self._told = told
        self._chance = random.Random(seed)
        self._timeout_s = timeout_s
        self._resources = resources
        self._ending = False
        self._tasks = [asyncio.create_task(self._call()) for _ in range(24)]

    async def _call(self) -> None:
        while not self._ending:
            await self._told.call(
                self._chance.choice(self._clients),
                self._chance.choice(self._resources),
                self._chance.choice(["add", "add", "add_slowly"]),
                timeout_s=self._timeout_s,
            )

    async def until_answered(self, more: int) -> None:
        wanted = len(self._told.outcomes) + more
        while len(self._told.outcomes) < wanted:  # noqa: ASYNC110 - many places answer
            await asyncio.sleep(0.005)

    async def end(self) -> None:
        self._ending = True
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)


async def check(world: World, told: Told) -> None:
    stored, order = await read_log(world)
    assert told.wrong(stored, order) == []
    assert not told.unknown
    executed = sum(o.kind is OutcomeKind.EXECUTED for o in told.outcomes.values())
    assert executed == sum(o[0].kind is OutcomeKind.EXECUTED for o in stored.values())


@pytest.mark.scenario
async def test_an_instance_that_is_killed_loses_nothing(world: World) -> None:
    """G1, G3, G6: its resources go on at the other one, from the state that it left."""
    first = await Worker.start(world, "accounts-1", RESOURCES)
    second = await Worker.start(world, "accounts-2", RESOURCES)
    owners = Owners(await world.link(), world.names)
    await owners.move(dict.fromkeys(RESOURCES, first.writer))
    told = Told()
    traffic = Traffic([await world.client() for _ in range(3)], told, seed=1)
    async with asyncio.timeout(30):
        await traffic.until_answered(300)
        first.send(signal.SIGKILL)
        await owners.move(dict.fromkeys(RESOURCES, second.writer))
        await traffic.until_answered(300)
    await traffic.end()
    await check(world, told)


@pytest.mark.scenario
async def test_owners_that_change_and_writers_that_sleep_double_nothing(world: World) -> None:
    """G3, G5: a writer is stopped at any moment, between judging and storing too, and wakes up as nobody's owner."""
    workers = [await Worker.start(world, f"accounts-{n}", RESOURCES) for n in range(3)]
    owners = Owners(await world.link(), world.names)
    await owners.move(dict.fromkeys(RESOURCES, workers[0].writer))
    told, chance = Told(), random.Random(7)
    traffic = Traffic([await world.client() for _ in range(3)], told, seed=2)
    async with asyncio.timeout(60):
        for n in range(12):
            await traffic.until_answered(60)
            asleep, awake = workers[n % 3], workers[(n + 1) % 3]
            asleep.send(signal.SIGSTOP)
            some = chance.sample(RESOURCES, 4)
            await owners.move(dict.fromkeys(some, awake.writer))
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            asleep.send(signal.SIGCONT)
    await traffic.end()
    await check(world, told)


@pytest.mark.scenario
async def test_nats_that_is_killed_and_comes_back_loses_nothing() -> None:
    """G1, G3: what was on its way is stored or not, and everybody finds out which."""
    server = EmbeddedNats()
    with server:
        async with a_world(server) as world:
            workers = [await Worker.start(world, f"accounts-{n}", RESOURCES) for n in range(2)]
            owners = Owners(await world.link(), world.names)
            for n, resource in enumerate(RESOURCES):
                await owners.move({resource: workers[n % 2].writer})
            told = Told()
            traffic = Traffic([await world.client() for _ in range(2)], told, seed=3)
            async with asyncio.timeout(40):
                for _ in range(3):
                    await traffic.until_answered(200)
                    server.kill()
                    server.start()
                await traffic.until_answered(200)
            await traffic.end()
            await check(world, told)


@pytest.mark.scenario
async def test_callers_that_give_up_are_told_the_truth(world: World) -> None:
    """G4: with deadlines that are hardly to be met, and an active that sleeps now and then."""
    workers = [await Worker.start(world, f"accounts-{n}", RESOURCES) for n in range(2)]
    owners = Owners(await world.link(), world.names)
    await owners.move(dict.fromkeys(RESOURCES, workers[0].writer))
    told, chance = Told(), random.Random(9)
    traffic = Traffic([await world.client() for _ in range(3)], told, seed=4, timeout_s=0.02)
    async with asyncio.timeout(60):
        for n in range(6):
            await traffic.until_answered(60)
            workers[n % 2].send(signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.1, 0.4))
            if n % 2:
                await owners.move(dict.fromkeys(RESOURCES, workers[chance.randrange(2)].writer))
            workers[n % 2].send(signal.SIGCONT)
    await traffic.end()
    await check(world, told)
    assert {o.kind for o in told.outcomes.values()} >= {OutcomeKind.EXECUTED, OutcomeKind.CANCELLED}


async def test_a_copy_of_a_process_makes_its_original_stop(small_world: World) -> None:
    """R10: a second process claims the writer's name; the first one serves nothing more."""
    why: list[str] = []
    instance = await small_world.instance("accounts-1", ["A"], on_stopped=why.append)
    await give(small_world, instance, ["A"])
    await instance.log.claim("drawn-by-another-process")
    async with asyncio.timeout(5):
        await instance.host.until(lambda: not instance.host.serving)
    assert "another process runs as" in why[0]


@pytest.mark.parametrize("kind", ["own.2", "turn.w.1"])
async def test_an_instance_that_cannot_read_an_entry_serves_nothing_that_it_may_concern(
    small_world: World, kind: str
) -> None:
    """Of a newer version, or damaged: what the state is is not known here."""
    instance = await small_world.instance("accounts-1", ["A"])
    told: list[str] = []
    instance.on_unreadable = told.append
    await give(small_world, instance, ["A"])
    await store_unreadable(small_world, kind)
    async with asyncio.timeout(5):
        await instance.host.until(lambda: not instance.host.serving)
    assert told == ["A"]
    assert instance.unreadable == 1


async def test_an_entry_that_cannot_be_read_concerns_what_its_writer_may_write(
    small_world: World,
) -> None:
    """Another's resource is not known here any more, and one's own is served as before."""
    instance = await small_world.instance("accounts-1", ["A", "B"])
    other = await small_world.instance("accounts-2", ["B"])
    told: list[str] = []
    instance.on_unreadable = told.append
    await give(small_world, instance, ["A"])
    await give(small_world, other, ["B"])
    await store_unreadable(small_world, f"turn.{other.writer}.99")
    outcome = await Told().call(await small_world.client(), "A")
    assert outcome is not None
    assert told == ["B"]
    assert instance.active_resources == ["A"]


async def store_unreadable(world: World, kind: str) -> None:
    link = await world.link()
    subject = world.names.all.replace(">", kind)
    await link.store(subject, b"9 from the future", {"aegis-turn": "c.1"}, timeout_s=2)


async def test_a_resource_that_is_given_later_is_read_and_served(small_world: World) -> None:
    """G6: an instance that does not hold it reads what others did before it serves."""
    first = await small_world.instance("accounts-1", ["A", "B"])
    second = await small_world.instance("accounts-2", ["A"])
    await give(small_world, first, ["B"])
    client, told = await small_world.client(), Told()
    for _ in range(5):
        await told.call(client, "B")
    await give(small_world, second, ["B"])
    outcome = await told.call(client, "B")
    assert outcome is not None
    assert b'"count":6' in outcome.body


async def test_strangers_in_the_log_change_nothing(small_world: World) -> None:
    """Whoever may write to the log's subjects can put anything there: it is named, and skipped."""
    instance = await small_world.instance("accounts-1", ["A"])
    link = await small_world.link()
    for kind in (
        "own.x",
        "turn.w.1",
        "gate.a.b",
        "huh",
        "at.A.try.c.1",
        "end.A.c.1",
        "end.=ZZ.c.1",
    ):
        await link.store(small_world.names.all.replace(">", kind), b"\xff", {}, timeout_s=2)
    await give(small_world, instance, ["A"])
    told = Told()
    outcome = await told.call(await small_world.client(), "A")
    assert outcome is not None
    assert outcome.kind is OutcomeKind.EXECUTED


async def test_a_turn_fits_into_a_message_however_small_the_server_wants_it() -> None:
    """G1: what arrives together is parted; payloads are left out before an outcome is."""
    with EmbeddedNats(max_payload=10_000) as server:
        async with a_world(server) as world:
            await give(world, await world.instance("accounts-1", RESOURCES), RESOURCES)
            client, told = await world.client(), Told()
            payload = b'{"n":1,"more":"' + b"x" * 2_000 + b'"}'
            await asyncio.gather(
                *(told.call_with(client, r, "add", payload, timeout_s=10.0) for r in RESOURCES * 20)
            )
            await check(world, told)
            assert all(o.kind is OutcomeKind.EXECUTED for o in told.outcomes.values())


async def test_of_two_processes_of_one_identity_the_last_to_claim_goes_on(
    small_world: World,
) -> None:
    """G3, G5, G6: it takes over what the other one stored under their name; the other one stops."""
    why: list[str] = []
    first = await small_world.instance("accounts-1", ["A"], incarnation="x", on_stopped=why.append)
    await give(small_world, first, ["A"])
    client, told = await small_world.client(), Told()
    for _ in range(5):
        await told.call(client, "A")
    late: list[str] = []
    second = await small_world.instance(
        "accounts-1", ["A"], incarnation="x", on_stopped=late.append
    )
    async with asyncio.timeout(10):
        await first.host.until(lambda: first.host.has_stopped)
        await second.host.until(lambda: "A" in second.host.serving)
        outcome = await told.call(client, "A")
    assert outcome is not None
    assert b'"count":6' in outcome.body
    assert "another process runs as accounts-1" in why[0]
    assert late == []
    await check(small_world, told)
