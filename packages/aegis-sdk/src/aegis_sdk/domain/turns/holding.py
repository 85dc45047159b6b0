"""What operators have paused, as one writer knows it: what it refuses, and what it keeps for later.

Theory of operation. Each ownership entry tells all that is paused (contract/turns/holds.py), so that of two the later one
counts. Behind the entry of a pause stands a new gate of every writer that may begin what it names. A turn that a writer
makes without having read the pause is refused by that gate, and what it computed is judged again (R1, R7). So nothing of a
paused thing that a pure handler computes afterwards takes effect, whoever computes it.

What waits, and may not begin, ends without effect: its outcome is `paused`, out of its queue's order. A stored request
without a deadline is what `submit` made: nobody waits for it, and it was accepted. It stays, beside its queue, and goes
back to where it was when it is resumed. So does a timer's, since its outcome would end the timer. What has begun goes on.

What must stay true: a request is judged by what is paused in the same step in which it begins. What would break: a look at
any other time lets one begin that waits behind another.
"""

from __future__ import annotations

from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.turns.holds import NO_HOLDS, Hold, Holds, hold_of, in_words
from aegis_sdk.domain.turns.states import WorkState
from aegis_sdk.domain.turns.work import Held, Work
from aegis_sdk.errors import Paused

_BEGUN = frozenset({WorkState.RUNNING, WorkState.READY, WorkState.STORING})


class Holding:
    """Of one writer."""

    __slots__ = ("holds", "number")

    def __init__(self) -> None:
        self.holds: Holds = NO_HOLDS
        self.number = 0
        """The ownership entry that said so; the newest one that is known."""

    def take(self, number: int, holds: Holds) -> bool:
        """Ownership entry `number` has these; whether that changes anything."""
        if number <= self.number:
            return False
        self.number = number
        before, self.holds = self.holds, holds
        return before != holds

    def covers(self, request: Request) -> bool:
        return hold_of(self.holds, request.method, request.resource) is not None

    def refusal(self, request: Request) -> Outcome | None:
        """What is said of a request that is paused."""
        found = hold_of(self.holds, request.method, request.resource)
        return None if found is None else _paused(request, *found)

    def counts(self, works: list[Work]) -> tuple[int, int]:
        """Of what is paused: how many have begun and have no outcome in the log yet, and how many wait.

        Whose refusal is being stored has not begun, and waits for nothing.
        """
        held = [work for work in works if self.covers(work.request) and not _is_refused(work)]
        begun = sum(work.state in _BEGUN for work in held)
        return begun, len(held) - begun


def _is_refused(work: Work) -> bool:
    return work.outcome is not None and work.outcome.kind is OutcomeKind.CANCELLED


def is_kept(work: Work) -> bool:
    """Whether it waits until it is resumed, and is not refused."""
    return bool(work.timer) or (bool(work.stored_seq) and work.request.deadline_s is None)


def put_back(held: Held) -> None:
    """What was kept stands before all that came later, and what is urgent before what is not."""
    kept, held.kept = [w for w in held.kept if w.state is WorkState.WAITING], []
    queue = held.queue
    begun, urgent = [], []
    while kept and queue and queue[0].state is not WorkState.WAITING:
        begun.append(queue.popleft())
    while kept and queue and queue[0].urgent:
        urgent.append(queue.popleft())
    first = [*begun, *(w for w in kept if w.urgent), *urgent, *(w for w in kept if not w.urgent)]
    queue.extendleft(reversed(first))


def _paused(request: Request, what: str, hold: Hold) -> Outcome:
    by = f" by {hold.by}" if hold.by else ""
    why = f": {hold.reason}" if hold.reason else ""
    return Outcome.error(
        OutcomeKind.CANCELLED,
        Paused.code,
        f"{in_words(request.service, what)} is paused{by}{why}",
        details={"since": hold.since_s, "by": hold.by, "reason": hold.reason},
        fingerprint=request.fingerprint,
        traceparent=request.traceparent,
    )
