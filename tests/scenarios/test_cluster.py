"""The promises on three NATS nodes (R3): kills of the active and of the node that leads the journal."""

from __future__ import annotations

import asyncio
import time

import aegis_sdk
import pytest
from aegis_control.infrastructure.nats_cluster import NatsCluster
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.contract.turns.entries import TURN

from tests.scenarios.ledger import Booking, Methods
from tests.scenarios.system import SUBJECTS, Load, new_service, running_system

PAIR = {"A": "auto", "B": "auto"}


@pytest.mark.cluster
@pytest.mark.timeout(180)
async def test_kills_on_a_cluster_lose_nothing_and_show_no_error() -> None:
    """G1, G3, G5, G6, G7, G8: the active and the journal's leader are killed under load."""
    async with running_system(nodes=3) as system:
        assert isinstance(system.nats, NatsCluster)
        service = new_service()
        methods = Methods(service)
        one = await system.start_ledger(service, PAIR, instance_id="one")
        await system.start_ledger(service, PAIR, instance_id="two")
        async with aegis_sdk.connect(system.url) as aegis:
            load = Load(aegis, methods, timeout_s=60.0)
            load.start(*PAIR)
            await load.wait_done(50, timeout_s=60)
            await one.kill()
            await load.wait_done(load.done + 50, timeout_s=60)
            leader = system.nats.stream_leader(SUBJECTS.journal_stream(service))
            assert leader is not None
            leader.kill()
            await load.wait_done(load.done + 50, timeout_s=90)
            await load.stop()
            assert load.errors == []
        await asyncio.to_thread(leader.start)
        await asyncio.to_thread(system.nats.wait_ready)
        outcomes = await system.journal(service)
        assert len(outcomes) == load.done
        assert all(outcome.kind is OutcomeKind.EXECUTED for outcome in outcomes.values())


HOT_CALLERS, HURRIED = 48, 8
"""How many ask the hot resource at once, and how many of them soon cancel."""


class Hot:
    """Callers of one resource that remember what they were told."""

    def __init__(self, aegis: aegis_sdk.Aegis, methods: Methods) -> None:
        self._aegis = aegis
        self._methods = methods
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.told: list[int] = []
        self.cancelled = 0

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._call(n, 0.02 if n < HURRIED else 60.0))
            for n in range(HOT_CALLERS)
        ]

    async def stop(self) -> None:
        """Raises what a caller met."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Returns when so many more were answered."""
        wanted = len(self.told) + count
        async with asyncio.timeout(60):
            while len(self.told) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _call(self, caller: int, timeout_s: float) -> None:
        mine = 0
        while not self._stopping:
            booking = Booking(op=f"{caller}")
            try:
                count = await self._aegis.request(
                    self._methods.tally, booking, resource="A", timeout_s=timeout_s
                )
            except aegis_sdk.NotExecuted:
                self.cancelled += 1
                assert timeout_s < 1.0
                await asyncio.sleep(0.05)
                continue
            assert count > mine, "a later request took effect before an earlier one"
            mine = count
            self.told.append(count)


@pytest.mark.cluster
@pytest.mark.timeout(180)
async def test_kills_amid_batches_of_a_hot_resource_lose_nothing_and_double_nothing() -> None:
    """G2, G3, G4, G5, G6, G7: many wait for one resource, some cancel, and its active is killed."""
    async with running_system(nodes=3) as system:
        service = new_service()
        running = [
            await system.start_ledger(service, {"A": "auto"}, instance_id=name)
            for name in ("one", "two")
        ]
        async with aegis_sdk.connect(system.url) as aegis:
            hot = Hot(aegis, Methods(service))
            hot.start()
            for n in range(3):
                await hot.more(300)
                await running.pop(0).kill()
                await hot.more(300)
                name = f"next-{n}"
                running.append(await system.start_ledger(service, {"A": "auto"}, instance_id=name))
            await hot.stop()
        assert sorted(hot.told) == list(range(1, len(hot.told) + 1))
        assert hot.cancelled
        outcomes = (await system.journal(service)).values()
        executed = [outcome for outcome in outcomes if outcome.kind is OutcomeKind.EXECUTED]
        assert [int(outcome.body) for outcome in executed] == sorted(hot.told)
        numbers = [outcome.number for outcome in executed]
        assert numbers == sorted(set(numbers))
        messages = await system.outcome_messages(service)
        turns = [message for message in messages if TURN in (message.headers or {})]
        assert len(turns) < len(executed) / 2


@pytest.mark.cluster
@pytest.mark.timeout(180)
async def test_a_cluster_that_lost_its_majority_serves_soon_after_it_is_back() -> None:
    """G1, G3, G8: two nodes of three are killed, so that nobody leads; what is asked meanwhile is dropped."""
    async with running_system(nodes=3) as system:
        assert isinstance(system.nats, NatsCluster)
        service = new_service()
        methods = Methods(service)
        await system.start_ledger(service, PAIR, instance_id="one")
        await system.start_ledger(service, PAIR, instance_id="two")
        async with aegis_sdk.connect(system.url) as aegis:
            load = Load(aegis, methods, timeout_s=60.0)
            load.start(*PAIR)
            await load.wait_done(50, timeout_s=60)
            down = system.nats.nodes[:2]
            for node in down:
                node.kill()
            await asyncio.sleep(1.0)  # long enough that every call meets it
            await asyncio.gather(*(asyncio.to_thread(node.start) for node in down))
            back_s = time.monotonic()
            told = {resource: len(booked) for resource, booked in load.booked.items()}
            async with asyncio.timeout(60):
                while any(len(load.booked[name]) <= told[name] for name in PAIR):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            # An election takes 4 to 5 s; 7.4 s in all here, 9.2 s when each dropped call cost 5 s.
            assert time.monotonic() - back_s < 15.0
            await load.wait_done(load.done + 50, timeout_s=60)
            await load.stop()
            assert load.errors == []
        await asyncio.to_thread(system.nats.wait_ready)
        assert len(await system.journal(service)) == load.done
