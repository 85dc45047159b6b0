"""Outcomes in the services' logs, as operators look for them: one by its name, one in a turn that it shares, a handler's.

An outcome of a name of its own is one read. One that shares a turn is found by the headers of the turns, which list their requests.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import TURN, EntryUnreadable, Record, decode_turn, ids_of
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.codes import ERR_NO_MESSAGE, ERR_NO_STREAM
from aegis_sdk.nats.jetstream import ApiRefused, JetStream, Kept, from_seq, from_time

from aegis_control.domain.operators.story import Ended

_CLOCK_SLACK_S: Final = 1.0


class NatsOutcomes:
    """All methods raise Unavailable; a stream that isn't there is an empty one."""

    def __init__(self, js: JetStream, subjects: Subjects) -> None:
        self._js = js
        self._subjects = subjects

    async def named(self, service: str, request_id: str) -> Ended | None:
        """The outcome, if it has a name of its own."""
        names = LogSubjects(self._subjects, service)
        for subject in (
            names.single_anywhere(request_id),
            names.turn_of_one_anywhere(request_id),
        ):
            stored = await self._last(names.stream, subject)
            found = None if stored is None else _ended(service, request_id, stored)
            if found is not None:
                return found
        return None

    async def shared(
        self, service: str, request_id: str, *, since_s: float | None = None
    ) -> Ended | None:
        """The outcome, if it shares its turn with others: all headers since then are read."""
        names = LogSubjects(self._subjects, service)
        start = from_seq(1) if since_s is None else from_time(since_s - _CLOCK_SLACK_S)
        reading = self._read(names.stream, names.turns, start | {"headers_only": True})
        async with aclosing(reading) as turns:
            async for head in turns:
                if request_id in ids_of(head.headers.get(TURN, "")):
                    stored = await self._at(names.stream, head.seq)
                    return None if stored is None else _ended(service, request_id, stored)
        return None

    async def of_caller(self, service: str, caller: str) -> AsyncGenerator[tuple[str, Ended], None]:
        """Requests of a handler that have outcomes: these have names of their own."""
        names = LogSubjects(self._subjects, service)
        subjects = [names.single_anywhere(f"{caller}.*")]
        async with aclosing(self._read(names.stream, subjects, from_seq(1))) as messages:
            async for stored in messages:
                request_id = ".".join(stored.subject.split(".")[-2:])
                found = _ended(service, request_id, stored)
                if found is not None:
                    yield request_id, found

    async def _last(self, stream: str, subject: str) -> Kept | None:
        try:
            return await self._js.last_message(stream, subject)
        except ApiRefused as error:
            if error.code == ERR_NO_STREAM:
                return None
            raise Unavailable(f"stream {stream}: {error}") from error

    async def _at(self, stream: str, seq: int) -> Kept | None:
        try:
            return await self._js.message(stream, seq)
        except ApiRefused as error:
            if error.code in (ERR_NO_STREAM, ERR_NO_MESSAGE):
                return None  # trimmed just now
            raise Unavailable(f"stream {stream}: {error}") from error

    async def _read(
        self, stream: str, subjects: list[str], start: dict[str, Any]
    ) -> AsyncGenerator[Kept, None]:
        try:
            async with aclosing(self._js.read(stream, subjects, start)) as messages:
                async for stored in messages:
                    yield stored
        except ApiRefused as error:
            if error.code != ERR_NO_STREAM:
                raise Unavailable(f"stream {stream}: {error}") from error


def _ended(service: str, request_id: str, stored: Kept) -> Ended | None:
    """Raises: Unavailable, for an entry that this version can't read."""
    try:
        records = decode_turn(stored.payload)
    except EntryUnreadable as error:
        raise Unavailable(f"{stored.subject}: {error}") from error
    for record in records:
        if record.request_id == request_id:
            request = request_of(service, record)
            return Ended(record.outcome, stored.seq, stored.at_s, record.resource, request)
    return None


def request_of(service: str, record: Record) -> Request:
    """As far as its entry tells."""
    return Request(
        record.request_id,
        service,
        record.method,
        record.resource,
        record.payload,
        traceparent=record.outcome.traceparent,
    )
