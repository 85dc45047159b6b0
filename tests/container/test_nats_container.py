"""The server's own checks, on which the guarantees rest, against the NATS version that `deploy/` names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import nats
import pytest
from aegis_control.infrastructure.nats_streams import NatsStreams, StreamSettings
from aegis_sdk.contract.envelope import MSG_ID
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import TURN
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.nats.jetstream import JetStream
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import APIError

from tests.container.support import NATS_IMAGE, NatsContainer

SUBJECTS = Subjects("ct")
SERVICE = "accounts"
NAMES = LogSubjects(SUBJECTS, SERVICE)
EXPECTED_SEQ = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
ROLLUP = {"Nats-Rollup": "sub"}


@dataclass(slots=True)
class Bus:
    """A connection, with the service's streams as control makes them."""

    client: Client
    stream: JetStreamContext

    async def gate(self, writer: str) -> int:
        ack = await self.stream.publish(NAMES.gate(writer), b"", headers=ROLLUP)
        return ack.seq

    async def commit(self, writer: str, request_id: str, *, gate: int, body: bytes) -> int:
        ack = await self.stream.publish(
            NAMES.single("ACC-1", request_id),
            body,
            headers={
                TURN: request_id,
                EXPECTED_SEQ: str(gate),
                EXPECTED_SUBJECT: NAMES.gate(writer),
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
    gate = await bus.gate("once")
    await bus.commit("once", "once.1", gate=gate, body=b'"first"')
    with pytest.raises(APIError) as refused:
        await bus.commit("once", "once.1", gate=gate, body=b'"second"')
    assert refused.value.err_code == 10077
    stored = await bus.stream.get_last_msg(
        SUBJECTS.journal_stream(SERVICE), NAMES.single("ACC-1", "once.1")
    )
    assert stored.data == b'"first"'


async def test_of_racing_writers_one_wins(bus: Bus) -> None:
    """G2: twenty races of an outcome and a cancel."""
    gate = await bus.gate("race")
    for n in range(20):
        results = await asyncio.gather(
            *(
                bus.commit("race", f"race.{n}", gate=gate, body=body)
                for body in (b'"executed"', b'"cancelled"')
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(result, int) for result in results) == 1


async def test_an_older_gate_is_refused(bus: Bus) -> None:
    """G5: behind a newer gate the old owner's commit gets 10071 and nothing is stored."""
    old = await bus.gate("moved")
    new = await bus.gate("moved")
    with pytest.raises(APIError) as refused:
        await bus.commit("moved", "moved.1", gate=old, body=b"{}")
    assert refused.value.err_code == 10071
    await bus.commit("moved", "moved.1", gate=new, body=b"{}")


async def test_two_controls_can_not_write_the_same_ownership_entry(bus: Bus) -> None:
    """G5: its number is taken."""
    await bus.stream.publish(NAMES.own(1), b"{}")
    with pytest.raises(APIError) as refused:
        await bus.stream.publish(NAMES.own(1), b"{}")
    assert refused.value.err_code == 10077


async def test_the_caller_hears_of_a_stored_outcome_and_of_no_other(bus: Bus) -> None:
    """G8: the server republishes the outcome to the caller's own subject, once."""
    replies = await bus.client.subscribe(SUBJECTS.reply("caller7.*"))
    await bus.client.flush()
    gate = await bus.gate("told")
    await bus.commit("told", "caller7.1", gate=gate, body=b'"yes"')
    with pytest.raises(APIError):
        await bus.commit("told", "caller7.1", gate=gate, body=b'"no"')
    await bus.commit("told", "caller7.2", gate=gate, body=b'"next"')
    heard = [await replies.next_msg(timeout=5), await replies.next_msg(timeout=5)]
    assert [(message.subject, message.data) for message in heard] == [
        (SUBJECTS.reply("caller7.1"), b'"yes"'),
        (SUBJECTS.reply("caller7.2"), b'"next"'),
    ]
    assert (heard[0].headers or {})[TURN] == "caller7.1"


async def test_what_was_accepted_outlives_a_killed_server(nats_container: NatsContainer) -> None:
    """G1, G2, G5: request, outcome and gate are there after kill -9, and still exclude a second."""
    async with _connected(nats_container.url) as bus:
        gate = await bus.gate("kept")
        request = await bus.stream.publish(SUBJECTS.request(SERVICE, "kept"), b"kept")
        await bus.commit("kept", "kept.1", gate=gate, body=b'"kept"')
    await asyncio.to_thread(nats_container.kill_and_start)
    async with _connected(nats_container.url) as bus:
        stored = await bus.stream.get_msg(SUBJECTS.request_stream(SERVICE), request.seq)
        assert stored.data == b"kept"
        with pytest.raises(APIError) as refused:
            await bus.commit("kept", "kept.1", gate=gate, body=b'"again"')
        assert refused.value.err_code == 10077
        with pytest.raises(APIError) as stale:
            await bus.commit("kept", "kept.2", gate=gate - 1, body=b"{}")
        assert stale.value.err_code == 10071
