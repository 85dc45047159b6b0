"""The decisions of one writer: what to run, what to store, whom to answer, what to drop. No loop, no clock, no NATS.

Theory of operation. What comes in: requests (`accept`), the log's entries in their order (`read`), outcomes of handlers that
wait (`computed`), the store's answers (`stored`, `refused`, `taken`), answers of the log to a doubt (`looked_up`). What comes
out stands in `out`: the host executes it and feeds back what became of it. The host decides nothing.

Requests wait in one queue per resource. `compose` makes a *turn*: it walks the resources that have something to settle,
computes the outcomes of pure handlers, each on the result of the one before it, adds the outcomes of handlers that have
finished, and sends all of it to the log as one entry, on condition of this writer's gate. One turn is in flight at a time;
meanwhile the next one collects. When the turn is stored its changes are applied and its callers are answered. A handler that
waits runs on stored state alone, so it begins when nothing of its resource is in flight. A *single* is an outcome that is
stored under its own name: it travels beside the turn, and is alone for its resource until it is settled.

What must stay true (the rules' numbers are those of docs/turns.md):
- R1: what a turn is judged by (who owns a resource, what has ended, what is a duplicate) is never older than the gate it names.
  `compose` judges and takes the gate in the same step, from the same fold, so nothing can come between.
- R2: a gate is adopted by reading it in the log, and in no other way.
- R4: a resource is served from the moment on which all writers before are shut out and everything they stored is folded.
- R7: after a refusal nothing is computed or stored until a newer gate is read. What pure handlers computed is thrown away.
- R8: state in memory changes, and callers are answered, when the entry is known to be stored; by its acknowledgement or by
  reading it, whichever is first. (Applying it before all in front of it is read is safe: between the gate it was judged by and
  the entry itself, nobody else can have stored anything of these resources.)
- R9: a request that was sent longer ago than half an end's time to live is dropped: its end could be forgotten already, by
  the log and by this writer, which may have slept. The other half is for clocks that differ.
- R10: an entry under this writer's name that it did not store means that another process has its identity: it stops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from aegis_sdk.contract.envelope import Change, Outcome, Request
from aegis_sdk.contract.ids import is_keyed
from aegis_sdk.domain.journal import Ahead
from aegis_sdk.domain.turns.entries import End, Entry, Gate, Own, Turn
from aegis_sdk.domain.turns.ownership import Ownership
from aegis_sdk.domain.turns.sessions import Seen, Sessions
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

TURN_MAX: Final = 256
"""Outcomes in one turn."""
TURN_BYTES_MAX: Final = 256 * 1024
"""A turn is closed beyond it: a quarter of NATS's usual `max_payload`, since the last one added may be large."""
SHARE_MAX: Final = 64
"""Outcomes of one resource in one turn, so that a hot resource leaves room for the others."""
QUEUE_MAX: Final = 20_000
"""Requests that wait at one writer. Beyond it callers are told to store theirs."""
RECENT_MAX: Final = 4096
"""Outcomes that are answered again from memory, at least; twice as many at most."""

_UNSETTLED: Final = frozenset(
    {WorkState.WAITING, WorkState.ASKED, WorkState.RUNNING, WorkState.READY}
)
"""Nothing of it was sent to the log, and it is not done with."""

Compute = Callable[[Request, Mapping[str, Any], int], Outcome]
"""A pure handler: (request, the resource's values, epoch) to an outcome. It never raises."""


class Work:
    """One request at this writer."""

    __slots__ = (
        "after",
        "epoch",
        "is_aside",
        "looked_up",
        "outcome",
        "pure",
        "reply",
        "request",
        "sent_s",
        "single",
        "state",
        "stored_seq",
        "why",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        *,
        sent_s: float,
        reply: str = "",
        pure: bool = False,
        single: bool = False,
        stored_seq: int = 0,
        after: int = 0,
    ) -> None:
        self.request = request
        self.sent_s = sent_s
        """Unix time of its sending, by its caller: it may have lain in the buffers of a process that slept."""
        self.reply = reply
        """The subject its caller listens on; empty for one that is stored."""
        self.pure = pure
        self.single = single
        self.stored_seq = stored_seq
        """Its place in the request stream; 0 for one that was sent."""
        self.after = after
        """The last place its caller stored for this resource: what stands there comes first."""
        self.state = WorkState.WAITING
        self.outcome: Outcome | None = None
        self.looked_up = False
        """The log was asked, and knew nothing of it."""
        self.is_aside = False
        """Settled out of its queue's order: it has no effect."""
        self.epoch = 0
        """Of the state on which its outcome was computed."""
        self.why: Why | None = None
        """Why it was dropped."""

    def step(self, event: WorkEvent) -> None:
        self.state = step(WORK, self.state, event)


