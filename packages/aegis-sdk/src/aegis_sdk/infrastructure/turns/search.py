"""Looks for requests in a service's log by the headers of its entries, up to a position.

It is for what is seldom asked: a duplicate below a session's window, and callers that give up, all of one moment together.

Each turn and single lists its request ids in a header, so that bodies need not come: a search costs O(entries read), a few
hundred bytes each, whatever the outcomes' size. Only the entries that were found are then read whole.

"Not found" is an answer on which a request may be run, or called cancelled. So the search must be able to tell that it has seen
everything. With a position given, it has when an entry at or behind that was read. The entry itself may be gone by
then (a gate that was replaced, an end that expired), and nothing come after it; so in silence the server is asked what
is left (`_is_read`). A consumer that is made again goes on behind the last entry that was seen. Silence alone ends it with an
error, never with "not found".
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from aegis_sdk.application.ports import StoreUnreachable
from aegis_sdk.contract.envelope import Outcome, OutcomeKind
from aegis_sdk.contract.turns.entries import TURN, EntryUnreadable, decode_turn, ids_of
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.infrastructure.consumer import Meta, PullLoop, make_reader
from aegis_sdk.infrastructure.messages import last_message, message, message_at
from aegis_sdk.nats.jetstream import Kept
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.wire import Message
from aegis_sdk.telemetry import log

CREDIT: Final = 2000
"""Headers alone are small."""
LOOK_S: Final = 0.5
"""How often it is looked whether anything came."""
_TURN: Final = TURN.encode()


class _Search:
    """One search, which runs once. `found`: by request id, the first entry that lists it; a later one would be a second
    outcome, which G2 excludes.
    """

    def __init__(
        self,
        link: Link,
        names: LogSubjects,
        wanted: set[str],
        from_s: float | None,
        to_seq: int | None,
    ) -> None:
        self._link = link
        self._names = names
        self._wanted = wanted
        self._from_s = from_s
        self._next_seq = 0
        self._to_seq = to_seq
        self._ended = asyncio.Event()
        self.found: dict[str, int] = {}
        self._loop = PullLoop(
            link, names.stream, make=self._make, on_message=self._look, credit=CREDIT,
            in_order=True, holds=False, owned=True,
        )  # fmt: skip

    async def run(self, silence_s: float) -> None:
        """Raises: StoreError, also when nothing comes for so long; a long log takes its time."""
        try:
            async with asyncio.timeout(silence_s):
                await self._loop.start()
            heard_s = time.monotonic()
            while not self._ended.is_set():
                before = self._next_seq
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._ended.wait()
                if self._next_seq > before:
                    heard_s = time.monotonic()
                elif await self._is_read():
                    return
                elif time.monotonic() - heard_s > silence_s:
                    raise TimeoutError
        except TimeoutError as error:
            raise StoreUnreachable(f"nothing of the log came for {silence_s:g} s") from error
        finally:
            await self._loop.stop()

    async def _is_read(self) -> bool:
        """Whether nothing is left up to the place asked for: what stood there may be gone, and nothing come since."""
        if self._to_seq is None:
            return self._ended.is_set()
        asked = {"seq": max(1, self._next_seq), "next_by_subj": self._names.all}
        found = await message(self._link, self._names.stream, asked)
        return found is None or found.seq > self._to_seq

    async def _make(self, again: bool, timeout_s: float) -> str:
        start: dict[str, Any] = {"deliver_policy": "all"}
        if self._next_seq:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._next_seq}
        elif self._from_s is not None:
            at = datetime.fromtimestamp(self._from_s, UTC).isoformat().replace("+00:00", "Z")
            start = {"deliver_policy": "by_start_time", "opt_start_time": at}
        name, _, waiting = await make_reader(
            self._link, self._names.stream, [self._names.all], start | {"headers_only": True}, timeout_s=timeout_s,
        )  # fmt: skip
        if self._to_seq is None and not waiting:
            self._ended.set()
        return name

    def _look(self, message: Message, meta: Meta) -> None:
        self._next_seq = meta.stream_seq + 1
        for request_id in ids_of(message.header(_TURN)):
            if request_id in self._wanted:
                self.found.setdefault(request_id, meta.stream_seq)
        is_last = not meta.pending if self._to_seq is None else meta.stream_seq >= self._to_seq
        if is_last:
            self._ended.set()


async def outcomes_up_to(
    link: Link,
    names: LogSubjects,
    wanted: Iterable[str],
    *,
    from_s: float | None,
    to_seq: int | None,
    silence_s: float,
) -> dict[str, Outcome]:
    """Those of `wanted` that have an outcome in the log up to the entry at `to_seq`, which was there once; None: up to its end.

    One whose entry this version can't read is `unreadable`. `from_s`: Unix time before which none of them was sent. `silence_s`:
    how long nothing may come.
    Raises: StoreError.
    """
    search = _Search(link, names, set(wanted), from_s, to_seq)
    await search.run(silence_s)
    by_seq: dict[int, list[str]] = {}
    for request_id, seq in search.found.items():
        by_seq.setdefault(seq, []).append(request_id)
    found: dict[str, Outcome] = {}
    for seq, request_ids in by_seq.items():  # a turn has many
        found |= _outcomes_in(await message_at(link, names.stream, seq), request_ids)
    return found


async def outcome_at(
    link: Link, names: LogSubjects, subject: str, request_id: str
) -> Outcome | None:
    """In the entry at `subject`; one that this version can't read is `unreadable`. One read at the leader; `subject` may have
    wildcards, then it is the newest that matches. Raises: StoreError.
    """
    found = await last_message(link, names.stream, subject)
    return None if found is None else _outcomes_in(found, (request_id,)).get(request_id)


def _outcomes_in(entry: Kept, wanted: Collection[str]) -> dict[str, Outcome]:
    """Of the requests that the entry says it has."""
    try:
        records = decode_turn(entry.payload)
    except EntryUnreadable as error:
        log.error("entry_unreadable", subject=entry.subject, seq=entry.seq, error=str(error))
        return dict.fromkeys(wanted, unreadable(error))
    return {record.request_id: record.outcome for record in records if record.request_id in wanted}


def unreadable(error: EntryUnreadable) -> Outcome:
    """Of a request that ended, as its subject or header says, in a way that this version can't read."""
    return Outcome.error(OutcomeKind.UNREADABLE, "unreadable", str(error))
