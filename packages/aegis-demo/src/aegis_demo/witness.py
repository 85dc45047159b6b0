"""Reads, straight from NATS, what no service of the demo can embellish.

The request stream and the journal are read as stored, the leases and instances as control keeps them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

import nats
from aegis_sdk.contract.control import InstanceRecord, InstanceState, LeaseRecord, LeaseState
from aegis_sdk.contract.envelope import METHOD, MSG_ID, Outcome
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import TURN, Record, decode_turn
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import BucketNotFoundError
from nats.js.kv import KeyValue

from aegis_demo.contracts import BOOK
from aegis_demo.reconcile import AcceptedBooking, JournalEntry, entry_of

SERVICE: Final = "accounts"
CONTROL_TIMEOUT_S: Final = 90.0
"""A control that died is told at once; this is for machines that are busy with other things."""
_FETCH: Final = 500
_FETCH_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05


@contextlib.asynccontextmanager
async def observer(url: str) -> AsyncIterator[Client]:
    """A NATS connection of the demo's own."""
    client = await nats.connect(url, name="demo", max_reconnect_attempts=-1)
    try:
        yield client
    finally:
        with contextlib.suppress(NatsError, TimeoutError):
            async with asyncio.timeout(2.0):
                await client.close()


async def control_is_there(client: Client, subjects: Subjects) -> None:
    """Return when control answers. Raises: TimeoutError after 90 s."""
    async with asyncio.timeout(CONTROL_TIMEOUT_S):
        while True:
            with contextlib.suppress(NatsError):
                await client.request(subjects.admin("list-services"), b"{}", timeout=1.0)
                return
            await asyncio.sleep(_POLL_S)


async def read_accepted(client: Client, subjects: Subjects) -> list[AcceptedBooking]:
    """Every booking that is stored: as a request, or in the entry of its outcome."""
    accepted: dict[str, AcceptedBooking] = {}
    async for message in _read(client, subjects.request_stream(SERVICE)):
        headers = message.headers or {}
        if headers.get(METHOD) == BOOK.name:
            _take(accepted, headers[MSG_ID], message.data)
    async for record in _records(client, subjects):
        if record.method == BOOK.name:
            _take(accepted, record.request_id, record.payload)
    return list(accepted.values())


def _take(accepted: dict[str, AcceptedBooking], request_id: str, payload: bytes) -> None:
    accepted[request_id] = AcceptedBooking(request_id, json.loads(payload)["order_id"])


async def _records(client: Client, subjects: Subjects) -> AsyncIterator[Record]:
    """Every outcome in the log, with its request, in order."""
    async for message in _read(client, subjects.journal_stream(SERVICE)):
        if TURN in (message.headers or {}):
            for record in decode_turn(message.data):
                yield record


async def read_journal(client: Client, subjects: Subjects) -> list[JournalEntry]:
    """Every outcome in the journal, in order."""
    entries = []
    async for message in _read(client, subjects.journal_stream(SERVICE)):
        place = message.subject.removeprefix(f"{subjects.prefix}.jrn.{SERVICE}.").split(".")
        if place[1] == "out":
            outcome = Outcome.parse(message.headers or {}, message.data)
            account, request_id = decode_token(place[0]), ".".join(place[2:])
            entries.append(
                entry_of(request_id, account, outcome.kind.value, outcome.body, outcome.change)
            )
    async for record in _records(client, subjects):
        outcome = record.outcome
        entries.append(
            entry_of(
                record.request_id,
                record.resource or "",
                outcome.kind.value,
                outcome.body,
                outcome.change,
            )
        )
    return entries


async def _read(client: Client, stream: str) -> AsyncIterator[Msg]:
    """All messages that the stream holds now."""
    stored = (await client.jetstream().stream_info(stream)).state
    if not stored.messages:
        return
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
    reader = await client.jetstream().pull_subscribe("", stream=stream, config=config)
    while True:
        for message in await reader.fetch(_FETCH, timeout=_FETCH_TIMEOUT_S):
            yield message
        if message.metadata.sequence.stream >= stored.last_seq or not message.metadata.num_pending:
            return


@dataclass(slots=True)
class Directory:
    """Who is active and who lives, as control wrote it; kept up to date by `watching`."""

    leases: dict[str, LeaseRecord] = field(default_factory=dict)
    """By account."""
    instances: dict[str, InstanceRecord] = field(default_factory=dict)
    """The instances of `accounts`, by id."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @contextlib.asynccontextmanager
    async def watching(self, client: Client, subjects: Subjects) -> AsyncIterator[None]:
        """Follow the two buckets."""
        tasks = [
            asyncio.create_task(self._follow(client, subjects.leases_bucket, self._lease)),
            asyncio.create_task(self._follow(client, subjects.registry_bucket, self._instance)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, true: Callable[[Directory], bool]) -> None:
        """Return when `true` of what control wrote."""
        async with self._changed:
            await self._changed.wait_for(lambda: true(self))

    def active_of_all(self, accounts: list[str]) -> str | None:
        """The instance that holds all `accounts`, or None while they are not in one hand."""
        held = [self.leases.get(account) for account in accounts]
        owners = {lease.owner if _is_held(lease) else None for lease in held if lease is not None}
        return owners.pop() if len(owners) == 1 and None not in held else None

    def owners(self) -> Counter[str]:
        """For how many accounts each instance is active."""
        return Counter(lease.owner for lease in self.leases.values() if _is_held(lease))

    def has_standbys(self) -> bool:
        """Whether a live instance follows each account, beside its active."""
        live = [each for each in self.instances.values() if each.state == InstanceState.LIVE]
        return all(
            _is_held(lease)
            and any(n in each.resources and each.instance_id != lease.owner for each in live)
            for n, lease in self.leases.items()
        )

    def lives(self, instance_id: str) -> bool:
        record = self.instances.get(instance_id)
        return record is not None and record.state == InstanceState.LIVE

    def epochs(self) -> dict[str, int]:
        """The newest epoch of each account."""
        return {account: lease.epoch for account, lease in self.leases.items()}

    async def _follow(
        self, client: Client, bucket: str, apply: Callable[[KeyValue.Entry], None]
    ) -> None:
        watcher = await (await _bucket(client, bucket)).watchall()
        async for entry in watcher:
            if entry is not None:  # None: all that was there at the start has been read
                async with self._changed:
                    apply(entry)
                    self._changed.notify_all()

    def _lease(self, entry: KeyValue.Entry) -> None:
        if entry.value and entry.key.startswith(f"{SERVICE}."):
            lease = LeaseRecord.model_validate_json(entry.value)
            self.leases[lease.resource] = lease

    def _instance(self, entry: KeyValue.Entry) -> None:
        if not entry.key.startswith(f"instance.{SERVICE}."):
            return
        if entry.value:
            record = InstanceRecord.model_validate_json(entry.value)
            self.instances[record.instance_id] = record
        else:
            self.instances.pop(entry.key.rpartition(".")[2], None)


def _is_held(lease: LeaseRecord) -> bool:
    return lease.state == LeaseState.HELD


async def _bucket(client: Client, name: str) -> KeyValue:
    """The bucket, as soon as control has made it."""
    while True:
        try:
            return await client.jetstream().key_value(name)
        except BucketNotFoundError:
            await asyncio.sleep(_POLL_S)
