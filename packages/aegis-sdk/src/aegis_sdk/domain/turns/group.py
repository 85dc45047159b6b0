"""Requests to the group, which have no resource: run any number at a time, each with an outcome under its own name.

Theory of operation. No state depends on them, so no gate guards them: whoever stores an outcome under a request's name is
the first, and there is no second. A caller that gives up stores its cancel there (giveup.py), and so knows. A request that
comes again, to whichever member, may run again; its first outcome counts.

What a handler hands in is part of that outcome, and there is no next owner to send it if this process dies in between. So the
request itself has to be stored first, as a caller in doubt would do it, and is acknowledged when all is sent. If not, it is
delivered again, its outcome is found, and what that hands in is sent again.

What is paused (holding.py) ends without effect when its turn comes. Since no gate tells a member that it has missed a pause,
each looks at what it knows. What a member may have begun that is gone, or waits without a deadline, goes back to the broker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from aegis_sdk.contract.envelope import Change, Outcome, Request
from aegis_sdk.contract.ids import is_keyed
from aegis_sdk.domain.turns.desk import Desk
from aegis_sdk.domain.turns.holding import Holding, is_kept
from aegis_sdk.domain.turns.output import Sending
from aegis_sdk.domain.turns.states import Why, WorkEvent, WorkState
from aegis_sdk.domain.turns.work import Work, Write

Compute = Callable[[Request, Mapping[str, Any], int], Outcome]
"""A pure handler: (request, the resource's values, epoch) to an outcome. It never raises."""

Expire = Callable[[Request, int], Outcome]
"""What is said of a request whose deadline has passed: (request, epoch) to an outcome."""

_NOTHING: Mapping[str, Any] = {}


class Group:
    """This instance's share of the group's requests."""

    def __init__(
        self, desk: Desk, compute: Compute, *, at_a_time: int, holding: Holding | None = None
    ) -> None:
        self._desk = desk
        self._holding = holding or Holding()
        self._compute = compute
        self._at_a_time = at_a_time
        self._waiting: deque[Work] = deque()
        self._ready: deque[Work] = deque()
        self._running = 0

    def accept(self, work: Work) -> None:
        work.single = True
        known = self._desk.known(work.request.request_id)
        if known is not None:
            self.settle(work, known, WorkEvent.FOUND)
        elif self._desk.admit(work):
            self._waiting.append(work)

    def compose(self, now_s: float) -> None:
        """Begin what may begin; store what is ready."""
        while self._waiting and self._running < self._at_a_time:
            self._begin(self._waiting.popleft(), now_s)
        while self._ready:
            self._store(self._ready.popleft(), now_s)

    def _begin(self, work: Work, now_s: float) -> None:
        if work.state is not WorkState.WAITING:
            return
        if self._desk.is_too_old(work, now_s):
            self._desk.drop(work, Why.LATE)
        elif not work.looked_up and (
            work.suspect or work.request.attempt > 1 or is_keyed(work.request.request_id)
        ):
            self._desk.ask(work)
        elif self._holding.holds and self._is_held_back(work):
            return
        elif work.pure and not work.suspect:
            self._computed(work, self._compute(work.request, _NOTHING, 0))
        else:
            work.step(WorkEvent.BEGUN)
            self._running += 1
            self._desk.out.run.append(work)

    def _is_held_back(self, work: Work) -> bool:
        """Whether it is paused; if so, what becomes of it."""
        refusal = self._holding.refusal(work.request)
        if refusal is None:
            return False
        if is_kept(work) or work.suspect:
            self._desk.drop(work, Why.MOVED)
        else:
            self.cancel(work, refusal)
        return True

    def computed(self, work: Work, outcome: Outcome) -> None:
        """A handler that waits has finished."""
        self._running -= 1
        self._computed(work, outcome)

    def moved(self, more: int) -> None:
        """So many more handlers are at work than before: one that waits for others is not."""
        self._running += more

    def _computed(self, work: Work, outcome: Outcome) -> None:
        work.step(WorkEvent.COMPUTED)
        work.outcome = outcome
        if _sends_of(outcome) and not work.stored_seq:
            self._desk.out.keep.append(work)
        else:
            self._ready.append(work)

    def kept(self, work: Work, stored_seq: int) -> None:
        """The request is stored, at that place."""
        work.stored_seq = stored_seq
        self._ready.append(work)

    def cancel(self, work: Work, outcome: Outcome) -> None:
        """It has not begun: `outcome` says that it never will."""
        work.step(WorkEvent.COMPUTED)
        work.outcome = outcome
        self._ready.append(work)

    def _store(self, work: Work, now_s: float) -> None:
        outcome = work.outcome
        assert outcome is not None
        if self._desk.is_too_old(work, now_s):
            self._desk.drop(work, Why.LATE)
            return
        write = Write(0, 0)
        write.add(work, outcome)
        self._desk.out.store.append(write)

    def looked_up(self, work: Work, found: Outcome | None) -> None:
        if found is not None:
            self.settle(work, found, WorkEvent.FOUND)
        else:
            work.step(WorkEvent.NOT_FOUND)
            work.looked_up = True
            self._waiting.append(work)

    def settle(self, work: Work, outcome: Outcome, event: WorkEvent) -> None:
        """Its outcome is stored. Who stored it may have died before it sent what that hands in."""
        sends = _sends_of(outcome)
        if not sends:
            self._desk.settle(work, outcome, event)
            return
        self._desk.close(work, outcome, event)
        work.unsent = len(sends)
        self._desk.out.send += [Sending("", 0, content, work) for content in sends]

    def sent(self, work: Work) -> None:
        work.unsent -= 1
        if work.unsent == 0:
            self._desk.out.answer.append(work)


def _sends_of(outcome: Outcome) -> tuple[Mapping[str, Any], ...]:
    if not outcome.change:
        return ()
    change = outcome.changed or Change.decode(outcome.change)
    return change.send