class Write:
    """An entry on its way to the log: a turn (`k` > 0), or a single."""

    __slots__ = ("content", "gate", "k", "size", "works")

    def __init__(self, k: int, gate: int) -> None:
        self.k = k
        self.gate = gate
        self.content = b""
        """The entry as it is stored: the host writes it here when it sends it (R10)."""
        self.works: list[Work] = []
        self.size = 0

    def add(self, work: Work, outcome: Outcome) -> None:
        if work.state is WorkState.WAITING:
            work.step(WorkEvent.COMPUTED)
        work.step(WorkEvent.COMPOSED)
        work.outcome = outcome
        self.works.append(work)
        self.size += len(outcome.body) + len(outcome.change) + len(work.request.payload) + 128

    @property
    def name(self) -> int | str:
        """The turn's number, or the request id of a single."""
        return self.k or self.works[0].request.request_id

    @property
    def is_full(self) -> bool:
        return len(self.works) >= TURN_MAX or self.size >= TURN_BYTES_MAX


class Held:
    """One resource that this writer serves or follows."""

    __slots__ = (
        "early", "ended", "in_flight", "is_due", "name", "queue", "sessions", "state", "stored_to", "values",
    )  # fmt: skip

    def __init__(self, name: str, values: dict[str, Any], sessions: Sessions) -> None:
        self.name = name
        self.values = values
        self.sessions = sessions
        self.state = HeldState.FOLLOWING
        self.queue: deque[Work] = deque()
        self.early: list[Work] = []
        """Sent requests that name a stored one which has not come yet."""
        self.ended: dict[str, float] = {}
        """Requests whose callers gave up, and when (Unix time, by the log)."""
        self.stored_to = 0
        """All stored requests up to here were accepted."""
        self.in_flight = 0
        """Outcomes of it that were sent to the log and may change its values."""
        self.is_due = False

    def step(self, event: HeldEvent) -> None:
        self.state = step(HELD, self.state, event)

    def end(self, request_id: str, at_s: float) -> None:
        """The caller gave up. To its session that is the same as an outcome: the request is not to be run any more."""
        self.sessions.add(request_id, at_s)
        self.ended[request_id] = at_s

    def fold(self, request_id: str, outcome: Outcome, at_s: float) -> None:
        """Take over what a stored outcome changed."""
        self.sessions.add(request_id, at_s)
        if outcome.change:
            change = outcome.changed or Change.decode(outcome.change)
            self.values.update(change.set)
            for key in change.delete:
                self.values.pop(key, None)


class Output:
    """What the host is to do, in this order."""

    __slots__ = (
        "answer",
        "cancel",
        "dropped",
        "left",
        "look_up",
        "run",
        "serving",
        "shut_out",
        "stop",
        "store",
    )

    def __init__(self) -> None:
        self.stop = ""
        """Why this writer must end, and serve nothing more."""
        self.shut_out: list[str] = []
        """Writers to store a new gate of."""
        self.store: list[Write] = []
        self.answer: list[Work] = []
        """Their outcomes are stored. A stored request is acknowledged, too."""
        self.run: list[Work] = []
        """Handlers to begin, each on its resource's `values` as they are now."""
        self.cancel: list[Work] = []
        """Handlers whose outcome can't count any more."""
        self.look_up: list[Work] = []
        self.dropped: list[Work] = []
        """Nothing of them was stored here; each says `why`."""
        self.serving: list[str] = []
        self.left: list[str] = []

    def __bool__(self) -> bool:
        return bool(
            (self.store or self.answer or self.run or self.dropped or self.look_up or self.cancel)
            or (self.stop or self.shut_out or self.serving or self.left)
        )


