"""The streams that control provisions, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aegis_control.application.ports import ProvisionFailed
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_streams import NatsStreams, StreamSettings
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.nats.jetstream import JetStream
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from nats.aio.msg import Msg
from nats.js.errors import APIError

from tests.integration.control.support import SERVICE, Broker


@pytest.fixture
async def link(server: EmbeddedNats) -> AsyncIterator[JetStream]:
    link = await Link.open(Server(server.url), name="test")
    yield JetStream(link)
    await link.close()


def streams(link: JetStream, prefix: str, **settings: Any) -> NatsStreams:
    return NatsStreams(link, Subjects(prefix), StreamSettings(**settings))


async def test_provisioning_again_writes_nothing(
    link: JetStream, prefix: str, broker: Broker
) -> None:
    seen: list[str] = []

    async def note(message: Msg) -> None:
        seen.append(message.subject)

    async def all_told(marker: str) -> None:
        """Something that does raise an advisory, to know that all before it have come."""
        await broker.client.jetstream().add_stream(name=marker, subjects=[f"{marker}.x"])
        while not any(subject.endswith(marker) for subject in seen):
            await broker.client.flush()

    await broker.client.subscribe("$JS.EVENT.ADVISORY.>", cb=note)
    await streams(link, prefix).provision_common()
    await streams(link, prefix).provision(SERVICE)
    await all_told(f"{prefix}-first")
    seen.clear()
    await streams(link, prefix).provision_common()
    await streams(link, prefix).provision(SERVICE)
    await all_told(f"{prefix}-last")
    assert [subject for subject in seen if f"{prefix.upper()}_" in subject] == []


async def test_what_differs_is_mended_and_what_others_added_stays(
    link: JetStream, prefix: str, broker: Broker
) -> None:
    await streams(link, prefix).provision(SERVICE)
    name = broker.subjects.journal_stream(SERVICE)
    info = await broker.api(f"STREAM.INFO.{name}")
    spoiled = info["config"] | {"max_msgs_per_subject": 5, "description": "ours"}
    spoiled.pop("republish")
    answer = await broker.api(f"STREAM.UPDATE.{name}", spoiled)
    assert "error" not in answer, answer
    await streams(link, prefix, ack_wait_s=3.0, requests_max_msgs=50).provision(SERVICE)
    config = (await broker.api(f"STREAM.INFO.{name}"))["config"]
    assert config["max_msgs_per_subject"] == 1
    assert config["republish"]["src"] == LogSubjects(broker.subjects, SERVICE).republish_source
    assert config["description"] == "ours"
    requests = broker.subjects.request_stream(SERVICE)
    assert (await broker.api(f"STREAM.INFO.{requests}"))["config"]["max_msgs"] == 50
    group = await broker.api(f"CONSUMER.INFO.{requests}.any")
    assert group["config"]["ack_wait"] == 3_000_000_000


async def test_what_can_not_be_mended_is_said_with_setting_and_value(
    link: JetStream, prefix: str, broker: Broker
) -> None:
    name = broker.subjects.journal_stream(SERVICE)
    config = {
        "name": name,
        "subjects": [broker.subjects.journal(SERVICE)],
        "storage": "memory",
        "retention": "limits",
        "num_replicas": 1,
    }
    assert "error" not in await broker.api(f"STREAM.CREATE.{name}", config)
    with pytest.raises(ProvisionFailed, match=f"{name}.*storage is memory, needs file"):
        await streams(link, prefix).provision(SERVICE)


async def test_an_outcome_is_stored_once_and_handed_to_the_caller(
    link: JetStream, prefix: str, broker: Broker
) -> None:
    """G2: the server itself refuses the second one."""
    await streams(link, prefix).provision(SERVICE)
    replies: list[bytes] = []

    async def note(message: Msg) -> None:
        replies.append(message.data)

    await broker.client.subscribe(broker.subjects.reply("caller.1"), cb=note)
    outcome = LogSubjects(broker.subjects, SERVICE).single("R1", "caller.1")
    js = broker.client.jetstream()
    await js.publish(outcome, b"first", headers={"Nats-TTL": "1h"})
    with pytest.raises(APIError) as caught:
        await js.publish(outcome, b"second")
    assert caught.value.err_code == 10077
    await broker.client.flush()
    assert replies == [b"first"]


async def test_a_full_request_stream_refuses_and_forgets_only_what_is_done(
    link: JetStream, prefix: str, broker: Broker
) -> None:
    """G1: room is made from requests that have an outcome, never from those that wait."""
    some = streams(link, prefix, requests_max_msgs=10)
    await some.provision(SERVICE)
    js = broker.client.jetstream()
    subject, name = broker.subjects.request(SERVICE, None), broker.subjects.request_stream(SERVICE)
    for _ in range(10):
        await js.publish(subject, b"{}")
    with pytest.raises(APIError):
        await js.publish(subject, b"{}")
    assert await some.remove_settled(SERVICE, done_seq=0, held=set()) == 0
    pull = await js.pull_subscribe_bind(consumer="any", stream=name)
    for message in (await pull.fetch(10, timeout=5))[:6]:
        await message.ack_sync()
    assert await some.remove_settled(SERVICE, done_seq=0, held=set()) == 6
    await js.publish(subject, b"{}")
    info = await broker.api(f"STREAM.INFO.{name}")
    assert info["state"]["first_seq"] == 7


async def test_stored_group_requests_go_when_they_are_done_whatever_instances_tell_of_resources(
    link: JetStream, prefix: str, broker: Broker
) -> None:
    """G1: in a service without resources nobody tells anything; a request that waits for its owner stops it."""
    some = streams(link, prefix)
    await some.provision(SERVICE)
    js = broker.client.jetstream()
    group, held, later = (broker.subjects.request(SERVICE, r) for r in (None, "R1", "LATER"))
    pull = await js.pull_subscribe_bind(
        consumer="any", stream=broker.subjects.request_stream(SERVICE)
    )

    async def done(count: int) -> None:
        for _ in range(count):
            await js.publish(group, b"{}")
        for message in await pull.fetch(count, timeout=5):
            await message.ack_sync()

    await done(3)
    assert await some.remove_settled(SERVICE, done_seq=0, held=set()) == 3
    await done(2)
    await js.publish(later, b"{}")
    await done(2)
    assert await some.remove_settled(SERVICE, done_seq=0, held={"R1"}) == 2
    await js.purge_stream(broker.subjects.request_stream(SERVICE))
    await js.publish(held, b"{}")
    await done(1)
    assert await some.remove_settled(SERVICE, done_seq=0, held={"R1"}) == 0
    assert await some.remove_settled(SERVICE, done_seq=1 << 40, held={"R1"}) == 2


async def test_depths_count_what_waits_and_what_is_in_work(
    link: JetStream, prefix: str, broker: Broker
) -> None:
    some = streams(link, prefix)
    await some.provision(SERVICE)
    js = broker.client.jetstream()
    for _ in range(3):
        await js.publish(broker.subjects.request(SERVICE, None), b"{}")
    name = broker.subjects.request_stream(SERVICE)
    pull = await js.pull_subscribe_bind(consumer="any", stream=name)
    await pull.fetch(1, timeout=5)
    assert await some.depths(SERVICE) == {"any": 3, "at": 0}


async def test_the_buckets_open_with_any_client(
    link: JetStream, prefix: str, broker: Broker
) -> None:
    await streams(link, prefix).provision_common()
    bucket = await broker.client.jetstream().key_value(broker.subjects.leases_bucket)
    await bucket.put("a.b", json.dumps({"x": 1}).encode())
    assert (await bucket.get("a.b")).value == b'{"x": 1}'
