"""The promises of control's ports, kept by the adapters on NATS and by the fakes of the unit tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aegis_control.application.ports import (
    Bucket,
    NotWritten,
    OwnLog,
    Write,
)
from aegis_control.domain.leading.owning import StoredGate, StoredMoves
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_buckets import NatsBucket
from aegis_control.infrastructure.nats_own import NatsOwnLog
from aegis_control.infrastructure.nats_streams import NatsStreams, StreamSettings
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.nats.calls import ask
from aegis_sdk.nats.jetstream import JetStream
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from aegis_sdk.nats.wire import Message

from tests.unit.control.support import MemoryBucket, MemoryOwnLog

SERVICE = "accounts"


@dataclass
class Store:
    bucket: Bucket
    log: OwnLog


@pytest.fixture(params=["memory", "nats"])
async def store(
    request: pytest.FixtureRequest, server: EmbeddedNats, prefix: str
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield Store(MemoryBucket(), MemoryOwnLog())
        return
    link = JetStream(await Link.open(Server(server.url), name="test"))
    subjects = Subjects(prefix)
    streams = NatsStreams(link, subjects, StreamSettings())
    await streams.provision_common()
    await streams.provision(SERVICE)
    yield Store(NatsBucket(link, subjects.leases_bucket), NatsOwnLog(link, subjects))
    await link.link.close()


async def test_a_question_that_is_cancelled_as_its_answer_comes_is_cancelled(
    server: EmbeddedNats, prefix: str
) -> None:
    """The library's own deadline would swallow the cancellation before Python 3.12: a term that never ends."""
    link = await Link.open(Server(server.url), name="test")
    await link.subscribe(prefix, lambda _: None)  # somebody who never answers
    asking = asyncio.create_task(ask(link, prefix, b"", timeout_s=5.0))
    while not link._waiting:  # noqa: ASYNC110 - the link has no event for it
        await asyncio.sleep(0)
    [(waiting, _, _)] = link._waiting.values()
    waiting.set_result(Message(prefix, "", b"", b""))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await link.close()


async def test_a_key_is_written_only_at_the_revision_that_was_read(store: Store) -> None:
    [first] = await store.bucket.write([Write("s.a", b"1", 0)])
    assert isinstance(first, int)
    assert await store.bucket.write([Write("s.a", b"2", 0)]) == [NotWritten.CONFLICT]
    [second] = await store.bucket.write([Write("s.a", b"2", first)])
    assert isinstance(second, int)
    assert second > first
    entry = await store.bucket.read("s.a")
    assert entry is not None
    assert (entry.key, entry.value, entry.revision) == ("s.a", b"2", second)
    assert await store.bucket.read("s.b") is None


async def test_many_writes_fail_one_by_one(store: Store) -> None:
    await store.bucket.write([Write("k.1", b"", 0)])
    results = await store.bucket.write([Write(f"k.{i}", b"x", 0) for i in range(3)])
    assert [isinstance(result, int) for result in results] == [True, False, True]


async def test_load_gives_the_last_of_each_key_and_later_only_what_is_new(store: Store) -> None:
    assert await store.bucket.load() == []
    revisions = await store.bucket.write([Write(f"k.{i}", b"%d" % i, 0) for i in range(2_500)])
    loaded = await store.bucket.load()
    assert [entry.key for entry in loaded] == [f"k.{i}" for i in range(2_500)]
    last = revisions[-1]
    assert isinstance(last, int)
    assert await store.bucket.load(after=last) == []
    assert isinstance(revisions[7], int)
    [changed] = await store.bucket.write([Write("k.7", b"new", revisions[7])])
    [entry] = await store.bucket.load(after=last)
    assert (entry.key, entry.value, entry.revision) == ("k.7", b"new", changed)


async def test_a_deleted_key_stays_known_until_it_is_written_again(store: Store) -> None:
    [first] = await store.bucket.write([Write("k", b"1", 0)])
    assert isinstance(first, int)
    assert await store.bucket.delete("k", first + 99) is NotWritten.CONFLICT
    gone = await store.bucket.delete("k", first)
    assert isinstance(gone, int)
    entry = await store.bucket.read("k")
    assert entry is not None
    assert (entry.value, entry.revision) == (None, gone)
    assert [entry.value for entry in await store.bucket.load()] == [None]
    [again] = await store.bucket.write([Write("k", b"2", gone)])
    assert isinstance(again, int)


async def test_an_ownership_entry_is_stored_under_the_next_number_alone(store: Store) -> None:
    """G5: of two control replicas that write a number, one does, and the other reads what it says."""
    log = store.log
    assert await log.read(SERVICE, after=0) == []
    moves = Moves({"R 1": "a~r", "R2": ""}, "registered", "log-1")
    first = await log.write(SERVICE, 1, moves)
    assert isinstance(first, int)
    assert await log.write(SERVICE, 1, Moves({"R 1": "b~r"})) is NotWritten.CONFLICT
    [gate] = await log.shut_out(SERVICE, ["a~r"])
    assert gate is not None
    own, shut = await log.read(SERVICE, after=0)
    assert isinstance(own, StoredMoves)
    assert (own.seq, own.number, own.moves) == (first, 1, moves)
    assert shut == StoredGate(gate, "a~r")
    [newer] = await log.shut_out(SERVICE, ["a~r"])
    assert newer is not None
    assert await log.read(SERVICE, after=first) == [StoredGate(newer, "a~r")]
    assert await log.read("other", after=0) == []
