"""One replica leads. It renews its record; the rest wait, and take over when it stays still.

A leader that is cut off steps down by itself, but nothing depends on that: ownership entries
and leases are checked by the server, so two leaders for a moment undo nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aegis_sdk.errors import Unavailable

from aegis_control.application.ports import Bucket, BucketEntry, Clock, Events, NotWritten, Write
from aegis_control.application.unreadable import said_by
from aegis_control.domain.events import LeaderElected, LeaderRecordUnreadable, LeaderSteppedDown
from aegis_control.domain.leading.leadership import LeaderRecord, Sighting, may_take, seen, taken

LEADER_KEY = "leader"
UNKNOWN_LEADER = "unknown"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the leader renews, and after how long without a renewal it is replaced."""

    renewal_s: float = 0.25
    timeout_s: float = 1.0


class Leadership:
    """Runs `term` while this replica (`me`) leads.

    `term` is called at each election, and cancelled when the leadership is over; it should not
    return before.
    """

    def __init__(
        self,
        me: str,
        *,
        bucket: Bucket,
        clock: Clock,
        events: Events,
        pace: Pace,
        term: Callable[[], Awaitable[None]],
    ) -> None:
        self.me = me
        self._bucket = bucket
        self._clock = clock
        self._events = events
        self._pace = pace
        self._term = term
        self._seen: Sighting | None = None
        self._n = 0
        self._stop = asyncio.Event()
        self._hint = asyncio.Event()
        self.leading = False

    @property
    def leader(self) -> str:
        """The id of the leader as last heard; empty when nobody leads."""
        known = self._seen
        if known is None or known.released:
            return ""
        is_late = self._clock.monotonic() - known.since_s > 2 * self._pace.timeout_s
        return "" if is_late else known.leader

    def hint(self) -> None:
        """The record may have changed: look at it now."""
        self._hint.set()

    def stop(self) -> None:
        """End `run`: hand the leadership over if it is ours."""
        self._stop.set()
        self._hint.set()

    async def run(self) -> None:
        """Follow and lead until `stop`."""
        while not self._stop.is_set():
            with contextlib.suppress(Unavailable):
                await self._look()
                if await self._try_to_take():
                    await self._lead()
            await self._rest()

    async def _look(self) -> None:
        entry = await self._bucket.read(LEADER_KEY)
        record = self._record(entry) if entry is not None else None
        revision = entry.revision if entry else 0
        self._seen = seen(self._seen, revision, record, self._clock.monotonic())

    def _record(self, entry: BucketEntry) -> LeaderRecord | None:
        """One that can't be read is a leader of another version, for as long as it is renewed."""
        if not entry.value:
            return None
        try:
            return LeaderRecord.model_validate_json(entry.value)
        except ValueError as error:
            if self._seen is None or self._seen.leader != UNKNOWN_LEADER:
                self._events.emit(LeaderRecordUnreadable(key=LEADER_KEY, reason=said_by(error)))
            return LeaderRecord(id=UNKNOWN_LEADER)

    async def _try_to_take(self) -> bool:
        known = self._seen
        now_s = self._clock.monotonic()
        if known is None or not may_take(
            known, me=self.me, now_s=now_s, timeout_s=self._pace.timeout_s
        ):
            return False
        return await self._write(released=False)

    async def _write(self, *, released: bool) -> bool:
        """Store our record after the one last seen; False when somebody else wrote, or nobody knows."""
        assert self._seen is not None
        sent_s = self._clock.monotonic()
        self._n += 1
        record = LeaderRecord(id=self.me, n=self._n, released=released)
        data = record.model_dump_json().encode()
        [result] = await self._bucket.write([Write(LEADER_KEY, data, self._seen.revision)])
        if result is NotWritten.UNKNOWN:
            return False
        if isinstance(result, NotWritten):
            await self._adopt()
            return self._seen.leader == self.me and not self._seen.released
        self._seen = taken(self._seen, me=self.me, revision=result, now_s=sent_s)
        return True

    async def _adopt(self) -> None:
        """Refused: by somebody else's record, or by an earlier one of ours whose answer was lost."""
        entry = await self._bucket.read(LEADER_KEY)
        if entry is None or (record := self._record(entry)) is None:
            return
        # Counted from when it was seen, not sent; the next renewal is sent at once.
        self._seen = seen(self._seen, entry.revision, record, self._clock.monotonic())

    async def _lead(self) -> None:
        self.leading = True
        self._events.emit(LeaderElected(leader=self.me))
        term = asyncio.ensure_future(self._term())
        try:
            await self._renew_until_over(term)
        finally:
            self.leading = False
            term.cancel()
            await asyncio.gather(term, return_exceptions=True)
            self._report(term)
        is_ours = self._seen is not None and self._seen.leader == self.me
        if is_ours and (self._stop.is_set() or not term.cancelled()):
            # A term that broke may do better on another replica.
            with contextlib.suppress(Unavailable):
                await self._write(released=True)

    def _report(self, term: asyncio.Future[None]) -> None:
        error = None if term.cancelled() else term.exception()
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]  # the first one ended the term
        self._events.emit(LeaderSteppedDown(leader=self.me, reason=str(error or "")))

    async def _renew_until_over(self, term: asyncio.Future[None]) -> None:
        while not term.done() and not self._stop.is_set():
            stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait(
                [term, stopped],
                timeout=self._pace.renewal_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            stopped.cancel()
            if not self._stop.is_set() and not term.done() and not await self._renewed():
                return

    async def _renewed(self) -> bool:
        """Is the leadership still ours? A write without an answer leaves that open for a while."""
        assert self._seen is not None
        before = self._seen
        try:
            # Even late: when it is stored, nobody took over in the meantime.
            if await self._write(released=False):
                return True
        except Unavailable:
            return not self._is_over()
        return self._seen == before and not self._is_over()

    def _is_over(self) -> bool:
        """By our own clock, others may have taken over by now."""
        assert self._seen is not None
        return self._clock.monotonic() - self._seen.since_s > self._pace.timeout_s

    async def _rest(self) -> None:
        self._hint.clear()
        if self._stop.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.renewal_s):
                await self._hint.wait()