class Writer:
    """One instance's right to write, from its start to its end. `name` is new with each start."""

    def __init__(
        self, name: str, compute: Compute, *, ends_kept_s: float, ownership: Ownership | None = None
    ) -> None:
        self.name = name
        self.ownership = ownership or Ownership()
        self.held: dict[str, Held] = {}
        self.out = Output()
        self.position = 0
        """The last entry read."""
        self.k = 0
        """The number of the last turn; one that was refused left its own to the next."""
        self._compute = compute
        self._wait_max_s = ends_kept_s / 2
        self._ends_kept_s = ends_kept_s
        self._open: dict[str, Work] = {}
        self._recent: dict[str, Outcome] = {}
        self._less_recent: dict[str, Outcome] = {}
        self._due: deque[Held] = deque()
        self._to_begin: deque[Held] = deque()
        """Resources with a handler that waits at the head of their queue."""
        self._aside: deque[Work] = deque()
        self._turn: Write | None = None
        self._refused_gate = 0
        self._refused: list[Write] = []
        """Refused, and it is not known yet whether an earlier try is in the log."""
        self._unread: dict[int | str, Write] = {}
        """Entries that were sent and not read yet: by their turn's number, or a single's request id."""

    def take_output(self) -> Output:
        out, self.out = self.out, Output()
        return out

    def follow(self, resource: str, values: dict[str, Any], sessions: Sessions) -> None:
        """Hold a resource, as a checkpoint has it; entries behind that are read from now on."""
        self.held[resource] = Held(resource, values, sessions)

    @property
    def waiting(self) -> int:
        """Requests without an outcome at this writer."""
        return len(self._open)

    # --- requests -----------------------------------------------------------------------------------------
    def accept(self, work: Work) -> None:
        """A request arrived, sent or stored."""
        request_id = work.request.request_id
        held = self.held.get(work.request.resource or "")
        if held is None or held.state is HeldState.FOLLOWING:
            self._drop(work, Why.MOVED)
        elif (first := self._open.get(request_id)) is not None:
            self._second_copy(first, work)
        elif (known := self._remembered(request_id)) is not None:
            self._settle(work, known, WorkEvent.FOUND)
        elif len(self._open) >= QUEUE_MAX and not work.stored_seq:
            self._drop(work, Why.BUSY)
        else:
            self._open[request_id] = work
            self._enqueue(held, work)
        if held is not None and work.stored_seq > held.stored_to:
            held.stored_to = work.stored_seq
            self._release_early(held)

    def _second_copy(self, first: Work, second: Work) -> None:
        """One request by both ways: one of them is settled for both."""
        first.stored_seq = first.stored_seq or second.stored_seq
        first.reply = first.reply or second.reply

    def _enqueue(self, held: Held, work: Work) -> None:
        if work.after > held.stored_to:
            held.early.append(work)
        else:
            held.queue.append(work)
            self._make_due(held)

    def _release_early(self, held: Held) -> None:
        early, held.early = held.early, []
        for work in early:
            self._enqueue(held, work)

    def cancel(self, request_id: str, outcome: Outcome) -> None:
        """Its caller asks to end it, unless its handler has begun: `outcome` says so."""
        work = self._open.get(request_id)
        if work is not None and work.state is WorkState.WAITING:
            work.step(WorkEvent.COMPUTED)
            work.outcome, work.is_aside = outcome, True
            self._aside.append(work)

    def computed(self, work: Work, outcome: Outcome) -> None:
        """A handler that waits has finished. Of one that was dropped meanwhile, nothing comes."""
        if work.state is WorkState.RUNNING:
            work.step(WorkEvent.COMPUTED)
            work.outcome = outcome
            self._make_due(self._held_of(work))

    def looked_up(self, work: Work, found: Outcome | None) -> None:
        """The log's answer to a doubt."""
        if work.state is not WorkState.ASKED:
            return
        if found is not None:
            self._settle(work, found, WorkEvent.FOUND)
        else:
            work.step(WorkEvent.NOT_FOUND)
            work.looked_up = True
        self._make_due(self._held_of(work))

    def pause(self, resource: str) -> bool:
        """Begin nothing new; whether nothing of it is under way now."""
        held = self.held[resource]
        if held.state is HeldState.SERVING:
            held.step(HeldEvent.PAUSED)
        begun = held.queue and held.queue[0].state in (WorkState.RUNNING, WorkState.READY)
        return not held.in_flight and not begun

    def resume(self, resource: str) -> None:
        held = self.held[resource]
        if held.state is HeldState.PAUSED:
            held.step(HeldEvent.RESUMED)
            self._make_due(held)

    # --- the log ------------------------------------------------------------------------------------------
    def read(self, entry: Entry) -> None:
        """Fold the next entry. Raises: MissingOwnership."""
        if entry.seq <= self.position:
            return
        self.position = entry.seq
        if isinstance(entry, Turn):
            self._read_turn(entry)
        elif isinstance(entry, Gate):
            self._read_gate(entry)
        elif isinstance(entry, Own):
            self._read_own(entry)
        elif isinstance(entry, End):
            self._read_end(entry)

    def _read_turn(self, turn: Turn) -> None:
        if turn.writer == self.name:
            self._read_own_turn(turn)
            return
        for settled in turn.settled:
            held = self.held.get(settled.resource)
            if held is not None:
                held.fold(settled.request_id, settled.outcome, turn.stored_s)
                self._remember(settled.request_id, settled.outcome)

    def _read_own_turn(self, turn: Turn) -> None:
        write = self._unread.pop(turn.name, None)
        if write is None or write.content != turn.content:
            self._stop_as_clone(turn.name)
        else:
            self.stored(write, turn.stored_s)

    def _read_gate(self, gate: Gate) -> None:
        self._became_whole(self.ownership.read_gate(gate.writer, gate.seq))
        if gate.writer == self.name:
            refused, self._refused = self._refused, []
            for write in refused:
                self._undo(write)

    def _read_own(self, own: Own) -> None:
        changed = self.ownership.read_own(own.number, own.moves)
        given = []
        for resource in changed:
            held = self.held.get(resource)
            if held is None:
                continue
            if own.moves[resource] == self.name:
                held.step(HeldEvent.GIVEN)
                given.append(resource)
            elif held.state is not HeldState.FOLLOWING:
                self._lose(held)
        self.out.shut_out += sorted(self.ownership.unshut(given))
        self._became_whole(name for name in given if self.ownership.is_whole(name))

    def _became_whole(self, resources: Iterable[str]) -> None:
        for resource in resources:
            held = self.held.get(resource)
            if held is not None and held.state is HeldState.TAKING:
                held.step(HeldEvent.WHOLE)
                self.out.serving.append(resource)
                self._make_due(held)

    def _lose(self, held: Held) -> None:
        """Another writer's from now on. What is in an entry already may still count: the log decides."""
        if held.state is not HeldState.TAKING:
            self.out.left.append(held.name)
        held.step(HeldEvent.TAKEN)
        for work in (*held.queue, *held.early):
            if work.state in _UNSETTLED:
                self._drop(work, Why.MOVED)
        held.queue.clear()
        held.early.clear()

    def _read_end(self, end: End) -> None:
        held = self.held.get(end.resource)
        if held is None:
            return
        held.end(end.request_id, end.stored_s)
        work = self._open.get(end.request_id)
        if work is not None and work.state is not WorkState.STORING:
            self._drop(work, Why.ENDED)
            self._make_due(held)

    def forget_ends(self, now_s: float) -> None:
        """Ends live as long as in the log."""
        for held in self.held.values():
            old = [i for i, at_s in held.ended.items() if at_s < now_s - self._ends_kept_s]
            for request_id in old:
                del held.ended[request_id]

    # --- composing ----------------------------------------------------------------------------------------
    def compose(self, now_s: float) -> None:
        """Begin handlers that wait; send what is ready as one turn, unless a turn is in flight. `now_s`: Unix time."""
        gate = self.ownership.gates.get(self.name, 0)
        if gate <= self._refused_gate:
            return  # the gate that decides was not read yet
        while self._to_begin:
            self._begin(self._to_begin.popleft(), now_s)
        if self._turn is not None or not (self._due or self._aside):
            return
        turn = Write(self.k + 1, gate)
        self._compose_aside(turn)
        for _ in range(len(self._due)):
            if turn.is_full:
                break
            held = self._due.popleft()
            held.is_due = False
            self._compose_of(held, turn, now_s)
        if turn.works:
            self.k = turn.k
            self._turn = turn
            self._send(turn)

    def _begin(self, held: Held, now_s: float) -> None:
        """Run the handler at the head of the queue, one that waits, if nothing of its resource is under way."""
        if held.in_flight:
            return
        head = self._head(held, now_s)
        if head is None or head.pure or head.state is not WorkState.WAITING:
            self._make_due(held)
        else:
            head.step(WorkEvent.BEGUN)
            self.out.run.append(head)

    def _compose_aside(self, turn: Write) -> None:
        """Cancelled ones change nothing and wait for nobody."""
        while self._aside and not turn.is_full:
            work = self._aside.popleft()
            if work.state is WorkState.READY and work.outcome is not None:
                turn.add(work, work.outcome)

    def _compose_of(self, held: Held, turn: Write, now_s: float) -> None:
        """Add what `held` has to settle, in its queue's order."""
        if held.in_flight:
            return
        ahead: Ahead | None = None
        epoch = self.ownership.epoch(held.name)
        for _ in range(SHARE_MAX):
            work = self._head(held, now_s)
            if work is None or turn.is_full or (work.single and ahead is not None):
                break  # a single is alone: it may turn out to have an outcome already
            outcome = work.outcome
            if work.state is WorkState.WAITING and work.pure:
                outcome = self._compute(
                    work.request, held.values if ahead is None else ahead, epoch
                )
            elif work.state is not WorkState.READY:
                break
            assert outcome is not None
            work.epoch = epoch
            held.queue.popleft()
            held.in_flight += 1
            if work.single:
                single = Write(0, turn.gate)
                single.add(work, outcome)
                self._send(single)
                break
            turn.add(work, outcome)
            ahead = ahead or Ahead(held.values)
            if outcome.change:
                ahead.apply(outcome.changed or Change.decode(outcome.change))
        self._make_due(held)

    def _head(self, held: Held, now_s: float) -> Work | None:
        """The request whose turn it is, if it may be settled now. Judged by all that was read so far (R1)."""
        queue = held.queue
        while queue:
            work = queue[0]
            if work.is_aside or work.state is WorkState.DONE or work.state is WorkState.DROPPED:
                queue.popleft()
            elif work.state is WorkState.READY:
                if not self._is_too_old(
                    work, now_s
                ):  # an outcome may be stored long after it was computed
                    return work
                self._drop(work, Why.LATE)
            elif work.state is not WorkState.WAITING or held.state is not HeldState.SERVING:
                return None
            elif self._judge(held, work, now_s):
                return work
        return None

    def _judge(self, held: Held, work: Work, now_s: float) -> bool:
        """Whether a request that waits may be run. If not it was dropped, settled, or the log is asked."""
        request_id = work.request.request_id
        if request_id in held.ended:
            self._drop(work, Why.ENDED)
        elif self._is_too_old(work, now_s):
            self._drop(work, Why.LATE)
        elif (
            work.looked_up
            or held.sessions.seen(request_id) is Seen.NEW
            or (work.single and work.request.attempt == 1 and not is_keyed(request_id))
        ):
            return True  # a single's own subject refuses what the session can't tell
        elif (known := self._remembered(request_id)) is not None:
            self._settle(work, known, WorkEvent.FOUND)
        else:
            work.step(WorkEvent.DOUBTED)
            self.out.look_up.append(work)
        return False

    def _is_too_old(self, work: Work, now_s: float) -> bool:
        """Whether its end may be forgotten already (R9)."""
        return now_s - work.sent_s > self._wait_max_s

    def _make_due(self, held: Held) -> None:
        """Have `compose` look at it, if there is something to do at the head of its queue."""
        if held.is_due or held.in_flight or not held.queue:
            return
        head = held.queue[0]
        if head.state is WorkState.WAITING:
            if held.state is not HeldState.SERVING:
                return
            if not head.pure:
                self._to_begin.append(held)
                return
        elif head.state is WorkState.RUNNING or head.state is WorkState.ASKED:
            return
        held.is_due = True
        self._due.append(held)

    def _send(self, write: Write) -> None:
        self._unread[write.name] = write
        self.out.store.append(write)

    # --- what became of an entry --------------------------------------------------------------------------
    def stored(self, write: Write, at_s: float) -> None:
        """The log has the entry, as its acknowledgement or the entry itself says. `at_s`: Unix time."""
        if write.works[0].state is not WorkState.STORING:
            return  # known already
        for work in write.works:
            outcome, held = work.outcome, self._held_of(work)
            assert outcome is not None
            held.fold(work.request.request_id, outcome, at_s)
            if not work.is_aside:
                held.in_flight -= 1
            self._settle(work, outcome, WorkEvent.STORED)
            self._make_due(held)
        self._landed(write)

    def refused(self, write: Write) -> None:
        """The gate has moved. Nothing is computed or stored until the new one is read (R7).

        Only then is it known that the entry is not in the log: an earlier try of it, whose answer was lost, may stand in
        front of that gate.
        """
        if write.works[0].state is not WorkState.STORING:
            return
        if self.ownership.gates.get(self.name, 0) > write.gate:
            self._undo(write)  # the newer gate was read before the refusal came
        else:
            self._refused_gate = max(self._refused_gate, write.gate)
            self._refused.append(write)

    def _undo(self, write: Write) -> None:
        """A newer gate was read, and the entry was not in front of it: it is not stored, and never will be."""
        if write.works[0].state is WorkState.STORING:
            self._unread.pop(write.name, None)
            if write.k:
                self.k = (
                    write.k - 1
                )  # numbers have no gaps, so that two processes of one identity collide (R10)
            for work in reversed(write.works):
                self._undo_one(work)
            self._landed(write)

    def _undo_one(self, work: Work) -> None:
        held = self._held_of(work)
        if not work.is_aside:
            held.in_flight -= 1
        work.step(WorkEvent.UNDONE if work.pure and not work.is_aside else WorkEvent.REFUSED)
        if held.state is HeldState.FOLLOWING or work.epoch != self.ownership.epoch(held.name):
            self._drop(work, Why.MOVED)  # somebody else may have written between
        elif work.request.request_id in held.ended:
            self._drop(work, Why.ENDED)
        elif work.is_aside:
            self._aside.append(work)
        else:
            held.queue.appendleft(work)
        self._make_due(held)

    def taken(self, single: Write, found: Outcome) -> None:
        """The single's subject holds another outcome of its request. (One that is our own was `stored`.)"""
        (work,) = single.works
        held = self._held_of(work)
        held.in_flight -= 1
        self._unread.pop(single.name, None)
        self._settle(work, found, WorkEvent.FOUND)
        self._make_due(held)

    def cloned(self, write: Write) -> None:
        """The turn's subject holds an entry that is not ours (R10)."""
        self._stop_as_clone(write.name)

    def _stop_as_clone(self, name: int | str) -> None:
        what = f"turn {name}" if isinstance(name, int) else f"outcome {name}"
        self.out.stop = (
            f"{what} of writer {self.name} was stored by another process, which has this one's identity"
            " (a cloned machine or container): this one serves nothing more"
        )

    def _landed(self, write: Write) -> None:
        if write is self._turn:
            self._turn = None

    # --- small steps --------------------------------------------------------------------------------------
    def _held_of(self, work: Work) -> Held:
        return self.held[work.request.resource or ""]

    def _settle(self, work: Work, outcome: Outcome, event: WorkEvent) -> None:
        """Its outcome is stored."""
        work.step(event)
        work.outcome = outcome
        self._open.pop(work.request.request_id, None)
        self._remember(work.request.request_id, outcome)
        self.out.answer.append(work)

    def _drop(self, work: Work, why: Why) -> None:
        if work.state is WorkState.RUNNING:
            self.out.cancel.append(work)
        work.step(WorkEvent.LOST)
        work.why = why
        if self._open.get(work.request.request_id) is work:
            del self._open[work.request.request_id]
        self.out.dropped.append(work)

    def _remember(self, request_id: str, outcome: Outcome) -> None:
        """Two halves, the older one forgotten as a whole: to take out one by one costs more than all else here."""
        self._recent[request_id] = outcome
        if len(self._recent) >= RECENT_MAX:
            self._recent, self._less_recent = {}, self._recent

    def _remembered(self, request_id: str) -> Outcome | None:
        return self._recent.get(request_id) or self._less_recent.get(request_id)
