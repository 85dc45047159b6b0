"""Reads a service's log in order, for ever: one reader for an instance, without filters.

After a gap, a silence or a new connection it goes on behind the last entry that it gave. Invariant: what it gives is in the
log's order, each entry once, none left out but gates that were replaced and ends that have expired (R5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aegis_sdk.contract.ids import is_request_id
from aegis_sdk.contract.names import decode_token
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import TURN, EntryUnreadable, Moves, decode_turn, writer_of
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.turns.entries import Claim, End, Entry, Gate, Own, Saved, Settled, Turn
from aegis_sdk.infrastructure.consumer import Meta, PullLoop
from aegis_sdk.infrastructure.journal import make_reader
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

CREDIT: Final = 128
"""Entries on their way to a reader: turns, a few kilobytes each under load."""
_TURN: Final = TURN.encode()

OnEntry = Callable[[Entry | Claim], None]
OnUnreadable = Callable[[int, str], None]


class LogReader:
    """`own`: the writer whose turns are given without their outcomes, since it knows them."""

    def __init__(
        self,
        link: Link,
        names: LogSubjects,
        *,
        on_entry: OnEntry,
        on_unreadable: OnUnreadable,
        filters: Sequence[str] = (),
        own: str = "",
    ) -> None:
        self._link = link
        self._names = names
        self._filters = list(filters) or names.folded
        self._on_entry = on_entry
        self._on_unreadable = on_unreadable
        self._own = own
        self.position = 0
        """The last entry that was given."""
        self._moved = asyncio.Event()
        self._loop = PullLoop(
            link,
            names.stream,
            make=self._make,
            on_message=self._read,
            credit=CREDIT,
            in_order=True,
            holds=False,
            owned=True,
        )

    async def start(self, *, after: int = 0) -> None:
        """Give what is behind position `after`. Raises: StoreForbidden."""
        self.position = after
        await self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    @property
    def lag_entries(self) -> int:
        """Stored and not given yet, as of the last one given."""
        return self._loop.pending

    async def reached(self, seq: int) -> None:
        """Return when the entry at `seq`, or one behind it, was given."""
        while self.position < seq:
            self._moved.clear()
            await self._moved.wait()

    async def _make(self, again: bool, timeout_s: float) -> str:
        start: dict[str, Any] = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.position + 1,
        }
        name, _, self._loop.pending = await make_reader(
            self._link, self._names.stream, self._filters, start, timeout_s=timeout_s
        )
        return name

    def _read(self, message: Message, meta: Meta) -> None:
        try:
            entry = parse_entry(self._names, message, meta, own=self._own)
        except EntryUnreadable as error:
            log.error(
                "entry_unreadable", subject=message.subject, seq=meta.stream_seq, error=str(error)
            )
            self._on_unreadable(meta.stream_seq, f"{message.subject}: {error}")
        else:
            if entry is not None:
                self._on_entry(entry)
        self.position = meta.stream_seq
        self._moved.set()


def parse_entry(
    names: LogSubjects, message: Message, meta: Meta, *, own: str = ""
) -> Entry | Claim | None:
    """None for what is no entry: a stranger's, or of a kind that does not concern whoever folds the log.

    Raises: EntryUnreadable for one that counts and can't be read.
    """
    kind, *words = names.words(message.subject)
    parse = _KINDS.get((kind, len(words)))
    entry = None if parse is None else parse(message, meta, words, own)
    if entry is None:
        log.warning("entry_of_no_known_kind", subject=message.subject, seq=meta.stream_seq)
    return entry


def _turn(message: Message, meta: Meta, words: list[str], own: str) -> Entry | None:
    writer, number = words[:2]
    if not (number.isdecimal() and number.isascii()) or not message.header(_TURN):
        return None
    settled = () if writer == own else _settled(message)
    return Turn(meta.stream_seq, writer, int(number), settled, message.data, meta.stored_s)


def _single(message: Message, meta: Meta, words: list[str], own: str) -> Entry | None:
    if words[1] != "out" or not message.header(_TURN):
        return None
    writer = writer_of(message.data)
    settled = () if writer == own else _settled(message)
    name = f"{words[2]}.{words[3]}"
    return Turn(meta.stream_seq, writer, name, settled, message.data, meta.stored_s)


def _saved(message: Message, meta: Meta, words: list[str], own: str) -> Entry | None:
    if words[1] != "state":
        return None
    try:
        return Saved(meta.stream_seq, Checkpoint.decode(message.data), meta.stored_s)
    except ValueError as error:
        raise EntryUnreadable(f"a checkpoint: {error}") from error


def _settled(message: Message) -> list[Settled]:
    """Raises: EntryUnreadable."""
    return [
        Settled(record.request_id, record.resource or "", record.outcome)
        for record in decode_turn(message.data)
    ]


def _gate(_: Message, meta: Meta, words: list[str], own: str) -> Entry:
    return Gate(meta.stream_seq, words[0])


def _claim(_: Message, meta: Meta, words: list[str], own: str) -> Claim:
    return Claim(meta.stream_seq, words[0], words[1])


def _own(message: Message, meta: Meta, words: list[str], own: str) -> Entry | None:
    (number,) = words
    if not (number.isdecimal() and number.isascii()):
        return None
    return Own(meta.stream_seq, int(number), Moves.decode(message.data).moves)


def _end(_: Message, meta: Meta, words: list[str], own: str) -> Entry | None:
    request_id = f"{words[1]}.{words[2]}"
    try:
        resource = decode_token(words[0])
    except ValueError:
        return None
    if not is_request_id(request_id):
        return None
    return End(meta.stream_seq, resource, request_id, meta.stored_s)


_Parse = Callable[[Message, Meta, list[str], str], Entry | Claim | None]
_KINDS: Final[Mapping[tuple[str, int], _Parse]] = {
    ("turn", 2): _turn,
    ("turn", 4): _turn,
    ("gate", 1): _gate,
    ("own", 1): _own,
    ("end", 3): _end,
    ("at", 4): _single,
    ("at", 2): _saved,
    ("claim", 2): _claim,
}
"""By the kind, and the number of words behind it."""
