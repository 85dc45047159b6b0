"""What a writer has in hand: a request (`Work`), the resource it waits for (`Held`), an entry on its way (`Write`).

`Held` is also the fold of one resource: its values, the sessions of its callers, the ends, and the number of the last outcome
that is in them. An outcome with a number up to that one was folded before. One that leaves out a number shows that something
is missing from what this reader was given: the trim went past it while it slept.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from aegis_sdk.contract.envelope import Change, Outcome, Request
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import Begun
from aegis_sdk.domain.delivery import Verdict
from aegis_sdk.domain.turns.sessions import Sessions, split
from aegis_sdk.domain.turns.states import (
    HELD,
    WORK,
    HeldEvent,
    HeldState,
    Why,
    WorkEvent,
    WorkState,
    step,
)
from aegis_sdk.domain.turns.timers import Timers

TURN_MAX: Final = 256
"""Outcomes in one turn."""
TURN_BYTES_MAX: Final = 128 * 1024
"""A turn is closed beyond it: an eighth of NATS's usual `max_payload`, since the last one added may be large."""


class BehindTrim(Exception):
    """Something was trimmed before this reader came to it: it has to start anew, from the checkpoints."""


class Work:
    """One request at this writer."""

    __slots__ = (
        "after",
        "began_s",
        "begun",
        "born_s",
        "caller",
        "came_s",
        "epoch",
        "found",
        "is_aside",
        "looked_up",
        "number",
        "outcome",
        "pure",
        "ready_s",
        "request",
        "sent_s",
        "single",
        "state",
        "stored_seq",
        "suspect",
        "timer",
        "unsent",
        "urgent",
        "verdict",
        "why",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        *,
        sent_s: float,
        pure: bool = False,
        single: bool = False,
        stored_seq: int = 0,
        after: int = 0,
        born_s: float = math.inf,
        suspect: bool = False,
        timer: str = "",
        urgent: bool = False,
    ) -> None:
        self.request = request
        self.caller, self.number = split(request.request_id)
        """Its caller's number for it; 0 for an id that is no client's own."""
        self.sent_s = sent_s
        """Unix time of its sending, by its caller: it may have lain in the buffers of a process that slept."""
        self.pure = pure
        self.single = single
        self.urgent = urgent
        """It passes those of its resource that wait."""
        self.stored_seq = stored_seq
        """Its place in the request stream; 0 for one that was sent."""
        self.after = after
        """The last place its caller stored for this resource: what stands there comes first."""
        self.born_s = born_s
        """Unix time: since when somebody may have begun it."""
        self.suspect = suspect
        """An earlier begin may have ended its process, and this one is not noted yet (begins.py)."""
        self.timer = timer
        """The name of the timer that it is of; empty for a request that somebody made."""
        self.begun = 1
        """Which begin of it is the next, or this one. Given up: how many there were."""
        self.verdict = Verdict.RUN
        self.state = WorkState.WAITING
        self.outcome: Outcome | None = None
        self.looked_up = False
        """The log was asked, and knew nothing of it."""
        self.is_aside = False
        """Settled out of its queue's order: it has no effect."""
        self.epoch = 0
        """Of the state on which its outcome was computed."""
        self.unsent = 0
        """Of a group's request: what it hands in and was not sent yet."""
        self.found = False
        """Its outcome was there before."""
        # For the metrics, by the host's clock:
        self.came_s = self.began_s = self.ready_s = 0.0
        self.why: Why | None = None
        """Why it was dropped."""

    def step(self, event: WorkEvent) -> None:
        after = WORK.get((self.state, event))
        self.state = step(WORK, self.state, event) if after is None else after


