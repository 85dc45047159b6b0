"""The one place where a request is settled or dropped, whether it was alone or part of a turn, of a resource or of the group.

Theory of operation. A request is *open* from when it is admitted until it is settled or dropped. A second copy of an open one
(it was sent and stored, say) joins the first: both are settled together. Of what was settled lately the outcomes are kept,
and a copy that comes later is answered from there. Whatever is older is told by sessions, or by the log.

What must stay true: what is settled has its outcome in the log; nothing is answered before (R8).
"""

from __future__ import annotations

from typing import Final

from aegis_sdk.contract.envelope import Outcome
from aegis_sdk.domain.turns.output import Output
from aegis_sdk.domain.turns.states import Why, WorkEvent, WorkState
from aegis_sdk.domain.turns.work import Work

QUEUE_MAX: Final = 20_000
"""Requests that wait at one writer. Beyond it callers are told to store theirs."""
RECENT_MAX: Final = 4096
"""Outcomes that are answered again from memory: at least so many, at most twice."""


class Desk:
    __slots__ = ("_older", "_recent", "_recent_max", "open", "out", "wait_max_s")

    def __init__(self, *, ends_kept_s: float, recent_max: int) -> None:
        self.open: dict[str, Work] = {}
        self.out = Output()
        self.wait_max_s = ends_kept_s / 2
        self._recent_max = recent_max
        self._recent: dict[str, Outcome] = {}
        self._older: dict[str, Outcome] = {}

    def admit(self, work: Work) -> bool:
        """Whether it is a new request, and open from now on."""
        request_id = work.request.request_id
        first = self.open.get(request_id)
        if first is not None:
            first.stored_seq = first.stored_seq or work.stored_seq
            first.sent_s = max(first.sent_s, work.sent_s)
            return False
        if (known := self.known(request_id)) is not None:
            self.settle(work, known, WorkEvent.FOUND)
            return False
        if len(self.open) >= QUEUE_MAX and not (work.stored_seq or work.timer):
            self.drop(work, Why.BUSY)
            return False
        self.open[request_id] = work
        return True

    def is_too_old(self, work: Work, now_s: float) -> bool:
        """Whether its end may be forgotten already (R9)."""
        return now_s - work.sent_s > self.wait_max_s

    def ask(self, work: Work) -> None:
        """It may have an outcome that is not known here."""
        work.step(WorkEvent.DOUBTED)
        self.out.look_up.append(work)

    def close(self, work: Work, outcome: Outcome, event: WorkEvent) -> None:
        """Its outcome is stored."""
        work.step(event)
        work.outcome = outcome
        work.found = event is WorkEvent.FOUND
        self.open.pop(work.request.request_id, None)
        self.remember(work.request.request_id, outcome)

    def settle(self, work: Work, outcome: Outcome, event: WorkEvent) -> None:
        """Its outcome is stored, and its caller is told."""
        self.close(work, outcome, event)
        self.out.answer.append(work)

    def drop(self, work: Work, why: Why) -> None:
        """Nothing of it was stored here, and nothing will be."""
        if work.state is WorkState.RUNNING:
            self.out.cancel.append(work)
        work.step(WorkEvent.LOST)
        work.why = why
        if self.open.get(work.request.request_id) is work:
            del self.open[work.request.request_id]
        self.out.dropped.append(work)

    def known(self, request_id: str) -> Outcome | None:
        """Its outcome, if it was stored lately."""
        return self._recent.get(request_id) or self._older.get(request_id)

    def remember(self, request_id: str, outcome: Outcome) -> None:
        self._recent[request_id] = outcome
        if len(self._recent) > self._recent_max:
            self._older, self._recent = self._recent, {}
