"""Ends the doubt about requests that nobody answers for, as domain/turns/giveup.py has it: the steps, on NATS.

Theory of operation. In go requests past their deadline; out comes, for each, its outcome or the certainty that it has none
and never will (G4, R6). The steps and why they are in this order stand in giveup.py. What is decided here is what each step
reads, and from whom:

- *Ends* are stored create-only, with a time to live that outlasts every copy of the request: `ends_kept_s` for one that was
  only sent (R9 has an owner refuse it after half of that), two days for one that may be stored.
- *Who may write* is followed from the log itself, by ownership entries and gates, up to the last end. The part that was trimmed
  is told by the newest checkpoints. If the trim has gone on since the following began, what is known has a hole: it is dropped,
  and the step fails. A missing writer would be one that could still store what was called cancelled.
- *Gates* are stored for each of these writers.
- *The outcomes* are read by headers up to the last gate, from a moment before the first request was sent. That moment is
  counted by the log's clock: the place where an end was stored says what time it is there. The caller's own clock may be
  hours off.

A failure in any step raises, and nothing is told. The caller asks again with the same requests: ends that stand
already are found, gates that stand behind them count, and the rest is done anew. A crash in between leaves ends that expire,
and gates, each of which costs its writer one refused turn at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from aegis_sdk.application.ports import StoreUnreachable
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.turns.entries import Claim, Entry, Gate, Own
from aegis_sdk.domain.turns.giveup import GivingUp
from aegis_sdk.domain.turns.ownership import UNOWNED, MissingOwnership, Ownership
from aegis_sdk.domain.turns.sessions import is_single
from aegis_sdk.infrastructure.messages import message_at
from aegis_sdk.infrastructure.turns.log import store_cancel, store_end, store_gate
from aegis_sdk.infrastructure.turns.reader import LogReader
from aegis_sdk.infrastructure.turns.search import outcomes_up_to
from aegis_sdk.infrastructure.turns.start import newest_saved
from aegis_sdk.nats.link import Link

AT_ONCE_MAX: Final = 256
"""Ends, or cancels, that are on their way together: thousands of callers may give up at one moment."""
READ_TIMEOUT_S: Final = 2.0
"""How long the log may be silent, or take to be followed up to the ends, before this try is over."""
STORED_ENDS_KEPT_S: Final = 2 * 86_400.0
"""An end outlives the stored copy of its request, whose stream keeps it for a day as a rule."""
CLOCK_SLACK_S: Final = 1.0
"""The log's clock may be set back by so much between a request and the end of it."""


class _Owners:
    """Who may write, by the log of one service: what is left of it is read when it is first needed, and then followed.

    What was trimmed before that is told by the newest checkpoints: who stored one, and which entries stand behind it.

    One for each service that a client ever gave up on, for as long as the client lives: the next ones that give up wait for
    what is new alone. `unreadable` set: it must not be used again, and `_read_owners` makes another one.
    """

    def __init__(self, link: Link, names: LogSubjects) -> None:
        self._link = link
        self._names = names
        self._first = 1
        """The first ownership entry that was there."""
        self.ownership = Ownership()
        self.unreadable = ""
        self.reader = LogReader(
            link,
            names,
            on_entry=self._read,
            on_unreadable=self._cannot,
            filters=names.ownership_and_ends,
        )

    def _read(self, entry: Entry | Claim) -> None:
        if isinstance(entry, Own):
            if not self.ownership.number:
                self._first = entry.number
            try:
                self.ownership.read_own(entry.number, entry.moves)
            except MissingOwnership as error:
                self._cannot(entry.seq, str(error))
        elif isinstance(entry, Gate):
            self.ownership.read_gate(entry.writer, entry.seq)

    def _cannot(self, seq: int, why: str, _: Sequence[str] = ()) -> None:
        self.unreadable = f"entry {seq}: {why}"

    async def may_write(self, resources: Collection[str]) -> set[str]:
        """All whose turns may hold any of them; in doubt one more, since a needless gate does no harm. Raises: StoreError.

        A log that begins with its first ownership entry tells everything. Else the newest checkpoint of each resource names its
        writer, who may have written since; from its `own` on, the entries that are left say who came after. If the first
        of these is later than the next one, something was trimmed in between.
        """
        writers = set().union(*map(self.ownership.may_write, resources))
        if self._first > 1:
            for saved in await newest_saved(self._link, self._names, resources):
                if saved.own + 1 < self._first:
                    self._cannot(0, "more of it was trimmed while it was read")
                    raise StoreUnreachable(self.unreadable)
                writers.add(saved.writer)
        return writers - UNOWNED


