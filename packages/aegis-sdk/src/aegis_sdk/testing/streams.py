"""The streams that the bus keeps in memory: what a server stores and checks, and nothing of links.

Each write is atomic, as on a server: it is checked and stored in one step of the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aegis_sdk.application.ports import (
    Accepted,
    AlreadyStored,
    FenceRefused,
    StoreFull,
    StoreTooLarge,
)
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import resource_token
from aegis_sdk.domain.journal import Entry, EntryKind

DEDUP_WINDOW_S: Final = 120.0

Key = tuple[str, EntryKind, str]
"""What a journal subject says: resource token, kind, name."""


@dataclass(slots=True)
class Limits:
    """The server's bounds; change them in a test as an operator would."""

    payload_bytes_max: int = 1 << 20
    requests_max: int | None = None
    """Requests a stream takes; more are refused (StoreFull)."""
    journal_max: int | None = None

    def check_size(self, headers: Mapping[str, str], payload: bytes) -> None:
        """Headers count, as on the server. Raises: StoreTooLarge."""
        lines = sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
        size = len(payload) + (lines + 12 if headers else 0)
        if size > self.payload_bytes_max:
            raise StoreTooLarge(f"{size} bytes are over max_payload ({self.payload_bytes_max})")


class RequestStream:
    """A service's requests. `listeners` are called after each new one."""

    def __init__(self, service: str, limits: Limits) -> None:
        self.service = service
        self.listeners: list[Callable[[], None]] = []
        self.ack_floors: dict[str, int] = {}
        """grant: all its requests up to this sequence are acknowledged."""
        self._limits = limits
        self._stored: list[Request] = []
        self._ids: dict[str, tuple[int, float]] = {}

    @property
    def last_seq(self) -> int:
        return len(self._stored)

    def append(self, request: Request, *, now_s: float) -> Accepted:
        """Raises: StoreFull, StoreTooLarge."""
        self._limits.check_size(request.headers(), request.payload)
        seq, seen_s = self._ids.get(request.request_id, (0, 0.0))
        if seq and now_s - seen_s < DEDUP_WINDOW_S:
            return Accepted(seq, duplicate=True)
        if self._limits.requests_max is not None and self.last_seq >= self._limits.requests_max:
            raise StoreFull("maximum messages exceeded")
        self._stored.append(self._as_stored(request))
        self._ids[request.request_id] = (self.last_seq, now_s)
        for listener in list(self.listeners):
            listener()
        return Accepted(self.last_seq, duplicate=False)

    def get(self, seq: int) -> Request | None:
        return self._stored[seq - 1] if 1 <= seq <= self.last_seq else None

    def forget_ids(self) -> None:
        """What a server that was killed may do: know no id of the dedup window any more."""
        self._ids.clear()

    def _as_stored(self, request: Request) -> Request:
        """Through its wire form, so that what the wire can't carry shows in tests too."""
        return Request.parse(
            request.headers(), request.payload, service=self.service, resource=request.resource
        )


class JournalStream:
    """A service's journal: one entry a subject, create-only but for rollups, checked against fences."""

    def __init__(self, limits: Limits) -> None:
        self.listeners: list[Callable[[], None]] = []
        self._limits = limits
        self._entries: list[tuple[Key, Entry] | None] = []
        self._last: dict[Key, int] = {}

    @property
    def last_seq(self) -> int:
        return len(self._entries)

    def write(
        self,
        key: Key,
        payload: bytes,
        headers: dict[str, str],
        *,
        rollup: bool = False,
        fence_seq: int | None = None,
    ) -> int:
        """Raises: FenceRefused, AlreadyStored, StoreTooLarge, StoreFull."""
        self._check(key, payload, headers, rollup=rollup, fence_seq=fence_seq)
        seq = self._put(key, payload, headers)
        self._tell()
        return seq

    def write_together(
        self, posts: Sequence[tuple[Key, bytes, dict[str, str]]], *, fence_seq: int
    ) -> int:
        """All or none; the last one's sequence. Raises: as write."""
        for n, (key, payload, headers) in enumerate(posts):
            self._check(key, payload, headers, fence_seq=fence_seq, beside=n)
        if len({key for key, _, _ in posts}) < len(posts):
            raise AlreadyStored("maximum messages per subject exceeded")
        seqs = [self._put(*post) for post in posts]
        self._tell()
        return seqs[-1]

    def _check(
        self,
        key: Key,
        payload: bytes,
        headers: Mapping[str, str],
        *,
        rollup: bool = False,
        fence_seq: int | None = None,
        beside: int = 0,
    ) -> None:
        """`beside`: as many are to be stored before it."""
        self._limits.check_size(headers, payload)
        token = key[0]
        if fence_seq is not None and self.seq_of(fence_key(token)) != fence_seq:
            raise FenceRefused(f"wrong last sequence: {self.seq_of(fence_key(token))}")
        if key in self._last and not rollup:
            raise AlreadyStored("maximum messages per subject exceeded")
        limit = self._limits.journal_max
        if limit is not None and len(self._last) + beside >= limit:
            raise StoreFull("maximum messages exceeded")

    def _put(self, key: Key, payload: bytes, headers: dict[str, str]) -> int:
        token, kind, name = key
        old = self._last.get(key)
        if old is not None:
            self._entries[old - 1] = None
        entry = Entry(self.last_seq + 1, decode_token(token), kind, name, headers, payload)
        self._entries.append((key, entry))
        self._last[key] = entry.seq
        return entry.seq

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()

    def seq_of(self, key: Key) -> int:
        """Sequence of the entry of that subject; 0: it has none."""
        return self._last.get(key, 0)

    def get(self, key: Key) -> Entry | None:
        found = self._entries[self._last[key] - 1] if key in self._last else None
        return None if found is None else found[1]

    def outcome_anywhere(self, request_id: str) -> Entry | None:
        """The newest outcome of that id, whatever its resource."""
        found = [
            seq
            for (_, kind, name), seq in self._last.items()
            if kind is EntryKind.OUTCOME and name == request_id
        ]
        newest = self._entries[max(found) - 1] if found else None
        return None if newest is None else newest[1]

    def at(self, seq: int) -> tuple[Key, Entry] | None:
        """What is stored at `seq`; None when it was replaced or removed."""
        return self._entries[seq - 1] if 1 <= seq <= self.last_seq else None

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        return (found for found in self._entries if found is not None)

    def remove_parts(self, token: str, checkpoint: str) -> None:
        """Those whose name begins with `checkpoint`."""
        for key in list(self._last):
            if key[:2] == (token, EntryKind.PART) and key[2].startswith(checkpoint):
                self.remove(key)

    def remove(self, key: Key) -> None:
        """As a purge of that subject does."""
        seq = self._last.pop(key)
        self._entries[seq - 1] = None


def outcome_key(request: Request) -> Key:
    return resource_token(request.resource), EntryKind.OUTCOME, request.request_id


def attempt_key(request: Request) -> Key:
    return resource_token(request.resource), EntryKind.ATTEMPT, request.request_id


def fence_key(token: str) -> Key:
    return token, EntryKind.FENCE, ""


def outcome_of(entry: Entry) -> Outcome:
    return Outcome.found(entry.headers, entry.payload)
