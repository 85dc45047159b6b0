"""Reads what NATS holds after a run: requests and logs.

A request's payload names its client's operation; that is how an outcome finds its operation.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aegis_sdk.contract.envelope import MSG_ID
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import TURN, Record, decode_turn
from aegis_sdk.nats.codes import EXPECTED_SEQ, EXPECTED_SUBJECT
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy

from bench.chaos.history import Accepted, Gone, OutcomeEntry

SUBJECTS = Subjects()
NEXT_TIMEOUT_S = 10.0
QUIET_S = 2.0
RETRY_S = 0.2


@dataclass(slots=True)
class Stored:
    """What a service's streams hold."""

    accepted: list[Accepted] = field(default_factory=list)
    outcomes: list[OutcomeEntry] = field(default_factory=list)

    def open_requests(self) -> list[str]:
        """Accepted operations without an outcome."""
        ended = {entry.op for entry in self.outcomes}
        return [entry.op for entry in self.accepted if entry.op not in ended]


Names = dict[str, str]
"""request id: the operation that it is of."""


async def watch_names(client: Client, names: Names) -> None:
    """Take note of every request that passes: its stream may be deleted before it is read."""

    async def note(message: Msg) -> None:
        with contextlib.suppress(KeyError, ValueError):
            names.setdefault((message.headers or {})[MSG_ID], json.loads(message.data)["op"])

    await client.subscribe(SUBJECTS.all_requests, cb=note)
    for route in ("at", "any"):  # sent, and stored only in doubt
        await client.subscribe(f"{SUBJECTS.prefix}.{route}.>", cb=note)


Ends = list[tuple[str, str, int, float]]
"""(service, request id, place in the journal, when) of outcomes."""


async def watch_outcomes(client: Client, ends: Ends) -> None:
    """Take note of every outcome when it is stored: its journal may be lost before it is read."""

    async def note(message: Msg) -> None:
        headers = message.headers or {}
        with contextlib.suppress(KeyError, ValueError):
            service = SUBJECTS.service_of_stream(headers["Nats-Stream"])
            request_id = message.subject.split(".", 2)[2]
            ends.append((service, request_id, int(headers["Nats-Sequence"]), time.monotonic()))

    await client.subscribe(SUBJECTS.reply("*.*"), cb=note)


def gone(ends: Ends, outcomes: Iterable[OutcomeEntry], names: Mapping[str, str]) -> list[Gone]:
    """Of those that were stored, what is not where it was stored."""
    there = {(entry.service, entry.seq) for entry in outcomes}
    return [
        Gone(service=service, op=names.get(request_id, request_id), seq=seq, stored_s=at_s)
        for service, request_id, seq, at_s in ends
        if (service, seq) not in there
    ]


async def stored(client: Client, service: str) -> Stored:
    """Read both streams of a service from their beginning. Raises: nats.errors.Error."""
    found = Stored()
    requests = await kept(client, service)
    ended: set[str] = set()
    """Whose callers gave up: these need no outcome."""
    async for message in _messages(
        client, SUBJECTS.journal_stream(service), SUBJECTS.journal(service)
    ):
        words = message.subject.split(".")[3:]
        if words[0] == "end":
            ended.add(".".join(words[2:]))
        elif TURN in (message.headers or {}):
            found.outcomes += _records(service, message)
    found.accepted += (entry for name, entry in requests.items() if name not in ended)
    return found


async def kept(client: Client, service: str) -> dict[str, Accepted]:
    """The requests in a service's stream, by their ids. Raises: nats.errors.Error."""
    found: dict[str, Accepted] = {}
    async for message in _messages(
        client, SUBJECTS.request_stream(service), SUBJECTS.requests(service)
    ):  # one that is stored twice has no outcome of its own
        found.setdefault((message.headers or {})[MSG_ID], _accepted(service, message))
    return found


async def _messages(client: Client, stream: str, subject: str) -> AsyncIterator[Msg]:
    """What the stream holds on the subject now."""
    async with _subscribed(client, stream, subject, 1) as subscription:
        info = await subscription.consumer_info()
        delivered = info.delivered.consumer_seq if info.delivered else 0
        for _ in range((info.num_pending or 0) + delivered):
            yield await subscription.next_msg(timeout=NEXT_TIMEOUT_S)


@contextlib.asynccontextmanager
async def _subscribed(
    client: Client, stream: str, subject: str, from_seq: int
) -> AsyncIterator[JetStreamContext.PushSubscription]:
    subscription = await client.jetstream(timeout=NEXT_TIMEOUT_S).subscribe(
        subject,
        stream=stream,
        ordered_consumer=True,
        config=ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=from_seq
        ),
    )
    try:
        yield subscription
    finally:
        with contextlib.suppress(NatsError):
            await subscription.unsubscribe()


def _resource(token: str) -> str:
    return "" if token == "-" else decode_token(token)


def _accepted(service: str, message: Msg) -> Accepted:
    tokens = message.subject.split(".")
    return Accepted(
        seq=message.metadata.sequence.stream,
        service=service,
        resource=_resource(tokens[4]) if tokens[3] == "at" else "",
        op=json.loads(message.data)["op"],
    )


def _records(service: str, message: Msg) -> list[OutcomeEntry]:
    """All outcomes of an entry."""
    records, headers = decode_turn(message.data), message.headers or {}
    stored_s = time.monotonic() - (time.time() - message.metadata.timestamp.timestamp())
    return [
        OutcomeEntry(
            seq=message.metadata.sequence.stream,
            service=service,
            resource=record.resource or "",
            op=_op(record),
            outcome=record.outcome.kind.value,
            epoch=record.outcome.epoch,
            reply=_json(record.outcome.body),
            changed=bool(record.outcome.change),
            batched=len(records) > 1,
            number=record.outcome.number,
            stored_s=stored_s,
            writer=headers.get(EXPECTED_SUBJECT, "").rpartition(".")[2],
            gate=int(headers.get(EXPECTED_SEQ, 0)),
        )
        for record in records
    ]


def _op(record: Record) -> str:
    """Of what makes a timer of a request, since it has no payload, its id."""
    return str(json.loads(record.payload)["op"]) if record.payload else record.request_id


def _json(body: bytes) -> Any:
    return json.loads(body) if body else None