class LogsLastWord:
    """LastWord (application/turns/ports.py), of one client, for all services that it asks. `close` ends its readers."""

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        *,
        ends_kept_s: float,
        recorder: Recorder = NO_RECORDER,
    ) -> None:
        self._recorder = recorder
        self._link = link
        self._subjects = subjects
        self._ends_kept_s = ends_kept_s
        self._owners: dict[str, _Owners] = {}

    async def close(self) -> None:
        for owners in self._owners.values():
            await owners.reader.stop()

    async def settle(
        self, service: str, requests: Sequence[Request], *, open_s: float, stored: bool
    ) -> dict[str, Outcome]:
        """Singles and the group's need no gate: who creates the outcome's name first has decided it. The others go by R6."""
        names = LogSubjects(self._subjects, service)
        named = [r for r in requests if r.resource is None or is_single(r.request_id)]
        targeted = {
            r.request_id: r.resource
            for r in requests
            if r.resource is not None and not is_single(r.request_id)
        }
        found = await self._cancel(named, names)
        if targeted:
            kept_s = STORED_ENDS_KEPT_S if stored else self._ends_kept_s
            found |= await self._end(GivingUp(targeted), names, open_s=open_s, kept_s=kept_s)
        return found

    async def _cancel(self, requests: Sequence[Request], names: LogSubjects) -> dict[str, Outcome]:
        """Under the name of each one's outcome: create-only, so what stands there is how it ended."""
        found: dict[str, Outcome] = {}
        for at in range(0, len(requests), AT_ONCE_MAX):
            some = requests[at : at + AT_ONCE_MAX]
            outcomes = await asyncio.gather(*(store_cancel(self._link, names, r) for r in some))
            found |= zip((r.request_id for r in some), outcomes, strict=True)
        return found

    async def _end(
        self, giving_up: GivingUp, names: LogSubjects, *, open_s: float, kept_s: float
    ) -> dict[str, Outcome]:
        ends = await self._store_ends(names, giving_up.ends, kept_s)
        log_s = await self._stored_s(names, min(ends))
        giving_up.ended(ends, {})
        owners = await self._read_owners(names, giving_up.last_end)
        writers = await owners.may_write(giving_up.resources)
        giving_up.found(writers, owners.ownership.gates)
        giving_up.shut([await store_gate(self._link, names, w) for w in giving_up.writers])
        for _ in giving_up.writers:
            self._recorder.gate("gave_up")
        giving_up.looked(
            await outcomes_up_to(
                self._link,
                names,
                giving_up.ends,
                from_s=log_s - open_s - CLOCK_SLACK_S,
                to_seq=giving_up.last_gate,
                silence_s=READ_TIMEOUT_S,
            )
        )
        return giving_up.outcomes

    async def _store_ends(
        self, names: LogSubjects, ends: Mapping[str, str], kept_s: float
    ) -> list[int]:
        todo, seqs = list(ends.items()), []
        for at in range(0, len(todo), AT_ONCE_MAX):
            seqs += await asyncio.gather(
                *(
                    store_end(self._link, names, resource, request_id, kept_s=kept_s)
                    for request_id, resource in todo[at : at + AT_ONCE_MAX]
                )
            )
        return seqs

    async def _stored_s(self, names: LogSubjects, seq: int) -> float:
        """When the entry was stored, by the log's own clock: the callers' may be another."""
        return (await message_at(self._link, names.stream, seq)).at_s

    async def _read_owners(self, names: LogSubjects, seq: int) -> _Owners:
        """As it is at `seq`, or a little later. Raises: StoreError, when it was not read in time, or can't be."""
        owners = self._owners.get(names.service)
        if owners is not None and owners.unreadable:  # the trim may have overtaken it
            await self._owners.pop(names.service).reader.stop()
            owners = None
        if owners is None:
            owners = _Owners(self._link, names)
            await owners.reader.start()
            self._owners[names.service] = owners
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await owners.reader.reached(seq)
        except TimeoutError as error:
            raise StoreUnreachable(f"the log of {names.service} was not read") from error
        if owners.unreadable:
            raise StoreUnreachable(owners.unreadable)
        return owners
