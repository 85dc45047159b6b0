"""Outcomes in the services' logs, as operators look for them, and what else the log says of a request: noted begins, and that its caller gave up.

An outcome of a name of its own is one read. One that shares a turn is found by the headers of the turns, which list their requests.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, suppress
from typing import Final

from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import (
    TURN,
    EntryUnreadable,
    Moves,
    Record,
    begun_of,
    decode_turn,
    ids_of,
)
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.jetstream import JetStream, Kept, from_seq, from_time

from aegis_control.domain.operators.story import Ended, GivenUp, Noted
from aegis_control.infrastructure.nats_reading import at, last, read

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
            stored = await last(self._js, names.stream, subject)
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
        reading = read(self._js, names.stream, names.turns, start | {"headers_only": True})
        async with aclosing(reading) as turns:
            async for head in turns:
                if request_id in ids_of(head.headers.get(TURN, "")):
                    stored = await at(self._js, names.stream, head.seq)
                    return None if stored is None else _ended(service, request_id, stored)
        return None

    async def given_up(self, service: str, request_id: str) -> GivenUp | None:
        names = LogSubjects(self._subjects, service)
        stored = await last(self._js, names.stream, names.end_anywhere(request_id))
        if stored is None:
            return None
        resource = decode_token(names.words(stored.subject)[1])
        return GivenUp(stored.seq, stored.at_s, resource)

    async def noted(
        self, service: str, resource: str, request_id: str, *, since_s: float, until_seq: int
    ) -> Noted | None:
        """Its last noted begin. An owner notes one only of what an owner before it may have begun."""
        names = LogSubjects(self._subjects, service)
        moved_seq = await self._first_move(names, resource, since_s)
        if not moved_seq:
            return None
        found = None
        turns = read(self._js, names.stream, names.outcomes, from_seq(moved_seq))
        async with aclosing(turns) as entries:
            async for turn in entries:
                if until_seq and turn.seq > until_seq:
                    break
                with suppress(EntryUnreadable):
                    notes = {of: n for _, of, n in begun_of(turn.payload)}
                    found = Noted(notes[request_id], turn.at_s) if request_id in notes else found
        return found

    async def _first_move(self, names: LogSubjects, resource: str, since_s: float) -> int:
        """Where the log first says since then who owns the resource; 0 when it does not."""
        start = from_time(since_s - _CLOCK_SLACK_S)
        async with aclosing(read(self._js, names.stream, [names.own_anywhere], start)) as entries:
            async for own in entries:
                with suppress(EntryUnreadable):
                    if resource in Moves.decode(own.payload).moves:
                        return own.seq
        return 0

    async def settled(
        self, service: str, resource: str, request_ids: Collection[str], *, since_s: float
    ) -> set[str]:
        """Those that have an outcome, or were given up."""
        names, left = LogSubjects(self._subjects, service), set(request_ids)
        subjects = [*names.outcomes, names.ends]
        start = from_time(since_s - _CLOCK_SLACK_S) | {"headers_only": True}
        async with aclosing(read(self._js, names.stream, subjects, start)) as entries:
            async for head in entries:
                left.difference_update(ids_of(head.headers.get(TURN, "")))
                left.discard(_id_at_end(head.subject))
                if not left:
                    break
        return set(request_ids) - left

    async def of_caller(self, service: str, caller: str) -> AsyncGenerator[tuple[str, Ended], None]:
        """Requests of a handler that have outcomes: these have names of their own."""
        names = LogSubjects(self._subjects, service)
        subjects = [names.single_anywhere(f"{caller}.*")]
        async with aclosing(read(self._js, names.stream, subjects, from_seq(1))) as messages:
            async for stored in messages:
                request_id = _id_at_end(stored.subject)
                found = _ended(service, request_id, stored)
                if found is not None:
                    yield request_id, found


def _id_at_end(subject: str) -> str:
    return ".".join(subject.split(".")[-2:])


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
