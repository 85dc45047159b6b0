"""Who takes part in the simulation: a writer's process, a caller, and a stored request that is delivered until it is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import is_timer, timer_id
from aegis_sdk.contract.turns.timers import Timer
from aegis_sdk.domain.turns.checkpoints import Every
from aegis_sdk.domain.turns.entries import Entry, Gate, Own, Turn
from aegis_sdk.domain.turns.giveup import GivingUp, may_write
from aegis_sdk.domain.turns.output import Output, Save, Sending
from aegis_sdk.domain.turns.ownership import NOBODY, MissingOwnership
from aegis_sdk.domain.turns.work import BehindTrim, Work, Write
from aegis_sdk.domain.turns.writer import Writer

from tests.unit.sdk.turns.world import ENDS_KEPT_S, RESOURCES, Fault, Reader, settled_of

if TYPE_CHECKING:
    from tests.unit.sdk.turns.simulation import Simulation

RETRY_S: Final = 0.03
"""A store whose answer is missing is asked again."""
AGAIN_S: Final = 0.05
CANCELLED: Final = Outcome(OutcomeKind.CANCELLED, b'"cancelled"')


def handled(request: Request, values: Mapping[str, Any], epoch: int) -> Outcome:
    """The one handler there is: counts, and hands in a request if it is told so."""
    send: tuple[Mapping[str, Any], ...] = ()
    if request.payload == b"send":
        caller, number = request.request_id.split(".")
        places = [*RESOURCES, None]
        send = ({"id": f"{caller}~{number}.sent", "to": places[int(number) % 4]},)
    n = values.get("n", 0) + 1 if request.resource else 0
    change = Change({"n": n} if n else {}, (), send)
    what, _, of = request.payload.decode().partition(" ")
    if what == "drop":
        change.drop = (of,)
    elif what == "later":
        name, due_s = of.split("=")
        asked = Request(
            timer_id(request.request_id, "add", name), "s", "add", request.resource, b"1"
        )
        change.later = (Timer.made(name, float(due_s), asked).content,)
    body, encoded = str(n).encode(), change.encode() if change else b""
    return Outcome(OutcomeKind.EXECUTED, body, encoded, epoch=epoch, changed=change)


def work_of(request: Request, *, sent_s: float, pure: bool, stored_seq: int = 0) -> Work:
    single = "~" in request.request_id and not is_timer(request.request_id)
    return Work(request, sent_s=sent_s, pure=pure, single=single, stored_seq=stored_seq)


class Process:
    """A writer's host: executes what the writer decides, sleeps, dies."""

    def __init__(self, sim: Simulation, name: str) -> None:
        self.sim = sim
        self.name = name
        old = sim.fault is Fault.OLD_RUN
        self.writer = Writer(
            name,
            handled,
            ends_kept_s=1e9 if old else ENDS_KEPT_S,
            outcomes_kept_s=0.0 if sim.fault is Fault.SESSIONS_DROPPED else ENDS_KEPT_S,
            batched=sim.batched,
            recent_max=2,
            every=Every(changes=20, entries=80, seconds=0.4, at_a_time=2),
        )
        for resource in RESOURCES:
            if sim.clock.chance.random() < 0.8:
                self._restore(self.writer, resource)
        if 0 < self.writer.position < sim.log.trimmed:
            sim.wrong.append(f"{name} begins at {self.writer.position}, behind the trim")
        self.stopped = ""
        self.asleep = False
        self._inbox: list[Callable[[], None]] = []
        self._again: set[int] = set()
        self.reader = Reader(sim.clock, sim.log, self._read, position=self.writer.position)
        self.compute_waits_s = 0.002
        sim.clock.late(lambda: self._store_gate(name))
        sim.clock.after(0.1, self._tick)

    def _restore(self, writer: Writer, resource: str) -> None:
        saved = self.sim.log.saved.get(resource)
        if saved is None:
            writer.restore(resource)
        else:
            writer.restore(resource, saved.checkpoint, saved_s=saved.stored_s)

    def _store_gate(self, writer: str) -> None:
        self.sim.log.gate(writer)

    # Whatever reaches a process that sleeps waits for it.
    def call(self, then: Callable[[], None]) -> None:
        if self.asleep:
            self._inbox.append(then)
        elif not self.stopped:
            then()
            self.act()

    def sleep(self, seconds: float) -> None:
        self.asleep = self.reader.frozen = True
        self.sim.clock.after(seconds, self._wake)

    def _wake(self) -> None:
        self.asleep = self.reader.frozen = False
        inbox, self._inbox = self._inbox, []
        self.sim.clock.chance.shuffle(inbox)  # sockets are read in any order
        for then in inbox:
            self.call(then)

    def end(self, why: str) -> None:
        self.stopped = why
        self.reader.closed = True

    def _tick(self) -> None:
        self.call(lambda: self.writer.tick(self.sim.clock.now_s))
        if not self.stopped:
            self.sim.clock.after(0.1, self._tick)

    # --- the log ------------------------------------------------------------------------------------------
    def _read(self, entry: Entry) -> None:
        self.call(lambda: self._fold(entry))

    def _fold(self, entry: Entry) -> None:
        if (
            isinstance(entry, Turn)
            and isinstance(entry.name, str)
            and not entry.settled[0].resource
        ):
            return  # the group's: of no resource
        fault, last = self.sim.fault, self.writer.k
        if fault is Fault.LAST_OWNER_ALONE and isinstance(entry, Own):
            for tenure in self.writer.ownership._tenures.values():
                tenure.open.clear()
        if fault is Fault.HOLE_UNSEEN and isinstance(entry, Turn):
            for settled in entry.settled:
                held = self.writer.held.get(settled.resource)
                if held is not None and settled.outcome.number:
                    held.number = max(held.number, settled.outcome.number - 1)
        try:
            self.writer.read(entry)
        except (BehindTrim, MissingOwnership) as error:
            self._begin_anew(error)
            return
        if fault is Fault.NOBODY_SHUT_OUT and isinstance(entry, Own):
            ours = [name for name, owner in entry.moves.items() if owner == self.name]
            self.writer._became_whole(ours)
        if fault is Fault.CLONE:
            self.writer.k = max(last, self.writer.k)

    def _begin_anew(self, error: Exception) -> None:
        self.sim.counts["behind"] += 1
        if self.sim.log.trimmed == 0:
            self.sim.wrong.append(f"{self.name} misses something, and nothing was trimmed: {error}")
        self.end("behind")
        self.sim.clock.after(AGAIN_S, self.sim.another)

    def _fetch(self, resource: str) -> None:
        """A resource is ours that is not held here."""
        further = self.writer.further()
        self._restore(further, resource)
        if further.position > self.writer.position:
            self.sim.clock.after(0.01, lambda: self.call(lambda: self._fetch(resource)))
            return
        try:
            for entry in self.sim.log.entries[further.position : self.writer.position]:
                if self.sim.log.is_there(entry, self.sim.clock.now_s):
                    further.read(entry)
        except (BehindTrim, MissingOwnership) as error:
            self._begin_anew(error)
            return
        further.position = self.writer.position  # the last ones may have been replaced
        self.sim.counts["adopted"] += 1
        self.writer.adopt(further)

    # --- what it does -------------------------------------------------------------------------------------
    def accept(self, request: Request, sent_s: float, pure: bool, stored_seq: int = 0) -> None:
        work = work_of(request, sent_s=sent_s, pure=pure, stored_seq=stored_seq)
        self.call(lambda: self.writer.accept(work))

    def act(self) -> None:
        sim, writer = self.sim, self.writer
        if self.stopped:
            return
        self._fire()
        writer.compose(sim.clock.now_s)
        while out := writer.take_output():
            if out.stop and sim.fault is not Fault.CLONE:
                self.end(out.stop)
                return
            self._execute(out)
            writer.compose(sim.clock.now_s)

    def _fire(self) -> None:
        blindly = self.sim.fault is Fault.TIMERS_RUN_BLINDLY
        for timer in self.writer.fire(self.sim.clock.now_s):
            pure, name = self.sim.clock.chance.random() < 0.5, "" if blindly else timer.name
            work = Work(timer.request(), sent_s=math.inf, pure=pure, single=blindly, timer=name)
            self.writer.accept(work)

    def _execute(self, out: Output) -> None:
        sim = self.sim
        for other in out.shut_out:
            sim.clock.late(lambda w=other: self._store_gate(w), sim.slow_s(0.2))  # type: ignore[misc]
        for write in out.store:
            self._store_later(write)
        for save in out.save:
            sim.clock.late(lambda s=save: self._save(s), sim.slow_s(0.3))  # type: ignore[misc]
            sim.clock.after(RETRY_S, lambda s=save: self.call(lambda: self._doubt(s)))  # type: ignore[misc]
        for work in out.dropped:
            if work.timer and sim.fault is not Fault.TIMERS_FORGOTTEN:
                self.writer.unfired(work)
        for work in out.run:
            self._run(work)
        for work in out.look_up:
            sim.clock.late(lambda w=work: self._look_up(w))  # type: ignore[misc]
        for work in out.keep:
            self._keep(work)
        for sending in out.send:
            if not (sim.fault is Fault.NOT_SENT_AGAIN and out.serving):
                self._hand_in(sending)
        for work in out.answer:
            sim.answered(work.request.request_id, work.outcome)
            if work.stored_seq and not work.request.resource:
                sim.acknowledged(work.request.request_id)
        for resource in out.unknown:
            sim.clock.late(lambda r=resource: self.call(lambda: self._fetch(r)))  # type: ignore[misc]

    def _run(self, work: Work) -> None:
        values = (
            dict(self.writer.held[work.request.resource].values) if work.request.resource else {}
        )
        outcome = handled(work.request, values, 1)
        wait_s = self.sim.clock.chance.random() * self.compute_waits_s
        self.sim.clock.after(wait_s, lambda: self.call(lambda: self.writer.computed(work, outcome)))

    def _look_up(self, work: Work) -> None:
        found = self.sim.log.outcomes.get(work.request.request_id)
        self.call(lambda: self.writer.looked_up(work, found))

    def _keep(self, work: Work) -> None:
        """A group's request is stored, then its outcome may be."""
        if self.sim.fault is Fault.GROUP_NOT_KEPT:
            self.call(lambda: self.writer.kept(work, 0))
        else:
            seq = self.sim.store(work.request)
            self.sim.clock.late(lambda: self.call(lambda: self.writer.kept(work, seq)))

    def _hand_in(self, sending: Sending) -> None:
        sim = self.sim
        if sim.fault is Fault.MARKED_EARLY:
            sim.clock.late(lambda: self.call(lambda: sim.hand_in(sending.content)), 0.1)
            self.writer.sent(sending)
            return

        def stored() -> None:
            sim.hand_in(sending.content)
            self.writer.sent(sending)

        sim.clock.late(lambda: self.call(stored), sim.slow_s(0.1))

    # --- storing ------------------------------------------------------------------------------------------
    def _store_later(self, write: Write) -> None:
        """Between judging and storing a process may sleep."""
        settled = settled_of([*write.works, *write.singles])
        write.content = repr([(s.request_id, s.outcome.body) for s in settled]).encode()
        for one in settled:
            if self.sim.fault is Fault.TOLD_EARLY:
                self.sim.answered(one.request_id, one.outcome)
            if self.sim.fault is Fault.SENT_EARLY and one.outcome.change:
                for content in Change.decode(one.outcome.change).send:
                    self.sim.hand_in(content)
        self.sim.clock.late(lambda: self.call(lambda: self._send(write)))

    def _send(self, write: Write) -> None:
        if self.sim.fault is Fault.LATE_GATE and write.gate:
            write.gate = self.writer.ownership.gates[self.name]
        self._again.add(id(write))
        self.sim.clock.late(lambda: self._arrive(write), self.sim.slow_s(0.3))
        self.sim.clock.after(RETRY_S, lambda: self.call(lambda: self._send_again(write)))

    def _send_again(self, write: Write) -> None:
        if id(write) in self._again:
            self._send(write)

    def _arrive(self, write: Write) -> None:
        said = self.sim.log.write(self.name, write, self.sim.clock.now_s)
        if self.sim.clock.chance.random() > 0.2:  # else the answer is lost
            self.sim.clock.late(lambda: self.call(lambda: self._answer(write, said)))

    def _answer(self, write: Write, said: str) -> None:
        if id(write) not in self._again:
            return
        self._again.discard(id(write))
        if said == "stored":
            self.writer.stored(write, self.sim.clock.now_s)
        elif said == "taken" and write.k:
            self.writer.cloned(write)
        elif said == "taken":
            self.writer.taken(write, self.sim.log.outcomes[str(write.name)])
        elif said == "clashed":
            self.writer.clashed(write)
        elif self.sim.fault is Fault.UNDONE_EARLY:
            self.writer._undo(write)
        else:
            self.writer.refused(write)
            gate = self.sim.log.gates.get(self.name)
            if self.sim.fault is Fault.GATE_BY_ANSWER and gate is not None:
                self.writer.read(Gate(self.writer.position + 1, self.name))
                self.writer.position -= 1
                self.writer.ownership.gates[self.name] = gate

    def _save(self, save: Save) -> None:
        said = self.sim.log.save(save.checkpoint, save.gate, self.sim.clock.now_s)
        if self.sim.clock.chance.random() > 0.2:
            self.sim.clock.late(lambda: self.call(lambda: self._saved(save, said)))

    def _saved(self, save: Save, said: str) -> None:
        if said == "stored":
            self.writer.saved(save, self.sim.clock.now_s)
        else:
            self.writer.save_refused(save)

    def _doubt(self, save: Save) -> None:
        if self.sim.fault is Fault.SAVED_TWICE:
            held = self.writer.held[save.checkpoint.resource]
            self.writer._saver.refused(held, save.checkpoint, gate=0)
        else:
            self.writer.save_lost(save)  # if it was answered, this changes nothing


