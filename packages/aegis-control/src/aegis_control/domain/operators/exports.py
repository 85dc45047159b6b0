"""Outcomes of a service as rows for other programs, in the log's order, with the place of each.

Theory of operation. An entry of the log holds one outcome or many. A row's *cursor* names its place: the identity of the log, the entry's
position, and the row's index in the entry. Whoever goes on behind a cursor gets the next row, each row once, wherever the
export before was cut off. A cursor means something in that log alone.

The numbers of a resource's outcomes tell what is missing: those that were removed before they were exported.

What must stay true: rows of one entry always have the same indices, in this order, whichever of them are asked for.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.contract.turns.entries import Record

from aegis_control.domain.operators.past import LogEntry

_FORM: Final = re.compile(r"(?:([!-?A-~]{0,64})@)?(\d{1,18})(?:\.(\d{1,9}))?", re.ASCII)
_ALL: Final = 2**31
"""Behind each row of an entry."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A row's: the entry's position, and the index in the entry."""

    position: int = 0
    index: int = _ALL


START: Final = Place()


@dataclass(frozen=True, slots=True)
class Cursor:
    """`<log>@<position>.<index>`. Without a log it is of any; without an index, as replies have it, behind the whole entry."""

    log: str
    place: Place

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises: ValueError."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no cursor")
        index = _ALL if found[3] is None else int(found[3])
        return cls(found[1] or "", Place(int(found[2]), index))

    def __str__(self) -> str:
        return f"{self.log}@{self.place.position}.{self.place.index}"


@dataclass(frozen=True, slots=True)
class Row:
    """One outcome. Payload, reply, error and change are JSON texts in one line; None where there is none."""

    place: Place
    time: float
    request_id: str
    resource: str | None = None
    method: str | None = None
    outcome: str = OutcomeKind.UNREADABLE.value
    number: int = 0
    epoch: int = 0
    instance_id: str = ""
    trace: str = ""
    payload: str | None = None
    reply: str | None = None
    error: str | None = None
    change: str | None = None
    unread: str | None = None
    """Why the entry can't be read by this version; then `entry` has all of it, in base64."""
    entry: str | None = None

    def line(self, log: str) -> str:
        """A line of JSON."""
        known = {
            "cursor": str(Cursor(log, self.place)),
            "position": self.place.position,
            "index": self.place.index,
            "time": self.time,
            "request_id": self.request_id,
            "resource": self.resource,
            "method": self.method,
            "outcome": self.outcome,
            "number": self.number,
            "epoch": self.epoch,
            "instance_id": self.instance_id,
            "trace": self.trace,
        }
        if self.unread is not None:
            known |= {"unread": self.unread, "entry": self.entry}
        parts = [("payload", self.payload), ("reply", self.reply), ("error", self.error)]
        texts = [f'"{name}": {text or "null"}' for name, text in (*parts, ("change", self.change))]
        return f"{json.dumps(known, ensure_ascii=False)[:-1]}, {', '.join(texts)}}}"


def rows(entry: LogEntry, *, after: Place = START) -> Iterator[Row]:
    """Those behind a place."""
    for row in _all_rows(entry):
        if row.place > after:
            yield row


def _all_rows(entry: LogEntry) -> Iterator[Row]:
    if entry.unread:
        data = base64.b64encode(entry.data).decode()
        for index, request_id in enumerate(entry.request_ids):
            place = Place(entry.seq, index)
            yield Row(place, entry.at_s, request_id, unread=entry.unread, entry=data)
    for index, record in enumerate(entry.records):
        yield _row(Place(entry.seq, index), entry.at_s, record)


def _row(place: Place, at_s: float, record: Record) -> Row:
    outcome = record.outcome
    is_reply = outcome.kind is OutcomeKind.EXECUTED
    return Row(
        place,
        at_s,
        record.request_id,
        record.resource,
        record.method,
        outcome.kind.value,
        outcome.number,
        outcome.epoch,
        outcome.instance_id,
        outcome.traceparent,
        payload=_json(record.payload),
        reply=_json(outcome.body) if is_reply else None,
        error=None if is_reply else _json(outcome.body),
        change=_json(outcome.change),
    )


def _json(data: bytes) -> str | None:
    """In one line, its numbers as they are written. What is no JSON, from a stranger, is in base64."""
    if not data:
        return None
    try:
        text = data.decode()
        json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return json.dumps({"base64": base64.b64encode(data).decode()})
    return text.replace("\r", " ").replace(
        "\n", " "
    )  # valid JSON has these between its parts alone


def _no_json(word: str) -> Any:
    raise ValueError(word)


@dataclass(frozen=True, slots=True)
class Gap:
    """Outcomes of a resource, by their numbers, that were not in the log when it was their turn."""

    resource: str
    first: int
    last: int


class Numbers:
    """The last number of each resource that was exported. `is_first`: nothing was exported before."""

    def __init__(self, known: dict[str, int], *, is_first: bool) -> None:
        self._known = known
        self._is_first = is_first

    def gap(self, row: Row) -> Gap | None:
        """What is left out before it."""
        if row.resource is None or not row.number:
            return None
        known = self._known.get(row.resource, 0 if self._is_first else row.number - 1)
        self._known[row.resource] = max(known, row.number)
        if row.number <= known + 1:
            return None
        return Gap(row.resource, known + 1, row.number - 1)
