"""Instances answer the NATS micro protocol, asked with plain requests as the ecosystem's tools do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import nats.errors
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import HandlerFailed, Role
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.micro.service import ServiceInfo, ServiceStats

from tests.integration.control.support import control
from tests.integration.metrics.support import BOOK, ECHO, serving


@pytest.fixture
async def client(server: EmbeddedNats) -> AsyncIterator[Client]:
    made = await nats.connect(server.url)
    yield made
    await made.close()


async def ask(client: Client, subject: str) -> Any:
    return json.loads((await client.request(subject, timeout=2.0)).data)


async def ask_all(client: Client, subject: str, prefix: str, expected: int) -> list[Any]:
    """The answers of this test's instances; others may serve on the same server."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    await client.publish(subject, reply=inbox)
    found: list[Any] = []
    async with asyncio.timeout(5):
        while len(found) < expected:
            answer = json.loads((await answers.next_msg(timeout=5)).data)
            if answer["metadata"]["aegis.prefix"] == prefix:
                found.append(answer)
    with pytest.raises(nats.errors.TimeoutError):
        await answers.next_msg(timeout=0.1)
    return found


async def test_all_instances_answer_a_ping_by_their_ids(
    server: EmbeddedNats, prefix: str, client: Client
) -> None:
    async with (
        control(server.url, prefix),
        serving(server.url, prefix, instance_id="i-1"),
        serving(server.url, prefix, instance_id="i-2"),
    ):
        for subject in ("$SRV.PING", "$SRV.PING.accounts"):
            told = await ask_all(client, subject, prefix, 2)
            assert {one["id"] for one in told} == {"i-1", "i-2"}
        told = await ask(client, "$SRV.PING.accounts.i-2")
        assert (told["type"], told["name"], told["id"], told["version"]) == (
            "io.nats.micro.v1.ping_response",
            "accounts",
            "i-2",
            "1.4.2",
        )
    with pytest.raises(NoRespondersError):
        await ask(client, "$SRV.PING.accounts.i-2")


async def test_info_lists_the_methods_and_where_their_requests_go(
    server: EmbeddedNats, prefix: str, client: Client
) -> None:
    async with control(server.url, prefix), serving(server.url, prefix, instance_id="i-1"):
        told = await ask(client, "$SRV.INFO.accounts.i-1")
        info = ServiceInfo.from_dict(told)  # as the library reads it
        assert told["type"] == "io.nats.micro.v1.info_response"
        assert {(e.name, e.subject, e.queue_group) for e in info.endpoints} == {
            ("book", f"{prefix}.req.accounts.at.*", ""),
            ("echo", f"{prefix}.req.accounts.any", "any"),
        }
        assert info.endpoints[0].metadata == {"aegis.route": "at"}


async def test_stats_count_what_the_instance_did(
    server: EmbeddedNats, prefix: str, client: Client
) -> None:
    async with (
        control(server.url, prefix),
        serving(server.url, prefix, instance_id="i-1", resources={"R1": Role.ACTIVE}) as (aegis, _),
    ):
        await aegis.request(BOOK, 1, resource="R1")
        await aegis.request(ECHO, "hi")
        with pytest.raises(HandlerFailed):
            await aegis.request(ECHO, "boom")
        told = await ask(client, "$SRV.STATS.accounts.i-1")
        stats = ServiceStats.from_dict(told)
        counts = {e.name: (e.num_requests, e.num_errors) for e in stats.endpoints}
        assert counts == {"book": (1, 0), "echo": (2, 1)}
        for endpoint in stats.endpoints:
            assert endpoint.processing_time > 0
            assert endpoint.average_processing_time <= endpoint.processing_time
        assert told["started"].endswith("Z")
