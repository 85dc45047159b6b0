"""The promises on three NATS nodes (R3): kills of the active and of the node that leads the journal."""

from __future__ import annotations

import asyncio
import time

import aegis_sdk
import pytest
from aegis_control.infrastructure.nats_cluster import NatsCluster
from aegis_sdk.contract.envelope import OutcomeKind

from tests.scenarios.ledger import Methods
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
