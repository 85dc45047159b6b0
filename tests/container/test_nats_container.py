"""The server's own checks, on which the guarantees rest, against the NATS version that `deploy/` names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import nats
import pytest
from aegis_control.infrastructure.nats_streams import NatsStreams, StreamSettings
from aegis_sdk.contract.envelope import MSG_ID, OUTCOME
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.nats.jetstream import JetStream
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError

from tests.container.support import NATS_IMAGE, NatsContainer

SUBJECTS = Subjects("ct")
SERVICE = "accounts"
EXPECTED_SEQ = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
ROLLUP = {"Nats-Rollup": "sub"}


@dataclass(slots=True)
class Bus:
    """A connection, with the service's streams as control makes them."""

    client: Client
    stream: JetStreamContext

    async def fence(self, resource: str, after_seq: int) -> int:
        ack = await self.stream.publish(
            SUBJECTS.fence(SERVICE, resource),
            b"{}",
            headers=ROLLUP | {EXPECTED_SEQ: str(after_seq)},
        )
        return ack.seq

    async def commit(self, resource: str, request_id: str, *, fence_seq: int, body: bytes) -> int:
        ack = await self.stream.publish(
            SUBJECTS.outcome(SERVICE, resource, request_id),
            body,
            headers={
                OUTCOME: "executed",
                EXPECTED_SEQ: str(fence_seq),
                EXPECTED_SUBJECT: SUBJECTS.fence(SERVICE, resource),
            },
        )
        return ack.seq


@pytest.fixture
async def bus(nats_container: NatsContainer) -> AsyncIterator[Bus]:
    async with _connected(nats_container.url) as connected:
        yield connected


class _connected:
    """A Bus as an async context manager."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Bus:
        self._client = await nats.connect(self._url, connect_timeout=5, allow_reconnect=False)
        link = await Link.open(Server(self._url), name="control", timeout_s=5)
        streams = NatsStreams(JetStream(link), SUBJECTS, StreamSettings())
        await streams.provision_common()
        await streams.provision(SERVICE)
        await link.close()
        return Bus(self._client, self._client.jetstream(timeout=5))

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


async def test_the_server_is_the_version_that_we_name(bus: Bus) -> None:
    version = bus.client.connected_server_version
    assert f"nats:{version.major}.{version.minor}.{version.patch}" == NATS_IMAGE


async def test_a_request_comes_to_the_groups_consumer(bus: Bus) -> None:
    """JetStream stores, delivers and forgets what is acknowledged."""
    await bus.stream.publish(SUBJECTS.request(SERVICE, None), b"ping", headers={MSG_ID: "c.1"})
    stream = SUBJECTS.request_stream(SERVICE)
    subscription = await bus.stream.pull_subscribe_bind("any", stream)
    [message] = await subscription.fetch(1, timeout=5)
    await message.ack_sync()
    assert message.data == b"ping"
    info = await bus.stream.consumer_info(stream, "any")
    assert (info.num_pending, info.num_ack_pending) == (0, 0)


async def test_an_outcome_is_stored_once(bus: Bus) -> None:
    """G2: the second writer is refused with 10077, whoever it is."""
    fence_seq = await bus.fence("once", 0)
    await bus.commit("once", "c.1", fence_seq=fence_seq, body=b'"first"')
    with pytest.raises(APIError) as refused:
        await bus.commit("once", "c.1", fence_seq=fence_seq, body=b'"second"')
    assert refused.value.err_code == 10077
    stored = await bus.stream.get_last_msg(
        SUBJECTS.journal_stream(SERVICE), SUBJECTS.outcome(SERVICE, "once", "c.1")
    )
    assert stored.data == b'"first"'


async def test_of_racing_writers_one_wins(bus: Bus) -> None:
    """G2: twenty races of an outcome and a cancel."""
    fence_seq = await bus.fence("race", 0)
    for n in range(20):
        results = await asyncio.gather(
            *(
                bus.commit("race", f"c.{n}", fence_seq=fence_seq, body=body)
                for body in (b'"executed"', b'"cancelled"')
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(result, int) for result in results) == 1


async def test_an_older_fence_is_refused(bus: Bus) -> None:
    """G5: after a newer fence the old active's commit gets 10071 and nothing is stored."""
    old = await bus.fence("moved", 0)
    new = await bus.fence("moved", old)
    with pytest.raises(APIError) as refused:
        await bus.commit("moved", "c.1", fence_seq=old, body=b"{}")
    assert refused.value.err_code == 10071
    await bus.commit("moved", "c.1", fence_seq=new, body=b"{}")


async def test_two_controls_can_not_write_the_same_fence(bus: Bus) -> None:
    """G5: a fence expects the one before it."""
    first = await bus.fence("two", 0)
    await bus.fence("two", first)
    with pytest.raises(APIError) as refused:
        await bus.fence("two", first)
    assert refused.value.err_code == 10071


async def test_the_caller_hears_of_a_stored_outcome_and_of_no_other(bus: Bus) -> None:
    """G8: the server republishes the outcome to the caller's own subject, once."""
    replies = await bus.client.subscribe(SUBJECTS.reply("caller7.*"))
    await bus.client.flush()
    fence_seq = await bus.fence("told", 0)
    await bus.commit("told", "caller7.1", fence_seq=fence_seq, body=b'"yes"')
    with pytest.raises(APIError):
        await bus.commit("told", "caller7.1", fence_seq=fence_seq, body=b'"no"')
    await bus.commit("told", "caller7.2", fence_seq=fence_seq, body=b'"next"')
    heard = [await replies.next_msg(timeout=5), await replies.next_msg(timeout=5)]
    assert [(message.subject, message.data) for message in heard] == [
        (SUBJECTS.reply("caller7.1"), b'"yes"'),
        (SUBJECTS.reply("caller7.2"), b'"next"'),
    ]
    assert (heard[0].headers or {})[OUTCOME] == "executed"


async def test_what_was_accepted_outlives_a_killed_server(nats_container: NatsContainer) -> None:
    """G1, G2, G5: request, outcome and fence are there after kill -9, and still exclude a second."""
    async with _connected(nats_container.url) as bus:
        fence_seq = await bus.fence("kept", 0)
        request = await bus.stream.publish(SUBJECTS.request(SERVICE, "kept"), b"kept")
        await bus.commit("kept", "c.1", fence_seq=fence_seq, body=b'"kept"')
    await asyncio.to_thread(nats_container.kill_and_start)
    async with _connected(nats_container.url) as bus:
        stored = await bus.stream.get_msg(SUBJECTS.request_stream(SERVICE), request.seq)
        assert stored.data == b"kept"
        with pytest.raises(APIError) as refused:
            await bus.commit("kept", "c.1", fence_seq=fence_seq, body=b'"again"')
        assert refused.value.err_code == 10077
        with pytest.raises(APIError) as stale:
            await bus.commit("kept", "c.2", fence_seq=fence_seq - 1, body=b"{}")
        assert stale.value.err_code == 10071
