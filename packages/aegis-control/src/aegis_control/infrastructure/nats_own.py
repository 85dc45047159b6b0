"""Ownership entries and gates in the services' logs, as control reads and stores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.checkpoint import SAVED, SavedUpTo
from aegis_sdk.contract.turns.entries import EntryUnreadable, Moves
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.turns.ownership import NOBODY
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.codes import ERR_NO_STREAM, ERR_STORE_FAILED, ROLLUP
from aegis_sdk.nats.jetstream import (
    ApiRefused,
    JetStream,
    Kept,
    Outgoing,
    Refusal,
    from_seq,
)

from aegis_control.application.ports import NotWritten
from aegis_control.domain.leading.owning import StoredGate, StoredMoves

TIMEOUT_S: Final = 2.0
_TAKEN: Final = "per subject"
"""The server tells by its words alone that the subject has a message; a full stream has the same code."""


class NatsOwnLog:
    """An `OwnLog`."""

    def __init__(self, js: JetStream, subjects: Subjects) -> None:
        self._js = js
        self._subjects = subjects

    @property
    def entry_bytes_max(self) -> int:
        return self._js.link.payload_bytes_max

    async def saved(self, service: str) -> dict[str, SavedUpTo]:
        names = LogSubjects(self._subjects, service)
        try:
            reading = self._js.read_last_of_each(names.stream, names.checkpoints, headers_only=True)
            found = [(_resource(names, stored), _saved(stored)) async for stored in reading]
        except ApiRefused as error:
            if error.code == ERR_NO_STREAM:
                return {}
            raise Unavailable(f"log {names.stream}: {error}") from error
        return {resource: saved for resource, saved in found if resource is not None}

    async def read(self, service: str, *, after: int) -> list[StoredMoves | StoredGate]:
        names = LogSubjects(self._subjects, service)
        filters = [names.own_anywhere, names.gate("*")]
        try:
            reading = self._js.read(names.stream, filters, from_seq(after + 1))
            entries = [_entry(names, stored) async for stored in reading]
        except ApiRefused as error:
            if error.code == ERR_NO_STREAM:
                return []
            raise Unavailable(f"log {names.stream}: {error}") from error
        return [entry for entry in entries if entry is not None]

    async def write(self, service: str, number: int, entry: Moves) -> int | NotWritten:
        subject = LogSubjects(self._subjects, service).own(number)
        [result] = await self._js.publish_all(
            [Outgoing(subject, entry.encode())], timeout_s=TIMEOUT_S
        )
        if not isinstance(result, Refusal):
            return NotWritten.UNKNOWN if result is None else result
        if result.code == ERR_STORE_FAILED and _TAKEN in result.message:
            return NotWritten.CONFLICT
        raise Unavailable(f"ownership entry {subject}: {result.message} ({result.code})")

    async def shut_out(self, service: str, writers: Sequence[str]) -> list[int | None]:
        names = LogSubjects(self._subjects, service)
        gates = [Outgoing(names.gate(writer), b"", {ROLLUP: "sub"}) for writer in writers]
        results = await self._js.publish_all(gates, timeout_s=TIMEOUT_S)
        return [result if isinstance(result, int) else None for result in results]


def _resource(names: LogSubjects, stored: Kept) -> str | None:
    """None for a stranger's."""
    try:
        return decode_token(names.words(stored.subject)[1])
    except ValueError:
        return None


def _saved(stored: Kept) -> SavedUpTo:
    try:
        return SavedUpTo.parse(stored.headers.get(SAVED, ""))
    except ValueError:
        return SavedUpTo(0, 0, 0, 0, NOBODY)  # it keeps all of the log


def _entry(names: LogSubjects, stored: Kept) -> StoredMoves | StoredGate | None:
    """None for a stranger's. Raises: Unavailable, for one that counts and is another version's."""
    kind, word = names.words(stored.subject)
    if kind == "gate":
        return StoredGate(stored.seq, word)
    if not (word.isdecimal() and word.isascii()):
        return None
    try:
        return StoredMoves(stored.seq, int(word), Moves.decode(stored.payload), stored.at_s)
    except EntryUnreadable as error:
        raise Unavailable(f"{stored.subject}: {error}") from error
