"""What is stored in JetStream about requests, dead letters and events, read for operators.

It changes nothing and needs no control: the names of the streams tell which services there are. Reads
come from the streams' leaders, so what is told is what is so.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from aegis_sdk.contract.control import EventRecord, LeaseRecord, ServiceRecord
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import MSG_ID, OutcomeKind, Request
from aegis_sdk.contract.ids import is_request_id
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import GROUP_CONSUMER, Subjects
from aegis_sdk.contract.trace import trace_id
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.jetstream import ApiRefused, JetStream, Kept, from_seq, from_time, parse_time
from pydantic import ValidationError

from aegis_control.application.operators.console import Letter
from aegis_control.application.operators.explain import Header
from aegis_control.domain.operators.story import (
    Child,
    Died,
    Ended,
    GivenUp,
    Noted,
    Queue,
    StoredRequest,
)
from aegis_control.infrastructure.nats_outcomes import NatsOutcomes
from aegis_control.infrastructure.nats_reading import (
    at,
    consumer_info,
    first,
    last,
    read,
    stream_info,
    stream_names,
)

LIFE_EVENTS: Final = (
    "lease_granted",
    "instance_fenced",
    "request_dead_lettered",
    "operator_change",
)


_LETTERS_LOOKED_AT: Final = 2_000
"""Places of the stream: a page that asks every few seconds must not read a month of them."""


@dataclass(frozen=True, slots=True)
class KeptLetter:
    """A dead letter and when it was stored."""

    letter: DeadLetter
    at_s: float


class NatsArchive:
    """`Archive` (application/operators/explain.py), with what the other reading verbs need beside it.

    All methods raise Unavailable; a stream that isn't there is an empty one.
    """

    def __init__(self, link: JetStream, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects
        self._outcomes = NatsOutcomes(link, subjects)

    # --- requests and outcomes ---------------------------------------------------------------------
    async def services(self) -> list[str]:
        names = await stream_names(self._link, self._subjects.all_requests)
        return sorted(map(self._subjects.service_of_stream, names))

    async def ended(self, service: str, request_id: str) -> Ended | None:
        return await self._outcomes.named(service, request_id)

    async def ended_with_others(
        self, service: str, request_id: str, *, since_s: float | None
    ) -> Ended | None:
        return await self._outcomes.shared(service, request_id, since_s=since_s)

    async def given_up(self, service: str, request_id: str) -> GivenUp | None:
        return await self._outcomes.given_up(service, request_id)

    async def settled(
        self, service: str, resource: str, request_ids: Collection[str], *, since_s: float
    ) -> set[str]:
        return await self._outcomes.settled(service, resource, request_ids, since_s=since_s)

    async def noted_at(
        self, service: str, resource: str, request_id: str, *, since_s: float, until_seq: int
    ) -> Noted | None:
        return await self._outcomes.noted(
            service, resource, request_id, since_s=since_s, until_seq=until_seq
        )

    async def noted(self, service: str, request_id: str) -> Noted | None:
        names = LogSubjects(self._subjects, service)
        stored = await last(self._link, names.stream, names.begins(request_id))
        return None if stored is None else Noted(int(stored.payload), stored.at_s)

    async def died(self, request_id: str) -> Died | None:
        kept = await self.dead_letter(request_id)
        return None if kept is None else Died(kept.letter, kept.at_s)

    async def accepted(self, service: str, seq: int) -> StoredRequest | None:
        stored = await at(self._link, self._subjects.request_stream(service), seq)
        if stored is None:
            return None
        try:
            resource = _resource_of_request(stored.subject)
            request = Request.parse(
                stored.headers, stored.payload, service=service, resource=resource
            )
        except (KeyError, ValueError):
            return None  # somebody else's: no instance takes it for a request
        return StoredRequest(request, stored.seq, stored.at_s)

    async def headers(
        self,
        service: str,
        *,
        resource: str | None = None,
        from_seq: int = 1,
        since_s: float | None = None,
    ) -> AsyncGenerator[Header, None]:
        names = self._subjects
        start = _start(from_seq) if since_s is None else from_time(since_s)
        subject = names.requests(service) if resource is None else names.request(service, resource)
        reading = read(
            self._link, names.request_stream(service), [subject], start | {"headers_only": True}
        )
        async with aclosing(reading) as messages:
            async for stored in messages:
                if is_request_id(stored.headers.get(MSG_ID, "")):
                    yield Header(stored.headers[MSG_ID], stored.seq, stored.at_s)

    async def unfinished_from(self, service: str) -> int:
        stream = self._subjects.request_stream(service)
        state = await self.stream_state(stream)
        after = int(state.get("last_seq", 0)) + 1
        group = await consumer_info(self._link, stream, GROUP_CONSUMER)
        if group and (group["num_pending"] or group["num_ack_pending"]):
            after = min(after, int(group["ack_floor"]["stream_seq"]) + 1)
        # Those to resources go from the stream a moment after they are done.
        targeted = await first(self._link, stream, self._subjects.targeted_requests(service))
        return after if targeted is None else min(after, targeted.seq)

    async def children(self, service: str, caller: str) -> list[Child]:
        return [
            Child(request_id, service, OutcomeKind(ended.outcome.kind), ended.at_s)
            async for request_id, ended in self._outcomes.of_caller(service, caller)
        ]

    async def contract(self, service: str) -> ServiceRecord | None:
        """As registered; None if no instance ever did. Raises also ValueError, for another version's."""
        bucket = self._subjects.registry_bucket
        subject = f"$KV.{bucket}.{self._subjects.service_key(service)}"
        stored = await last(self._link, f"KV_{bucket}", subject)
        if stored is None or not stored.payload:
            return None
        return ServiceRecord.model_validate_json(stored.payload)

    # --- routes --------------------------------------------------------------------------------------
    async def lease(self, service: str, resource: str) -> LeaseRecord | None:
        bucket = self._subjects.leases_bucket
        subject = f"$KV.{bucket}.{self._subjects.lease_key(service, resource)}"
        stored = await last(self._link, f"KV_{bucket}", subject)
        if stored is None or not stored.payload:
            return None
        return LeaseRecord.model_validate_json(stored.payload)

    async def group_queue(self, service: str) -> Queue:
        stream = self._subjects.request_stream(service)
        info = await consumer_info(self._link, stream, GROUP_CONSUMER)
        if info is None:
            return Queue(made=False)
        return Queue(
            delivered_seq=int(info["delivered"]["stream_seq"]),
            unacknowledged=int(info["num_ack_pending"]),
            readers=int(info.get("num_waiting", 0)),
        )

    # --- dead letters and events ------------------------------------------------------------------------
    async def dead_letter(self, request_id: str) -> KeptLetter | None:
        subject = self._subjects.dead_letter_anywhere(request_id)
        stored = await last(self._link, self._subjects.dlq_stream, subject)
        return None if stored is None else _letter(stored)

    async def dead_letters(self) -> list[KeptLetter]:
        """The oldest first, each request once: a crash in the middle may have left two copies of one."""
        letters: dict[str, KeptLetter] = {}
        subjects = [self._subjects.dead_letters]
        async for stored in read(self._link, self._subjects.dlq_stream, subjects, _start(1)):
            if (kept := _letter(stored)) is not None:
                letters[kept.letter.request.request_id] = kept
        return list(letters.values())

    async def newest_letters(self, most: int) -> list[Letter]:
        """The newest first, without their payloads, from the newest part of the stream alone."""
        stream = self._subjects.dlq_stream
        state = await self.stream_state(stream)
        start = _start(int(state.get("last_seq", 0)) - _LETTERS_LOOKED_AT + 1)
        letters: dict[str, Letter] = {}
        reading = read(
            self._link, stream, [self._subjects.dead_letters], start | {"headers_only": True}
        )
        async for stored in reading:
            if (kept := _letter(stored)) is not None:
                letter = _without_payload(kept)
                letters[letter.request_id] = letter
        return sorted(letters.values(), key=lambda letter: -letter.since)[:most]

    async def life_events(self) -> list[EventRecord]:
        stream = self._subjects.events_stream
        subjects = [self._subjects.event(name) for name in LIFE_EVENTS]
        reading = read(self._link, stream, subjects, _start(1))
        return [event async for stored in reading if (event := _event(stored)) is not None]

    async def events(
        self,
        *,
        since_s: float | None = None,
        newest: int | None = None,
        follow: bool = False,
    ) -> AsyncGenerator[EventRecord, None]:
        """The kept events since a time, or the `newest`; `follow` goes on with those to come."""
        reading = self.numbered_events(since_s=since_s, newest=newest, follow=follow)
        async with aclosing(reading) as found:
            async for _, event in found:
                yield event

    async def numbered_events(
        self, *, since_s: float | None = None, newest: int | None = None, follow: bool = False
    ) -> AsyncGenerator[tuple[int, EventRecord], None]:
        """The same, each with its place in the stream."""
        stream = self._subjects.events_stream
        state = await self.stream_state(stream)
        last_seq = int(state.get("last_seq", 0))
        start = _start(last_seq - newest + 1 if newest is not None else 1)
        if since_s is not None:
            start = from_time(since_s)
        if not state:
            return
        seq = 0
        while True:
            try:
                reading = read(self._link, stream, [self._subjects.events], start, for_ever=follow)
                async with aclosing(reading) as messages:
                    async for stored in messages:
                        seq = stored.seq
                        if (event := _event(stored)) is not None:
                            yield seq, event
                return
            except Unavailable:
                if not (follow and seq and self._link.connected):
                    raise
                start = _start(
                    seq + 1
                )  # the server gave our consumer up: go on behind the last one

    # --- streams ----------------------------------------------------------------------------------------
    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        """None if there is no such stream."""
        return await stream_info(self._link, stream)

    async def stream_state(self, stream: str) -> dict[str, Any]:
        """Empty if there is no such stream."""
        info = await self.stream_info(stream)
        return {} if info is None else dict(info["state"])

    async def account(self) -> dict[str, Any]:
        """JetStream's use and limits of this account."""
        try:
            return await self._link.api("INFO")
        except ApiRefused as error:
            raise Unavailable(f"the account's limits: {error}") from error


_start = from_seq
"""Under a name that no argument has."""


def server_time(info: dict[str, Any]) -> float:
    """The server's clock as it answered, Unix time."""
    return parse_time(info["ts"])


def _letter(stored: Kept) -> KeptLetter | None:
    """None for what somebody else put there."""
    try:
        return KeptLetter(DeadLetter.parse(stored.headers, stored.payload), stored.at_s)
    except (KeyError, ValueError):
        return None


def _without_payload(kept: KeptLetter) -> Letter:
    request = kept.letter.request
    return Letter(
        request_id=request.request_id,
        service=request.service,
        method=request.method,
        resource=request.resource,
        since=kept.at_s,
        error_code=kept.letter.error_code,
        error=kept.letter.error,
        trace_id=trace_id(request.traceparent),
    )


def _event(stored: Kept) -> EventRecord | None:
    try:
        return EventRecord.model_validate_json(stored.payload)
    except ValidationError:
        return None


def _resource_of_request(subject: str) -> str | None:
    """`<prefix>.req.<service>.any` or `….at.<resource>`."""
    tokens = subject.split(".", 4)
    return decode_token(tokens[4]) if len(tokens) == 5 else None
