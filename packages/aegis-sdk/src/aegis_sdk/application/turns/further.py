"""Resources that a running instance is given and does not hold: another fold reads them up to where it is, and is adopted.

Two readers read the same log. What the instance reads from now on is kept, so the fold needs to read no further than to the
first of that: the rest is given to it from there, in the moment in which both have read just as far. What can't be read is
kept, too: the fold stands back from the resources that it concerns.

A resource that nobody ever had begins with the ownership entry that names it, and the instance has asked for that entry. So what it
reads is kept from then on, and the fold has all it needs without a reader of its own: a consumer on a log of many subjects takes its
server milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from aegis_sdk.application.turns.host import TurnHost
from aegis_sdk.domain.turns.entries import Claim, Entry
from aegis_sdk.domain.turns.ownership import MissingOwnership
from aegis_sdk.domain.turns.work import BehindTrim
from aegis_sdk.domain.turns.writer import Writer
from aegis_sdk.telemetry import log

KEPT_MAX: Final = 10_000
"""Entries; a fold that would need more of them has a reader of its own."""


class Kept:
    """What the instance reads of its log from now on. `close` it."""

    def __init__(self, host: TurnHost, *, most: int = KEPT_MAX) -> None:
        self._host = host
        self._most = most
        self._after = host.writer.position
        self._entries: list[Entry] = []
        self._is_whole = True
        host.taps.append(self)

    def close(self) -> None:
        self._host.taps.remove(self)

    def behind(self, position: int) -> list[Entry] | None:
        """All that was read behind `position`; None when that is not known."""
        if not self._is_whole or position < self._after:
            return None
        return [entry for entry in self._entries if entry.seq > position]

    def folded(self, entry: Entry) -> None:
        if len(self._entries) >= self._most:
            self._give_up()
        elif self._is_whole:
            self._entries.append(entry)

    def not_folded(self, seq: int, why: str, words: Sequence[str]) -> None:
        self._give_up()

    def _give_up(self) -> None:
        self._is_whole = False
        self._entries.clear()


class Further:
    """`done` says whether the fold was adopted; else it has to begin anew, from newer checkpoints. In any case `close` it."""

    def __init__(self, fold: Writer, host: TurnHost, kept: Sequence[Entry] = ()) -> None:
        """`kept`: what the host has read behind where the fold begins; without it, a reader brings that."""
        self._fold = fold
        self._host = host
        self._begun_at = host.writer.position
        self._tail: list[Callable[[], None]] = []
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        host.taps.append(self)
        for entry in kept:
            self._read(entry)
        self._try()

    def close(self) -> None:
        self.done.cancel()
        self._host.taps.remove(self)

    # --- what the fold's own reader brings
    def entry(self, entry: Entry | Claim) -> None:
        if not self.done.done() and not isinstance(entry, Claim):
            self._read(entry)
            self._try()

    def unreadable(self, seq: int, why: str, words: Sequence[str]) -> None:
        if not self.done.done():
            self._host.stand_back(self._fold, seq, why, words)
            self._try()

    # --- what the instance's reader brings (Tap)
    def folded(self, entry: Entry) -> None:
        self._tail.append(partial(self._read, entry))
        self._try()

    def not_folded(self, seq: int, why: str, words: Sequence[str]) -> None:
        self._tail.append(partial(self._host.stand_back, self._fold, seq, why, words))
        self._try()

    def _try(self) -> None:
        """Adopt it, if it has read to where the kept entries begin."""
        fold, host = self._fold, self._host
        if self.done.done() or fold.position < self._begun_at:
            return
        tail, self._tail = self._tail, []
        for read in tail:
            read()
        if fold.position == host.writer.position and not self.done.done():
            host.adopt(fold)
            self.done.set_result(True)

    def _read(self, entry: Entry) -> None:
        if self.done.done():
            return
        try:
            self._fold.read(entry)
        except (MissingOwnership, BehindTrim, ValueError) as error:
            log.info("read_anew", writer=self._fold.name, reason=str(error))
            self.done.set_result(False)
