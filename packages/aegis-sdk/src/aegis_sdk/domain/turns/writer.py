"""The decisions of one writer: what to run, what to store, whom to answer, what to drop. No loop, no clock, no NATS.

Theory of operation. What comes in: requests (`accept`), the log's entries in their order (`read`), outcomes of handlers that
wait (`computed`), the store's answers (`stored`, `refused`, `taken`), answers of the log to a doubt (`looked_up`). What comes
out stands in `Output`: the host executes it and feeds back what became of it.

Requests wait in one queue per resource. `compose` makes a *turn*. It walks the resources that have something to settle. It
computes the outcomes of pure handlers, each on the result of the one before it, and adds those of handlers that have
finished. All of it goes to the log as one entry, on condition of this writer's gate. One turn is in flight at a time;
meanwhile the next one collects. When the turn is stored its changes are applied and its callers are answered. A handler that
waits runs on stored state alone, so it begins when nothing of its resource is in flight. A *single* is an outcome that is
stored under its own name, and is alone for its resource until it is settled. It travels beside the turn; where the server
can't check one gate twice at the same time (`batched`, three nodes), it travels with the turn in one atomic batch.

Parts with a theory of their own: who may write (ownership.py), what was done already (sessions.py), the end of each request
(desk.py), requests without a resource (group.py), checkpoints (checkpoints.py), what handlers hand in (outbox.py), timers
(timers.py), requests that may end their process (begins.py), and what operators have paused (holding.py). An urgent request
passes those of its resource that wait, but no other urgent one.

What must stay true (the rules' numbers are those of docs/protocol.md):
- R1: what a turn is judged by (who owns a resource, what has ended, what is a duplicate) is never older than the gate it names.
  `compose` judges and takes the gate in the same step, from the same fold, so nothing can come between.
- R2: a gate is adopted by reading it in the log, and in no other way.
- R4: a resource is served from the moment on which all writers before are shut out and everything they stored is folded.
- R7: after a refusal nothing is computed or stored until a newer gate is read. What pure handlers computed is thrown away.
- R8: state in memory changes, and callers are answered, when the entry is known to be stored; by its acknowledgement or by
  reading it, whichever is first. (Applying it before all that precedes it is read is safe: between the gate it was judged by
  and the entry itself, nobody else can have stored anything of these resources.)
- R9: a request that was sent longer ago than half an end's time to live is dropped: its end could be forgotten already, by
  the log and by this writer, which may have slept. The other half is for clocks that differ.
- R10: an entry under this writer's name that it did not store means that another process has its identity: it stops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from aegis_sdk.contract.envelope import Change, Outcome
from aegis_sdk.contract.ids import is_keyed, is_nested
from aegis_sdk.contract.names import encode_token
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import begun_of, decode_turn, marks_of
from aegis_sdk.contract.turns.holds import Holds
from aegis_sdk.contract.turns.timers import Timer
from aegis_sdk.domain.turns.ahead import Ahead
from aegis_sdk.domain.turns.begins import Begins
from aegis_sdk.domain.turns.checkpoints import Every, Saver, restored
from aegis_sdk.domain.turns.desk import QUEUE_MAX, RECENT_MAX, Desk
from aegis_sdk.domain.turns.entries import End, Entry, Gate, Own, Saved, Settled, Turn
from aegis_sdk.domain.turns.group import Compute, Expire, Group
from aegis_sdk.domain.turns.holding import Holding, is_kept, put_back
from aegis_sdk.domain.turns.outbox import Outbox
from aegis_sdk.domain.turns.output import Output, Save, Sending
from aegis_sdk.domain.turns.ownership import Ownership
from aegis_sdk.domain.turns.sessions import Seen, split
from aegis_sdk.domain.turns.states import HeldEvent, HeldState, Why, WorkEvent, WorkState
from aegis_sdk.domain.turns.timers import FIRED_MAX, Agenda, Timers
from aegis_sdk.domain.turns.work import TURN_BYTES_MAX, BehindTrim, Held, Work, Write

NOTE_BYTES: Final = 512
"""Of a mark or a note, about."""
SHARE_MAX: Final = 64
"""Outcomes of one resource in one turn, so that a hot resource leaves room for the others."""
GROUP_AT_A_TIME: Final = 256
DOUBTS_AT_A_TIME: Final = 1024
"""Of one queue: all that are asked together share one reading of the log."""
OUTCOMES_KEPT_S: Final = 86_400.0

_UNSETTLED: Final = frozenset(
    {WorkState.WAITING, WorkState.ASKED, WorkState.NOTING, WorkState.RUNNING, WorkState.READY}
)
"""Nothing of it was sent to the log, and it is not done with."""
_OWNED: Final = frozenset({HeldState.SERVING, HeldState.PAUSED})
"""Nobody else can store anything of it."""
_ELSEWHERE: Final = frozenset({WorkState.ASKED, WorkState.NOTING, WorkState.RUNNING})
"""It is not for `compose` to go on with."""


class Writer:
    """One instance's right to write, from its start to its end. `name` is new with each start."""

    def __init__(
        self,
        name: str,
        compute: Compute,
        *,
        ends_kept_s: float,
        expire: Expire | None = None,
        outcomes_kept_s: float = OUTCOMES_KEPT_S,
        batched: bool = False,
        recent_max: int = RECENT_MAX,
        every: Every | None = None,
        log: str = "",
    ) -> None:
        """`expire`: what is said of a request whose deadline has passed; else its handler is asked. `outcomes_kept_s`: how long the log has what duplicates are told by. `log`: its identity."""
        self.name = name
        self.ownership = Ownership()
        self.held: dict[str, Held] = {}
        self.position = 0
        """The last entry read."""
        self.k = 0
        """The number of the last turn; one that was refused left its own to the next."""
        self.desk = Desk(ends_kept_s=ends_kept_s, recent_max=recent_max)
        self.holding = Holding()
        self.group = Group(self.desk, compute, at_a_time=GROUP_AT_A_TIME, holding=self.holding)
        self._compute = compute
        self._expire = expire
        self._ends_kept_s = ends_kept_s
        self._batched = batched
        self._saver = Saver(
            name,
            self.ownership,
            every=every or Every.kept(outcomes_kept_s),
            kept_s=outcomes_kept_s,
            log=log,
        )
        self._outbox, self._agenda, self._begins = Outbox(), Agenda(), Begins()
        self._is_fold = False
        """It only reads: what stands under its name is not its own doing."""
        self.turn_bytes_max = TURN_BYTES_MAX
        """The log's bound for one message says it."""
        self.is_claimed = True
        """This process has read that it is the one writer of its name (claims.py)."""
        self._k_min = 0
        """Of the last turn that another process stored as this writer."""
        self.is_quiet = False
        """A suspect runs alone: pure handlers begin only for requests that it may be waiting for (begins.py)."""
        self._owned = 0
        """How many resources are not another writer's."""
        self._begins_after = -1
        self._log_s = 0.0
        """The log's time of what was read last."""
        self._worth = 0
        """The last entry read that a trim would remove."""
        self._ends: deque[tuple[float, Held, str]] = deque()
        self._requests_to = 0
        """All stored requests up to here were given, or are gone."""
        self._has_early: set[str] = set()
        self._due: deque[Held] = deque()
        self._to_begin: deque[Held] = deque()
        """Resources with a handler that waits at the head of their queue."""
        self._aside: deque[Work] = deque()
        self._turn: Write | None = None
        self._clashed: Write | None = None
        self._refused_gate = self._refused_ticks = 0
        self._refused: list[Write] = []
        """Refused, and it is not known yet whether an earlier try is in the log."""
        self._unread: dict[int | str, Write] = {}
        """Entries that were sent and not read yet: by their turn's number, or a single's request id."""

    def take_output(self) -> Output:
        """What was decided since the last time; one without content may be given again."""
        out = self.desk.out
        if out:
            self.desk.out = Output()
        return out

    # --- what it begins with ----------------------------------------------------------------------------------
    def restore(
        self,
        resource: str,
        checkpoint: Checkpoint | None = None,
        *,
        saved_s: float = 0.0,
        after: int = 0,
    ) -> None:
        """Hold a resource as its checkpoint has it, stored at `saved_s`. Before anything is read: `adopt` brings later ones.
        Without one, all that the log has of it stands behind `after`.

        Raises: ValueError.
        """
        held = restored(resource, checkpoint)
        held.saved_s = saved_s
        self.held[resource] = held
        self._ends += [(at_s, held, request_id) for request_id, at_s in held.ended.items()]
        begins = after if checkpoint is None else checkpoint.read
        if self._begins_after < 0 or begins < self._begins_after:
            self._begins_after = self.position = begins
            self.ownership.begin(None if checkpoint is None else checkpoint.own)
        if checkpoint is not None:
            self.ownership.restore(
                resource, checkpoint.writer, epoch=checkpoint.epoch, own=checkpoint.own
            )

    def begin(self, after: int) -> None:
        """Without resources, for now: the log is read from there on."""
        self.position = self._begins_after = after

    def restore_unreadable(self, resource: str) -> None:
        """Hold a resource whose checkpoint can't be read: it is neither served nor followed."""
        held = self.held[resource] = Held(resource)
        held.unreadable = True

    def further(self) -> Writer:
        """A fold for resources that come later: to be restored, to read up to where this one is, and to be adopted."""
        fold = Writer(self.name, self._compute, ends_kept_s=self._ends_kept_s)
        fold._is_fold = True
        return fold

    def adopt(self, other: Writer) -> None:
        """Take over what a `further` fold holds, which has read as far as this one. Raises: ValueError."""
        if other.position != self.position:
            raise ValueError(f"it has read up to {other.position}, this one up to {self.position}")
        new = {name: held for name, held in other.held.items() if name not in self.held}
        self.held |= new
        self._ends += other._ends
        for name in new:
            self.ownership.adopt(name, other.ownership)
        ours = [name for name, held in new.items() if held.state is not HeldState.FOLLOWING]
        self._shut_out(ours, is_first=self._owned == 0)
        self._owned += len(ours)
        for held in new.values():
            if held.state is HeldState.SERVING:
                self._begin_to_serve(held)

    def forget(self, resource: str) -> bool:
        """Follow it no more. False: something of it is under way yet, or it is this writer's."""
        held = self.held.get(resource)
        if held is None:
            return True
        is_idle = held.state is HeldState.FOLLOWING and not held.in_flight and held.saving is None
        if not is_idle or any(w.request.resource == resource for w in self.desk.open.values()):
            return False
        del self.held[resource]
        return True

    # --- requests ---------------------------------------------------------------------------------------------
    def accept(self, work: Work) -> None:
        """A request arrived, sent or stored."""
        resource = work.request.resource
        if resource is None:
            self.group.accept(work)
            return
        held = self.held.get(resource)
        if held is None or held.state is HeldState.FOLLOWING:
            self.desk.drop(work, Why.MOVED)
        elif self.desk.admit(work):
            work.suspect = work.born_s < held.since_s
            if not (self.holding.holds and self._refuse_paused(held, work)):
                self._enqueue(held, work)

    def _enqueue(self, held: Held, work: Work) -> None:
        if work.urgent:
            held.put_first(work)
            self._make_due(held)
        elif work.after > self._requests_to:
            held.early.append(work)
            self._has_early.add(held.name)
        else:
            held.queue.append(work)
            self._make_due(held)

    def past_requests(self, seq: int) -> None:
        """Each stored request up to that place was given, or is gone: what names one of them need not wait for it (G7)."""
        self._requests_to = max(self._requests_to, seq)
        names, self._has_early = self._has_early, set()
        for name in names:
            held = self.held.get(name)
            if held is None:
                continue
            early, held.early = held.early, []
            for work in early:
                self._enqueue(held, work)

    def cancel(self, request_id: str, outcome: Outcome) -> None:
        """Its caller asks to end it, unless its handler has begun: `outcome` says so."""
        work = self.desk.open.get(request_id)
        if work is None or work.state is not WorkState.WAITING:
            return
        if work.request.resource is None:
            self.group.cancel(work, outcome)
        elif self._is_new(self._held_of(work), work):
            self._put_aside(work, outcome)

    def _put_aside(self, work: Work, outcome: Outcome) -> None:
        work.step(WorkEvent.COMPUTED)
        work.outcome, work.is_aside = outcome, True
        work.epoch = self.ownership.epoch(work.request.resource or "")
        self._aside.append(work)

    # --- timers -----------------------------------------------------------------------------------------------
    @property
    def timers_open(self) -> int:
        """Timers of what is served here."""
        return self._agenda.open

    @property
    def timers_next_s(self) -> float:
        """Unix time when `fire` is to be asked again; it may turn out to be for nothing."""
        return self._agenda.next_s

    def fire(self, now_s: float) -> list[Timer]:
        """Timers that are due, a portion of them: the request of each is to be accepted."""
        most = FIRED_MAX if len(self.desk.open) < QUEUE_MAX // 2 else 0
        return self._agenda.fire(now_s, most)

    def unfired(self, work: Work) -> None:
        """A timer's request was dropped: it fires again, here or elsewhere, unless the timer is no more."""
        held = self.held.get(work.request.resource or "")
        if held is not None and held.timers is not None:
            held.timers.dropped(work.timer, work.request.request_id)
            self._timers_changed(held, held.timers)

    def _timers_changed(self, held: Held, timers: Timers) -> None:
        if held.state in _OWNED:
            self._agenda.changed(held.name, timers)

    # --- what becomes of requests -----------------------------------------------------------------------------
    def computed(self, work: Work, outcome: Outcome) -> None:
        """A handler that waits has finished. Of one that was dropped meanwhile, nothing comes."""
        if work.request.resource is None:
            self.group.computed(work, outcome)
        elif work.state is WorkState.RUNNING:
            work.step(WorkEvent.COMPUTED)
            work.outcome = outcome
            self._make_due(self._held_of(work))

    def kept(self, work: Work, stored_seq: int) -> None:
        """A group's request was stored, at that place, before its outcome is."""
        self.group.kept(work, stored_seq)

    def looked_up(self, work: Work, found: Outcome | None) -> None:
        """The log's answer to a doubt."""
        if work.state is WorkState.STORING and self._clashed is not None:
            self._found_in_clash(self._clashed, work, found)
        elif work.state is not WorkState.ASKED:
            return
        elif work.request.resource is None:
            self.group.looked_up(work, found)
        else:
            self._looked_up(self._held_of(work), work, found)

    def _looked_up(self, held: Held, work: Work, found: Outcome | None) -> None:
        if found is not None:
            self.desk.settle(work, found, WorkEvent.FOUND)
        elif held.sessions.seen(work.caller, work.number) is Seen.DONE:
            # Without an outcome: its end was forgotten, not what it says.
            self.desk.drop(work, Why.ENDED)
        else:
            work.step(WorkEvent.NOT_FOUND)
            work.looked_up = True
        self._make_due(held)

    def note(self, work: Work) -> None:
        """A suspect is about to run, and nothing else does: it comes back in `Output.noted`."""
        self._begins.note(work)

    def sent(self, sending: Sending) -> None:
        """What an outcome hands in is stored in its service's requests."""
        if sending.work is not None:
            self.group.sent(sending.work)
        elif (held := self.held.get(sending.resource)) is not None:
            self._outbox.sent(held, sending)

    def pause(self, resource: str) -> bool:
        """Begin nothing new, and save what there is; whether nothing of it is under way now."""
        self.hold(resource)
        held = self.held[resource]
        begun = held.queue and held.queue[0].state in (WorkState.RUNNING, WorkState.READY)
        is_idle = not held.in_flight and not begun
        if is_idle and not self._saver.covers(held):
            self._saver.want(held)
        return is_idle

    def hold(self, resource: str) -> None:
        """Begin nothing of it until `resume`."""
        held = self.held[resource]
        if held.state is HeldState.SERVING:
            held.step(HeldEvent.PAUSED)

    def is_idle(self, resource: str) -> bool:
        """Nothing of it waits, runs, is yet to be sent, or is due at some time."""
        held = self.held[resource]
        has_work = held.waiting or held.in_flight or held.unsent or held.begun or held.timers
        return held.state is HeldState.SERVING and not has_work

    @property
    def is_storing(self) -> bool:
        """Whether a turn is in flight."""
        return self._turn is not None

    def is_saved(self, resource: str) -> bool:
        """Whether its newest checkpoint has all of it: who gives it away waits for that."""
        return self._saver.covers(self.held[resource])

    def resume(self, resource: str) -> None:
        held = self.held[resource]
        if held.state is HeldState.PAUSED:
            held.step(HeldEvent.RESUMED)
            self._make_due(held)

    # --- what is paused by operators ----------------------------------------------------------------------------
    def take_holds(self, number: int, holds: Holds) -> None:
        """Ownership entry `number` says that this is paused. It may be known before it is read: then it counts from now on."""
        if self.holding.take(number, holds):
            for held in self.held.values():
                self._apply_holds(held)

    def _apply_holds(self, held: Held) -> None:
        put_back(held)
        if self.holding.holds:
            for work in (*held.queue, *held.early):
                self._refuse_paused(held, work)
        self._make_due(held)

    def _refuse_paused(self, held: Held, work: Work) -> bool:
        """Whether it ends without effect. One that is to be kept, or that may have an outcome already, waits for its turn."""
        is_judged = held.state in _OWNED and work.state is WorkState.WAITING
        if not is_judged or is_kept(work) or not self._is_new(held, work):
            return False
        if (refusal := self.holding.refusal(work.request)) is None:
            return False
        self._put_aside(work, refusal)
        return True

    def _is_held_back(self, held: Held, work: Work) -> bool:
        """Whether the head of the queue may not begin."""
        if is_kept(work) and self.holding.covers(work.request):
            held.queue.popleft()
            held.kept.append(work)
            return True
        return self._refuse_paused(held, work)

    # --- the log ----------------------------------------------------------------------------------------------
    def read(self, entry: Entry) -> None:
        """Fold the next entry. Raises: MissingOwnership, BehindTrim: this reader has to begin anew."""
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
        elif isinstance(entry, Saved):
            self._read_saved(entry)

    def _read_turn(self, turn: Turn) -> None:
        self._worth = turn.seq
        self._log_s = max(self._log_s, turn.stored_s)
        if turn.writer == self.name and not self._is_fold:
            self._read_own_turn(turn)
        else:
            self._fold(turn)

    def _fold(self, turn: Turn) -> None:
        for settled in turn.settled:
            held = self.held.get(settled.resource)
            if held is not None and not held.unreadable:
                caller, number = split(settled.request_id)
                held.fold(caller, number, settled.outcome, turn.stored_s)
                held.settled(settled.request_id)
                if held.timers is not None:
                    self._timers_changed(held, held.timers)
                self.desk.remember(settled.request_id, settled.outcome)
        for resource, number in turn.sent.items():
            if (held := self.held.get(resource)) is not None:
                self._outbox.read(held, number)
        for resource, request_id, n in turn.begun:
            if (held := self.held.get(resource)) is not None:
                held.begun[request_id] = n

    def _read_own_turn(self, turn: Turn) -> None:
        write = self._unread.get(turn.name)
        is_ours = write is not None and (write.name != turn.name or write.content == turn.content)
        if not (is_ours or self.is_claimed):
            self._read_of_copy(turn)
            return
        self._unread.pop(turn.name, None)
        if write is None:
            self._stop_as_clone(turn.name)
        elif write.name != turn.name:
            return  # a single that came with its turn, which tells both
        elif write.content != turn.content:
            self._stop_as_clone(turn.name)
        else:
            self.stored(write, turn.stored_s)

    def _read_of_copy(self, turn: Turn) -> None:
        """Another process of this identity stored it, before this one claimed the name: what was begun here is void."""
        if isinstance(turn.name, int):
            self.k = self._k_min = max(self.k, turn.name)
        records = decode_turn(turn.content)
        for name in {record.resource for record in records if record.resource in self.held}:
            self._forget_begun(self.held[name or ""])
        settled = [Settled(r.request_id, r.resource or "", r.outcome) for r in records]
        self._fold(
            Turn(
                turn.seq,
                "",
                turn.name,
                settled,
                stored_s=turn.stored_s,
                sent=marks_of(turn.content),
                begun=begun_of(turn.content),
            )
        )

    def _forget_begun(self, held: Held) -> None:
        self._drop_waiting(held)
        for write in self._unread.values():
            for work in (*write.works, *write.singles):
                if work.request.resource == held.name:
                    work.epoch = -1  # of a state that is no more

    def _read_gate(self, gate: Gate) -> None:
        self._became_whole(self.ownership.read_gate(gate.writer, gate.seq))
        if gate.writer == self.name and self._refused:
            refused, self._refused = self._refused, []
            for write in refused:
                self._undo(write)

    def _read_own(self, own: Own) -> None:
        self._worth = own.seq
        changed = self.ownership.read_own(own.number, own.moves, own.stored_s, own.why)
        owned, given = self._owned, []
        for resource in changed:
            held = self.held.get(resource)
            is_ours = own.moves[resource] == self.name
            if held is None:
                if is_ours:
                    self.desk.out.unknown.append(resource)
            elif held.unreadable:
                continue
            elif is_ours:
                self._give(held)
                given.append(resource)
            elif held.state is not HeldState.FOLLOWING:
                self._lose(held)
        self.take_holds(own.number, own.holds)
        self._shut_out(given, is_first=owned == 0)
        self._became_whole(name for name in given if self.ownership.is_whole(name))

    def _give(self, held: Held) -> None:
        held.step(HeldEvent.GIVEN)
        held.since_s = self.ownership.since_s(held.name)
        self._owned += 1

    def _shut_out(self, given: Iterable[str], *, is_first: bool) -> None:
        """All who wrote these before; and a gate of our own, if the trim may have taken that of one who owned nothing."""
        writers = self.ownership.unshut(given)
        if given and is_first and self.name in self.ownership.gates:
            writers.add(self.name)
        self.desk.out.shut_out += sorted(writers)

    def _became_whole(self, resources: Iterable[str]) -> None:
        for resource in resources:
            held = self.held.get(resource)
            if held is not None and held.state is HeldState.TAKING:
                held.step(HeldEvent.WHOLE)
                self._begin_to_serve(held)

    def _begin_to_serve(self, held: Held) -> None:
        self.desk.out.serving[held.name] = None
        if self.holding.holds:
            self._apply_holds(held)
        if held.unsent:
            self._outbox.owned(held, self.desk.out)
        if held.timers is not None:
            self._agenda.changed(held.name, held.timers)
        self._make_due(held)

    def _lose(self, held: Held) -> None:
        """Another writer's from now on. What is in an entry already may still count: the log decides."""
        if held.name in self.desk.out.serving:
            del self.desk.out.serving[held.name]
        elif held.state is not HeldState.TAKING:
            self.desk.out.left.append(held.name)
        held.step(HeldEvent.TAKEN)
        self._agenda.leave(held.name)
        self._owned -= 1
        self._drop_waiting(held)

    def _drop_waiting(self, held: Held) -> None:
        for work in held.waiting:
            if work.state in _UNSETTLED:
                self.desk.drop(work, Why.MOVED)
        held.forget_waiting()

    def read_unreadable(self, seq: int, words: Sequence[str]) -> list[str]:
        """The next entry can't be read. The resources that it may change are neither served nor followed any more: what was
        read of them is not all there is.
        """
        if seq <= self.position:
            return []
        self.position = seq
        concerned = [name for name in self._changed_by(words) if not self.held[name].unreadable]
        for name in concerned:
            held = self.held[name]
            held.unreadable = True
            if held.state is not HeldState.FOLLOWING:
                self._lose(held)
        return concerned

    def _changed_by(self, words: Sequence[str]) -> list[str]:
        """What an entry with this subject may change."""
        kind, *rest = words
        if kind == "turn" and rest:
            known = [name for name in self.held if rest[0] in self.ownership.may_write(name)]
            return known or list(self.held)
        if kind == "at" and len(rest) > 1 and rest[1] != "state":
            return [name for name in self.held if encode_token(name) == rest[0]]
        return list(self.held) if kind == "own" else []

    def _read_end(self, end: End) -> None:
        self._log_s = max(self._log_s, end.stored_s)
        held = self.held.get(end.resource)
        if held is None:
            return
        held.end(end.request_id, end.stored_s)
        if held.timers is not None:
            self._timers_changed(held, held.timers)
        self._ends.append((end.stored_s, held, end.request_id))
        work = self.desk.open.get(end.request_id)
        if work is not None and work.state is not WorkState.STORING:
            self.desk.drop(work, Why.ENDED)
            self._make_due(held)

    def _read_saved(self, saved: Saved) -> None:
        self._log_s = max(self._log_s, saved.stored_s)
        checkpoint = saved.checkpoint
        held = self.held.get(checkpoint.resource)
        if held is None or held.unreadable:
            return
        if checkpoint.number > held.number:
            raise BehindTrim(
                f"a checkpoint of {held.name} has outcome {checkpoint.number}, and {held.number} was the last one read"
            )
        self._saver.read(held, checkpoint, saved.stored_s)

    def tick(self, now_s: float) -> None:
        """To be called each second or so. Ends live as long as in the log; checkpoints are renewed in time."""
        ends = self._ends
        while ends and ends[0][0] < now_s - self._ends_kept_s:
            _, held, request_id = ends.popleft()
            held.ended.pop(request_id, None)
        self._saver.tick(self.held.values(), now_s, self.position, self._worth)
        self._outbox.tick()
        self._shut_out_itself()

    def _shut_out_itself(self) -> None:
        """The gate that refused it does not come: somebody removed it. A gate of its own is as good, since all in front of it is
        read, too.
        """
        is_refused = 0 < self._refused_gate >= self.ownership.gates.get(self.name, 0)
        self._refused_ticks = self._refused_ticks + 1 if is_refused else 0
        if self._refused_ticks > 1:
            self.desk.out.shut_out.append(self.name)

    # --- composing --------------------------------------------------------------------------------------------
    def compose(self, now_s: float) -> None:
        """Begin handlers that wait; send what is ready as one turn, unless a turn is in flight. `now_s`: Unix time."""
        self.group.compose(now_s)
        gate = self.ownership.gates.get(self.name, 0)
        if gate <= self._refused_gate:
            return  # the gate that decides was not read yet
        while self._to_begin:
            self._begin(self._to_begin.popleft(), now_s)
        if not self._batched and self._saver.is_due:
            made = self._saver.take(gate, self.position, self._log_s)
            self.desk.out.save += [Save(checkpoint, gate) for checkpoint in made]
        if self._turn is None and self._is_worth_a_turn():
            self._compose(Write(self.k + 1, gate, self.turn_bytes_max), now_s)

    def _is_worth_a_turn(self) -> bool:
        return bool(
            self._due
            or self._aside
            or self._outbox.is_due
            or self._begins.is_due
            or (self._batched and self._saver.is_due)
        )

    def _compose(self, turn: Write, now_s: float) -> None:
        if self._batched:
            turn.saves = self._saver.take(turn.gate, self.position, self._log_s)
        self._compose_aside(turn, now_s)
        due = self._due
        for _ in range(len(due)):
            if turn.is_full:
                break
            held = due.popleft()
            held.is_due = False
            self._compose_of(held, turn, now_s)
        self._compose_aside(turn, now_s)  # what has turned out to be late
        turn.notes = self._begins.take(turn.bytes_max // NOTE_BYTES)
        if turn.works or turn.singles or turn.notes or self._outbox.is_due:
            turn.sent = self._outbox.take(turn.bytes_max // NOTE_BYTES)
        if not turn.is_empty:
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
            self.desk.out.run.append(head)

    def _compose_aside(self, turn: Write, now_s: float) -> None:
        """Cancelled ones change nothing and wait for nobody. They are judged like all others (R1)."""
        while self._aside and not turn.is_full:
            work = self._aside.popleft()
            if work.state is not WorkState.READY or work.outcome is None:
                continue  # it was ended meanwhile
            held = self._held_of(work)
            is_ours = held.state in _OWNED and work.epoch == self.ownership.epoch(held.name)
            if not is_ours:
                self.desk.drop(work, Why.MOVED)  # somebody else may have written between
            elif self.desk.is_too_old(work, now_s) or not self._is_new(held, work):
                self.desk.drop(work, Why.LATE)
            elif work.single:
                self._compose_single(work, work.outcome, turn)
            else:
                turn.add(work, work.outcome)

    def _compose_of(self, held: Held, turn: Write, now_s: float) -> None:
        """Add what `held` has to settle, in its queue's order."""
        if held.in_flight:
            return
        values: Mapping[str, Any] = held.values
        before: Work | None = None
        epoch = self.ownership.epoch(held.name)
        for _ in range(SHARE_MAX):
            work = self._head(held, now_s)
            if work is None or turn.is_full or (work.single and held.in_flight):
                break  # a single is alone: it may turn out to have an outcome already
            outcome = work.outcome
            if before is not None:
                values, before = _behind(before, values, held), None
            if work.timer and held.in_flight and not _is_set(work, values):
                self.desk.drop(work, Why.ENDED)
                continue
            if work.state is WorkState.WAITING and work.pure:
                if self.is_quiet and not is_nested(work.request.request_id):
                    break
                outcome = self._compute(work.request, values, epoch)
            elif work.state is not WorkState.READY:
                break
            assert outcome is not None
            work.epoch = epoch
            held.queue.popleft()
            held.in_flight += 1
            outcome.number = held.number + held.in_flight
            if work.single:
                self._compose_single(work, outcome, turn)
                break
            turn.add(work, outcome)
            before = work
        self._make_due(held)

    def _compose_single(self, work: Work, outcome: Outcome, turn: Write) -> None:
        if self._batched:
            turn.add_single(work, outcome)
        else:
            single = Write(0, turn.gate)
            single.add(work, outcome)
            self._send(single)

    def _head(self, held: Held, now_s: float) -> Work | None:
        """The request whose turn it is, if it may be settled now. Judged by all that was read so far (R1)."""
        queue = held.queue
        while queue:
            work = queue[0]
            state = work.state
            if work.is_aside or state is WorkState.DONE or state is WorkState.DROPPED:
                queue.popleft()
            elif state is WorkState.READY:
                if not self.desk.is_too_old(work, now_s):  # it may be long since it was computed
                    return work
                self.desk.drop(work, Why.LATE)
            elif state is not WorkState.WAITING or held.state is not HeldState.SERVING:
                return None
            elif self._judge(held, work, now_s):
                return work
        return None

    def _judge(self, held: Held, work: Work, now_s: float) -> bool:
        """Whether a request that waits may be run. If not it was dropped, settled, or the log is asked."""
        request_id = work.request.request_id
        if request_id in held.ended or (work.timer and not _is_timer_of(work, held)):
            self.desk.drop(work, Why.ENDED)
        elif self.desk.is_too_old(work, now_s):
            self.desk.drop(work, Why.LATE)
        elif self._is_new(held, work):
            if self.holding.holds and self._is_held_back(held, work):
                return False
            deadline_s = work.request.deadline_s
            if deadline_s is not None and now_s >= deadline_s and self._expire is not None:
                # Nobody waits for it and it changes nothing: all that are late end in one turn.
                self._put_aside(work, self._expire(work.request, self.ownership.epoch(held.name)))
                return False
            return not work.suspect or self._begins.judge(held, work)
        elif (known := self.desk.known(request_id)) is not None:
            self.desk.settle(work, known, WorkEvent.FOUND)
        else:
            self._ask(held)
        return False

    def _ask(self, held: Held) -> None:
        """The log is asked for the first of the queue, and for those behind it that would be asked for next."""
        for work in islice(held.queue, DOUBTS_AT_A_TIME):
            request_id = work.request.request_id
            is_told = request_id in held.ended or self.desk.known(request_id) is not None
            if work.state is WorkState.WAITING and not self._is_new(held, work) and not is_told:
                self.desk.ask(work)

    def _is_new(self, held: Held, work: Work) -> bool:
        """Whether it has no outcome, as far as was read. A single's own subject refuses what no session can tell.

        The log is asked nevertheless where an earlier run is likely: of what is stored, whoever comes reads all.
        """
        seen = held.sessions.seen(work.caller, work.number)
        if seen is Seen.NEW or work.looked_up or work.timer:
            return True  # a timer's outcome would have ended the timer
        if seen is Seen.DONE or not work.single or work.stored_seq:
            return False
        request = work.request
        return request.attempt == 1 and not is_keyed(request.request_id)

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
        elif head.state in _ELSEWHERE:
            return
        held.is_due = True
        self._due.append(held)

    def _send(self, write: Write) -> None:
        self._unread[write.name] = write
        for work in write.singles:
            self._unread[work.request.request_id] = write
        self.desk.out.store.append(write)

    # --- what became of an entry ------------------------------------------------------------------------------
    def stored(self, write: Write, at_s: float) -> None:
        """The log has the entry, as its acknowledgement or the entry itself says. `at_s`: Unix time."""
        if write.is_done:
            return  # known already
        write.is_done = True
        if not (write.k or write.gate):
            (work,) = write.works
            assert work.outcome is not None
            self.group.settle(work, work.outcome, WorkEvent.STORED)
            return
        self._settle_all(write.works, at_s)
        self._settle_all(write.singles, at_s)
        for held in self._begins.stored(write.notes, self.held, self.desk.out):
            self._make_due(held)
        for checkpoint in write.saves:
            self._saver.saved(self.held[checkpoint.resource], checkpoint, at_s)
        self._landed(write)

    def _settle_all(self, works: Sequence[Work], at_s: float) -> None:
        desk, outbox = self.desk, self._outbox
        for work in works:
            outcome, held = work.outcome, self._held_of(work)
            assert outcome is not None
            held.fold(work.caller, work.number, outcome, at_s)
            if held.begun or held.timers is not None:
                held.settled(work.request.request_id)
            if not work.is_aside:
                held.in_flight -= 1
            desk.settle(work, outcome, WorkEvent.STORED)
            if held.unsent:
                outbox.stored(held, outcome.number, desk.out)
            if held.timers is not None:
                self._timers_changed(held, held.timers)
            if not held.in_flight:
                self._saver.changed(held)
                self._make_due(held)

    def refused(self, write: Write) -> None:
        """The gate has moved. Nothing is computed or stored until the new one is read (R7).

        Only then is it known that the entry is not in the log: an earlier try of it, whose answer was lost, may stand before
        that gate.
        """
        if write.is_done:
            return
        if self.ownership.gates.get(self.name, 0) > write.gate:
            self._undo(write)  # the newer gate was read before the refusal came
        else:
            self._refused_gate = max(self._refused_gate, write.gate)
            self._refused.append(write)

    def _undo(self, write: Write) -> None:
        """A newer gate was read, and the entry was not before it: it is not stored, and never will be."""
        if write.is_done:
            return
        write.is_done = True
        self._unread.pop(write.name, None)
        for work in write.singles:
            self._unread.pop(work.request.request_id, None)
        if write.k:
            # Numbers have no gaps, so that two processes of one identity collide (R10).
            self.k = max(write.k - 1, self._k_min)
        self._outbox.put_back(write.sent)
        self._begins.undone(write.notes)
        for work in reversed((*write.works, *write.singles)):
            if work.state is WorkState.STORING:
                self._undo_one(work)
        for checkpoint in write.saves:
            self._saver.refused(self.held[checkpoint.resource], checkpoint, gate=0)
        self._landed(write)

    def _undo_one(self, work: Work) -> None:
        held = self._held_of(work)
        if not work.is_aside:
            held.in_flight -= 1
        work.step(WorkEvent.UNDONE if work.pure and not work.is_aside else WorkEvent.REFUSED)
        if held.state is HeldState.FOLLOWING or work.epoch != self.ownership.epoch(held.name):
            self.desk.drop(work, Why.MOVED)  # somebody else may have written between
        elif work.request.request_id in held.ended:
            self.desk.drop(work, Why.ENDED)
        elif work.is_aside:
            self._aside.append(work)
        else:
            held.queue.appendleft(work)
        self._make_due(held)

    def taken(self, single: Write, found: Outcome) -> None:
        """The single's subject holds another outcome of its request. (One that is our own was `stored`.)"""
        if single.is_done:
            return
        single.is_done = True
        (work,) = single.works
        if work.request.resource is None:
            self.group.settle(work, found, WorkEvent.FOUND)
            return
        self._unread.pop(single.name, None)
        self._found_stored(work, found)

    def _found_stored(self, work: Work, found: Outcome) -> None:
        held = self._held_of(work)
        if not work.is_aside:
            held.in_flight -= 1
        self.desk.settle(work, found, WorkEvent.FOUND)
        self._make_due(held)

    def clashed(self, batch: Write) -> None:
        """One of the batch's singles has an outcome already, and nothing of the batch is stored: which one?"""
        if not batch.is_done and self._clashed is None:
            self._clashed = batch
            for (
                work
            ) in batch.singles:  # what the log said before is not so any more, of one of them
                work.looked_up = False
            self.desk.out.look_up += batch.singles

    def _found_in_clash(self, batch: Write, work: Work, found: Outcome | None) -> None:
        if found is not None:
            self._found_stored(work, found)
        else:
            work.looked_up = True
        if all(w.looked_up or w.state is WorkState.DONE for w in batch.singles):
            self._clashed = None
            self._undo(batch)

    def cloned(self, write: Write) -> None:
        """The turn's subject holds an entry that is not ours (R10)."""
        self._stop_as_clone(write.name)

    def _stop_as_clone(self, name: int | str) -> None:
        what = f"turn {name}" if isinstance(name, int) else f"outcome {name}"
        self.desk.out.stop = (
            f"{what} of writer {self.name} was stored by another process, which has this one's identity"
            " (a cloned machine or container): this one serves nothing more"
        )

    def _landed(self, write: Write) -> None:
        if write is self._turn:
            self._turn = None

    # --- what became of a checkpoint --------------------------------------------------------------------------
    def saved(self, save: Save, at_s: float) -> None:
        """It is stored."""
        self._saver.saved(self._held_in(save), save.checkpoint, at_s)

    def save_refused(self, save: Save) -> None:
        """The gate has moved: it is not stored, and never will be."""
        self._saver.refused(self._held_in(save), save.checkpoint, gate=save.gate)

    def save_lost(self, save: Save) -> None:
        """Nobody says what became of it, and it may still be on its way."""
        if self._saver.lost(self._held_in(save), save.checkpoint, gate=save.gate):
            self.desk.out.shut_out.append(self.name)

    def _held_in(self, save: Save) -> Held:
        return self.held[save.checkpoint.resource]

    def _held_of(self, work: Work) -> Held:
        return self.held[work.request.resource or ""]


def _behind(before: Work, values: Mapping[str, Any], held: Held) -> Ahead:
    """The values behind an outcome of the same turn."""
    if isinstance(values, Ahead):
        ahead = values
    else:
        ahead = Ahead(held.values, {} if held.timers is None else held.timers.by_name)
    if before.timer:
        ahead.fired(before.timer)
    outcome = before.outcome
    assert outcome is not None
    if outcome.change:
        ahead.apply(outcome.changed or Change.decode(outcome.change))
    return ahead


def _is_timer_of(work: Work, held: Held) -> bool:
    """Whether its timer is still there. It was set under this id, and may have been replaced."""
    return held.timers is not None and held.timers.is_set(work.timer, work.request.request_id)


def _is_set(work: Work, values: Mapping[str, Any]) -> bool:
    """The same by what the turn has before it."""
    timer = values.timers.get(work.timer) if isinstance(values, Ahead) else None
    return timer is not None and timer.id == work.request.request_id
