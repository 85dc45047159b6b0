"""Control on three replicating nodes."""

from __future__ import annotations

import asyncio
import time

import nats
import pytest
from aegis_control.infrastructure.nats_cluster import NatsCluster
from aegis_sdk.contract.control import Role

from tests.integration.control.support import SERVICE, Broker, Instance, control, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


async def test_leases_and_fences_survive_the_loss_of_a_node(prefix: str) -> None:
    """G1, G5: with R3 one node may die; control goes on when the streams have elected."""
    names = [f"R{i}" for i in range(50)]
    with NatsCluster() as cluster:
        async with control(
            cluster.url, prefix, replicas=3, heartbeat_timeout_s=2.0, leader_timeout_s=3.0
        ):
            client = await nats.connect(cluster.urls, max_reconnect_attempts=-1)
            broker = Broker(client, prefix)
            a, b = Instance(cluster.url, prefix, "a"), Instance(cluster.url, prefix, "b")
            await a.connect()
            await b.connect()
            assert (await a.register(Role.ACTIVE, names)).ok
            assert (await b.register(Role.STANDBY, names)).ok
            journal = broker.subjects.journal_stream(SERVICE)
            assert (await broker.api(f"STREAM.INFO.{journal}"))["config"]["num_replicas"] == 3

            a.fall_silent()
            await broker.until_owner("b 2 held", "R49")

            victim = await asyncio.to_thread(cluster.stream_leader, journal)
            assert victim is not None
            victim.kill()
            before = time.monotonic()

            async def settled() -> bool:
                try:
                    return await broker.owner("R0") == "b 2 held"
                except (nats.errors.Error, nats.js.errors.Error, OSError):
                    return False

            await until(settled, "R0 readable again", deadline_s=60)
            outage_s = time.monotonic() - before
            print(f"\nleases and fences readable {outage_s:.1f} s after kill -9")  # noqa: T201

            async def registered() -> bool:
                try:
                    return (await a.register(Role.STANDBY, names, returning=True)).ok
                except (TimeoutError, nats.errors.Error):
                    return False

            await until(registered, "a stands by again", deadline_s=60)
            b.fall_silent()

            async def moved() -> bool:
                try:
                    return await broker.owner("R0") == "a 3 held"
                except (nats.errors.Error, nats.js.errors.Error):
                    return False

            await until(moved, "a took over", deadline_s=60)
            await a.close()
            await b.close()
            await client.close()
