"""Reads a service's log in order, for ever: one reader for an instance, without filters.

After a gap, a silence or a new connection it goes on behind the last entry that it gave. Invariant: what it gives is in the
log's order, each entry once, none left out but gates that were replaced and ends that have expired (R5).

Everything that a writer knows comes this way, its own gate among it (R2): a gate that was heard of otherwise would be adopted
before what stands in front of it. So an entry that can't be read does not stop the reading. It is told with its words, which
name the resources that it concerns, and those alone are stood back from. A kind that is not known is passed over with a
log line: a newer version may have added it for itself.

Before a consumer is made again the watch looks whether it is the same log. An older copy, or another log with this
name, would be read on behind a position that means nothing in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aegis_sdk.application.turns.serving import OnEntry, OnUnreadable
from aegis_sdk.contract.turns.entries import TURN, EntryUnreadable
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.turns.parsing import parse_entry
from aegis_sdk.infrastructure.consumer import Meta, PullLoop, make_reader
from aegis_sdk.infrastructure.log_watch import LogWatch
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

CREDIT: Final = 128
"""Entries on their way to a reader: turns, a few kilobytes each under load."""
_TURN: Final = TURN.encode()


class LogReader:
    """A reader from `start` to `stop`. `own`: the writer whose turns are given without their outcomes, since it knows them.

    `on_entry` runs on the connection's reading, before the next entry is looked at. `position` is moved afterwards: whoever
    waits for it by `reached` finds everything up to there folded.
    """

    def __init__(
        self,
        link: Link,
        names: LogSubjects,
        *,
        on_entry: OnEntry,
        on_unreadable: OnUnreadable,
        filters: Sequence[str] = (),
        own: str = "",
        watch: LogWatch | None = None,
    ) -> None:
        """`watch` is told what is read, and asked whether it is still the same log before a consumer is made again."""
        self._link = link
        self._names = names
        self._filters = list(filters) or names.folded
        self._on_entry = on_entry
        self._on_unreadable = on_unreadable
        self._own = own
        self._watch = watch
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

    async def read_to_end(self) -> None:
        """Return when all was given that the log has now, as its server counts. Raises: StoreError."""
        await self._loop.read_to_end()

    async def reached(self, seq: int) -> None:
        """Return when the entry at `seq`, or one behind it, was given. It may be gone, and nothing follow: its caller sets
        a limit.
        """
        while self.position < seq:
            self._moved.clear()
            await self._moved.wait()

    async def _make(self, again: bool, timeout_s: float) -> str:
        if again and self._watch is not None:
            await self._watch.make_sure()
        start: dict[str, Any] = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.position + 1,
        }
        name, _, self._loop.pending = await make_reader(
            self._link, self._names.stream, self._filters, start, timeout_s=timeout_s
        )
        return name

    def _read(self, message: Message, meta: Meta) -> None:
        words = self._names.words(message.subject)
        if self._watch is not None:
            self._watch.passed(meta.stream_seq, message.subject, meta.stored_s, words[0])
        try:
            header = message.header(_TURN)
            entry = parse_entry(
                words, header, message.data, meta.stream_seq, meta.stored_s, own=self._own
            )
        except EntryUnreadable as error:
            log.error(
                "entry_unreadable", subject=message.subject, seq=meta.stream_seq, error=str(error)
            )
            self._on_unreadable(meta.stream_seq, f"{message.subject}: {error}", words)
        else:
            if entry is None:
                log.warning("entry_of_no_known_kind", subject=message.subject, seq=meta.stream_seq)
            else:
                self._on_entry(entry)
        self.position = meta.stream_seq
        self._moved.set()
