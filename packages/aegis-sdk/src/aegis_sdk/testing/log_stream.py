"""A service's log, as a server keeps it, in memory: entries as they are written to NATS.

Each write is atomic: it is checked and stored in one step of the event loop.

The checks are the server's: the size, the gate (10071), one message a subject (10077), the room. Places are given once and
never again; an entry that was replaced leaves its place empty. Nothing expires, and nothing is trimmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aegis_sdk.application.ports import AlreadyStored, GateRefused, StoreFull
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.names import encode_token
from aegis_sdk.contract.turns.entries import Record, decode_turn, ids_of
from aegis_sdk.testing.streams import Limits


@dataclass(slots=True)
class Stored:
    """An entry: what its subject says, a turn's list of ids, and its body."""

    seq: int
    words: list[str]
    header: str
    data: bytes
    at_s: float

    def records(self) -> list[Record]:
        return decode_turn(self.data) if self.header else []


class LogStream:
    """One entry a subject, create-only but for rollups, checked against gates. `listeners` are called after each.

    Invariants: `_last` has the place of each subject's entry; `_by_request` that of the first entry that lists a request, which
    is its outcome (G2). Both find an entry without a search.
    """

    def __init__(self, limits: Limits) -> None:
        self.listeners: list[Callable[[], None]] = []
        self._limits = limits
        self._entries: list[Stored | None] = []
        self._last: dict[str, int] = {}
        self._by_request: dict[str, int] = {}

    @property
    def last_seq(self) -> int:
        return len(self._entries)

    def write(
        self,
        subject: str,
        data: bytes = b"",
        header: str = "",
        *,
        rollup: bool = False,
        gate: tuple[str, int] | None = None,
    ) -> int:
        """`gate`: the writer whose gate has to be at that place. Raises: GateRefused, AlreadyStored, StoreTooLarge, StoreFull."""
        self._limits.check_size({"aegis-turn": header} if header else {}, data)
        if gate is not None and self._last.get(f"gate.{gate[0]}", 0) != gate[1]:
            raise GateRefused("wrong last sequence")
        if subject in self._last and not rollup:
            raise AlreadyStored("maximum messages per subject exceeded")
        limit = self._limits.journal_max
        if limit is not None and subject not in self._last and len(self._last) >= limit:
            raise StoreFull("maximum messages exceeded")
        seq = self.last_seq + 1
        if (old := self._last.get(subject)) is not None:
            self._entries[old - 1] = None
        self._entries.append(Stored(seq, subject.split("."), header, data, time.time()))
        self._last[subject] = seq
        for request_id in ids_of(header) if header else ():
            self._by_request.setdefault(request_id, seq)
        for listener in list(self.listeners):
            listener()
        return seq

    def at(self, seq: int) -> Stored | None:
        """None when it was replaced."""
        return self._entries[seq - 1] if 1 <= seq <= self.last_seq else None

    def get(self, subject: str) -> Stored | None:
        return self.at(self._last.get(subject, 0))

    def entries(self) -> Iterator[Stored]:
        return (entry for entry in self._entries if entry is not None)

    def record(self, request_id: str) -> Record | None:
        """The outcome of a request, wherever it stands."""
        entry = self.at(self._by_request.get(request_id, 0))
        if entry is None:
            return None
        return next((r for r in entry.records() if r.request_id == request_id), None)

    def has_ended(self, request: Request) -> bool:
        """It has an outcome, or its caller gave it up."""
        end = f"end.{encode_token(request.resource or '')}.{request.request_id}"
        return self.record(request.request_id) is not None or self.get(end) is not None

    def records(self) -> list[Record]:
        """All outcomes, in the order in which they were stored."""
        return [record for entry in self.entries() for record in entry.records()]