class Write:
    """An entry on its way to the log: a turn (`k` > 0), or a single."""

    __slots__ = (
        "begun_s", "bytes_max", "content", "gate", "is_done", "k", "notes", "saves", "sent", "seq", "singles", "size", "works",
    )  # fmt: skip

    def __init__(self, k: int, gate: int, bytes_max: int = TURN_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.k = k
        self.gate = gate
        """The sequence that the writer's gate must have; 0 for a group's outcome, which no gate guards."""
        self.content = b""
        """The entry as it is stored: the host writes it here when it sends it (R10)."""
        self.works: list[Work] = []
        self.singles: list[Work] = []
        """Stored with the turn, each under its own name: all of it or nothing (one atomic batch)."""
        self.saves: list[Checkpoint] = []
        """Checkpoints in the same batch."""
        self.sent: dict[str, int] = {}
        """Part of the entry: for each resource, up to which outcome all that they hand in was sent."""
        self.notes: list[Work] = []
        """Part of the entry: these begin once more when it is stored."""
        self.size = 0
        # Of the host:
        self.begun_s = 0.0
        """When it was first sent, by its monotonic clock."""
        self.seq = 0
        """Its place in the log, once that is known."""
        self.is_done = False
        """What became of it is known: it is stored, or never will be."""

    def add(self, work: Work, outcome: Outcome) -> None:
        self._take(work, outcome)
        self.works.append(work)

    def add_single(self, work: Work, outcome: Outcome) -> None:
        self._take(work, outcome)
        self.singles.append(work)

    def _take(self, work: Work, outcome: Outcome) -> None:
        work.step(WorkEvent.COMPOSED)
        work.outcome = outcome
        request = work.request
        self.size += len(outcome.body) + len(outcome.change) + len(request.payload)
        self.size += 2 * len(request.request_id) + 128

    @property
    def name(self) -> int | str:
        """The turn's number, or the request id of a single."""
        return self.k or self.works[0].request.request_id

    @property
    def is_full(self) -> bool:
        return len(self.works) + len(self.singles) >= TURN_MAX or self.size >= self.bytes_max

    @property
    def is_empty(self) -> bool:
        return not (self.works or self.singles or self.saves or self.says_more)

    @property
    def says_more(self) -> bool:
        return bool(self.sent or self.notes)

    @property
    def begun(self) -> list[Begun]:
        """The entry's notes: a first begin is not among them."""
        return [(w.request.resource or "", w.request.request_id, w.begun - 1) for w in self.notes]


class Held:
    """One resource that this writer serves or follows."""

    __slots__ = (
        "begun", "change_bytes", "changes", "early", "ended", "in_flight", "is_changed", "is_due", "kept", "name", "number",
        "queue", "saved", "saved_bytes", "saved_s", "saving", "sessions", "since_s", "state",
        "timers", "unreadable", "unsent", "values",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[str, Any] = {}
        self.sessions = Sessions()
        self.number = 0
        """Of the last outcome that is in `values` and `sessions`."""
        self.ended: dict[str, float] = {}
        """Requests whose callers gave up, and when (Unix time, by the log)."""
        self.unsent: dict[int, list[Mapping[str, Any]]] = {}
        """What its outcomes hand in and is not known to be sent, by their numbers (outbox.py)."""
        self.begun: dict[str, int] = {}
        """Of requests without an outcome, how many begins are noted (begins.py)."""
        self.timers: Timers | None = None
        """None: there never was one (timers.py)."""
        self.since_s = 0.0
        """Unix time: what was sent or stored earlier may have been begun by another owner. 0.0: there was none."""
        self.state = HeldState.FOLLOWING
        self.unreadable = False
        """Its state is not known here any more."""
        self.queue: deque[Work] = deque()
        self.early: list[Work] = []
        """Sent requests that name a stored one which was not read yet."""
        self.kept: list[Work] = []
        """Stored requests that wait until what they ask for is resumed (holding.py)."""
        self.in_flight = 0
        """Outcomes of it that were sent to the log and have a number."""
        self.is_due = False
        # Of its checkpoints (checkpoints.py):
        self.saved = -1
        """Up to where the newest one has read the log; -1 without one."""
        self.saved_s = 0.0
        self.saved_bytes = 0
        self.saving: Checkpoint | None = None
        """On its way."""
        self.is_changed = False
        """Since the newest one was made."""
        self.changes = 0
        self.change_bytes = 0

    def step(self, event: HeldEvent) -> None:
        self.state = step(HELD, self.state, event)

    @property
    def waiting(self) -> list[Work]:
        """All requests that are here and not settled."""
        return [*self.queue, *self.early, *self.kept]

    def forget_waiting(self) -> None:
        self.queue.clear()
        self.early.clear()
        self.kept.clear()

    def put_first(self, work: Work) -> None:
        """Before all that wait in the queue, but urgent ones."""
        queue = self.queue
        at = 0
        while at < len(queue) and (queue[at].state is not WorkState.WAITING or queue[at].urgent):
            at += 1
        queue.insert(at, work)

    def end(self, request_id: str, at_s: float) -> None:
        """The caller gave up. To its session that is the same as an outcome: the request is not to be run any more."""
        caller, number = split(request_id)
        self.sessions.add(caller, number, at_s)
        self.settled(request_id)
        self.ended[request_id] = at_s
        self.is_changed = True

    def settled(self, request_id: str) -> None:
        """It has an outcome, or never will have one: nothing is left to begin."""
        self.begun.pop(request_id, None)
        if self.timers is not None:
            self.timers.ended(request_id)

    def fold(self, caller: str, request: int, outcome: Outcome, at_s: float) -> None:
        """Take over what a stored outcome changed, of the caller's request of that number. Raises: BehindTrim."""
        number = outcome.number
        if number:
            if number <= self.number:
                return
            if number > self.number + 1:
                raise BehindTrim(
                    f"outcome {number} of {self.name} follows {self.number} in what was read"
                )
            self.number = number
        self.is_changed = True
        self.sessions.add(caller, request, at_s)
        if outcome.change:
            self._apply(outcome, outcome.changed or Change.decode(outcome.change))

    def _apply(self, outcome: Outcome, change: Change) -> None:
        self.values.update(change.set)
        if change.delete:
            for key in change.delete:
                self.values.pop(key, None)
        if change.send:
            self.unsent[outcome.number] = list(change.send)
        if change.drop or change.later:
            if self.timers is None:
                self.timers = Timers()
            self.timers.apply(change)
        self.changes += 1
        self.change_bytes += len(outcome.change)