class Stored:
    """A stored request: delivered until its outcome is in the log; the group's until it is acknowledged."""

    def __init__(self, sim: Simulation, request: Request, seq: int) -> None:
        self.sim = sim
        self.request = request
        self.seq = seq
        self.is_done = False
        self.deliver()

    def deliver(self) -> None:
        sim, request = self.sim, self.request
        if request.resource:
            self.is_done = request.request_id in sim.seen
        if self.is_done:
            return
        owner = sim.ownership.owner(request.resource) if request.resource else sim.someone()
        if owner != NOBODY:
            process = sim.processes[owner]
            pure = sim.clock.chance.random() < 0.5
            sim.clock.late(
                lambda: process.accept(request, math.inf, pure, stored_seq=self.seq), 0.01
            )
        request.attempt = 2
        sim.clock.after(AGAIN_S, self.deliver)


class Caller:
    """One request: sends it to whom it takes for the owner, again when there is a new one, and ends its doubt (R6)."""

    def __init__(self, sim: Simulation, request: Request) -> None:
        self.sim = sim
        self.request = request
        self.pure = sim.clock.chance.random() < 0.7
        self.verdict = ""
        self.body = b""
        self._doubt = GivingUp({})
        self._sent_to: set[str] = set()
        self._sent_s = sim.clock.now_s
        patience_s = sim.clock.chance.choice([0.003, 0.01]) if sim.is_impatient() else 2.0
        sim.clock.after(patience_s, self._ask)
        self.send()

    def send(self) -> None:
        sim = self.sim
        if self.verdict or sim.clock.now_s - self._sent_s > 2.0:
            return
        resource = self.request.resource
        owner = sim.ownership.owner(resource) if resource else sim.someone()
        if owner != NOBODY and (owner not in self._sent_to or sim.clock.chance.random() < 0.2):
            self._sent_to.add(owner)
            sent_s = self._sent_s
            for twin in (sim.processes[owner], *sim.twins.get(owner, ())):
                sim.clock.late(lambda p=twin: p.accept(self.request, sent_s, self.pure), 0.01)  # type: ignore[misc]
        sim.clock.after(AGAIN_S, self.send)

    def told(self, outcome: Outcome) -> None:
        if not self.verdict:
            self.verdict, self.body = outcome.kind.value, outcome.body

    def _ask(self) -> None:
        """Politely."""
        if self.verdict:
            return
        if self._sent_to and self.sim.clock.chance.random() < 0.5:
            process = self.sim.processes[max(self._sent_to)]
            cancel = lambda: process.writer.cancel(self.request.request_id, CANCELLED)  # noqa: E731
            self.sim.clock.late(lambda: process.call(cancel))
        self.sim.clock.after(0.01, self._give_up)

    def _give_up(self) -> None:
        if self.verdict:
            return
        sim, request_id = self.sim, self.request.request_id
        resource = self.request.resource
        if resource is None or "~" in request_id:
            there = sim.log.cancel(request_id, resource or "", CANCELLED, sim.clock.now_s)
            self.told(there)
            return
        end = sim.log.end(resource, request_id, sim.clock.now_s)
        self._doubt = GivingUp({request_id: resource})
        self._doubt.ended([end], {})
        sim.when_read(end, lambda: self._shut(resource))

    def _shut(self, resource: str) -> None:
        log, saved = self.sim.log, self.sim.log.saved.get(resource)
        newest = None if saved is None else saved.checkpoint
        writers = may_write(resource, newest, self.sim.owns)
        if self.sim.fault is Fault.ONE_GATE:
            writers = {self.sim.ownership.owner(resource)} - {NOBODY}
        self._doubt.found(writers, log.gates)
        self._doubt.shut([log.gate(writer) for writer in self._doubt.writers])
        if self.sim.fault is Fault.NO_LOOK:
            self._judge()
        else:
            self.sim.when_read(self._doubt.last_gate, self._judge)

    def _judge(self) -> None:
        if self.verdict:
            return
        found = self.sim.seen.get(self.request.request_id)
        if found is None:
            self.verdict = "cancelled"
        else:
            self.told(found)
