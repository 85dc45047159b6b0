"""Many writers on one log, in simulated time and from one seed: what the rules of the second form are worth.

The log answers as nats-server does: a subject takes one entry, a gate is rolled up by anybody without a condition, a turn is
checked against the newest gate of its writer. Everything between it and the parties is late by chance, entries come to each
reader in order, answers get lost and are asked for again. Writers sleep at any moment, with all that was on its way to them, and
wake up as zombies; some never do. Two control replicas move resources as they please. Callers give up early.

`Faults` are breaches of one rule each: with any of them `run` has to find something.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.domain.turns.entries import End, Entry, Gate, Own, Settled, Turn
from aegis_sdk.domain.turns.ownership import NOBODY, Ownership
from aegis_sdk.domain.turns.sessions import Sessions
from aegis_sdk.domain.turns.writer import Work, Write, Writer

from tests.unit.sdk.turns.transcript import added

RESOURCES = ("r1", "r2", "r3")
RETRY_S = 0.03
"""A store whose answer is missing is asked again."""
ENDS_KEPT_S = 1.0
"""Short, so that writers sleep for longer (R9)."""


class Fault(Enum):
    LATE_GATE = auto()
    """R1: the gate is read again when the turn is sent, behind what it was judged by."""
    GATE_BY_ANSWER = auto()
    """R2: after a refusal the server is asked for the newest gate, and it is taken without reading up to it."""
    NO_CHECK = auto()
    """R3: the check that the turn names is not held (a wildcard on three nodes)."""
    NOBODY_SHUT_OUT = auto()
    """R4: the new owner serves when it reads that it is."""
    LAST_OWNER_ALONE = auto()
    """R4: of a chain of owners only the last is shut out."""
    ENDS_ROLLED_UP = auto()
    """R5: an end is replaced by the next one, and a reader may miss it."""
    ONE_GATE = auto()
    """R6: a caller that gives up stores a gate of the owner alone."""
    NO_LOOK = auto()
    """R6: it does not read the log up to its gates."""
    UNDONE_EARLY = auto()
    """R7: a refused turn runs again before the new gate is read."""
    TOLD_EARLY = auto()
    """R8: callers are answered when the turn is sent."""
    OLD_RUN = auto()
    """R9: a request is run however long it has waited."""
    CLONE = auto()
    """R10: a second process has a writer's identity, turns are numbered with gaps, and neither stops."""


class Log:
    """The stream, and its readers."""

    def __init__(self, fault: Fault | None) -> None:
        self.entries: list[Entry] = []
        self.gates: dict[str, int] = {}
        self.names: dict[object, Entry] = {}
        self._fault = fault

    def bump(self, writer: str) -> None:
        self.gate(writer)

    def gate(self, writer: str) -> int:
        """A new gate of `writer`; its sequence."""
        seq = len(self.entries) + 1
        self.entries.append(Gate(seq, writer))
        self.gates[writer] = seq
        return seq

    def own(self, number: int, moves: dict[str, str]) -> bool:
        if ("own", number) in self.names:
            return False
        entry = Own(len(self.entries) + 1, number, moves)
        self.entries.append(entry)
        self.names["own", number] = entry
        return True

    def end(self, resource: str, request_id: str, now_s: float) -> int:
        entry = End(len(self.entries) + 1, resource, request_id, stored_s=now_s)
        self.entries.append(entry)
        return entry.seq

    def turn(self, writer: str, write: Write, settled: list[Settled], now_s: float) -> str:
        """`stored`, `refused`, or `taken` when the subject holds something already."""
        if self.gates.get(writer, 0) != write.gate and self._fault is not Fault.NO_CHECK:
            return "refused"
        name = (writer, write.name)
        if (there := self.names.get(name)) is not None:
            assert isinstance(there, Turn)
            return "stored" if there.content == write.content else "taken"
        seq = len(self.entries) + 1
        entry = Turn(seq, writer, write.name, settled, write.content, stored_s=now_s)
        self.entries.append(entry)
        self.names[name] = entry
        return "stored"


class Clock:
    def __init__(self, seed: int) -> None:
        self.now_s = 100.0
        self.chance = random.Random(seed)
        self._order = itertools.count()
        self._soon: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, wait_s: float, then: Callable[[], None]) -> None:
        heapq.heappush(self._soon, (self.now_s + wait_s, next(self._order), then))

    def late(self, then: Callable[[], None], most_s: float = 0.004) -> None:
        self.after(self.chance.random() ** 3 * most_s, then)

    def run(self, until_s: float) -> None:
        while self._soon and self._soon[0][0] <= until_s:
            self.now_s, _, then = heapq.heappop(self._soon)
            then()


class Reader:
    """Hands the log's entries on in their order, each a little late; an end that has expired is missed."""

    def __init__(self, sim: Simulation, on_entry: Callable[[Entry], None]) -> None:
        self._sim = sim
        self._on_entry = on_entry
        self.position = 0
        self.frozen = False
        self._step()

    def _step(self) -> None:
        sim = self._sim
        entries = sim.log.entries
        if not self.frozen and self.position < len(entries):
            for _ in range(sim.clock.chance.randint(1, 4)):
                if self.position < len(entries):
                    entry = entries[self.position]
                    self.position += 1
                    if not self._missed(entry):
                        self._on_entry(entry)
        sim.clock.late(self._step, 0.003)

    def _missed(self, entry: Entry) -> bool:
        if not isinstance(entry, End):
            return False
        if self._sim.fault is Fault.ENDS_ROLLED_UP:
            return any(
                isinstance(e, End) and e.resource == entry.resource
                for e in self._sim.log.entries[entry.seq :]
            )
        return self._sim.clock.now_s - entry.stored_s > ENDS_KEPT_S


class Process:
    """A writer's host: executes what the writer decides, sleeps, dies."""

    def __init__(self, sim: Simulation, name: str) -> None:
        self.sim = sim
        self.name = name
        self.writer = _make(sim.fault, name)
        for resource in RESOURCES:
            self.writer.follow(resource, {}, Sessions())
        self.stopped = ""
        self.asleep = False
        self._inbox: list[Callable[[], None]] = []
        self._again: set[int] = set()
        self.reader = Reader(sim, self._read)
        self.compute_waits_s = 0.002
        sim.clock.late(lambda: sim.log.bump(name))

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

    def _read(self, entry: Entry) -> None:
        self.call(lambda: self.writer.read(entry))

    def accept(self, request: Request, sent_s: float, pure: bool) -> None:
        work = Work(request, sent_s=sent_s, reply="r", pure=pure)
        self.call(lambda: self.writer.accept(work))

    def act(self) -> None:
        sim, writer = self.sim, self.writer
        writer.compose(sim.clock.now_s)
        while out := writer.take_output():
            if out.stop and sim.fault is not Fault.CLONE:
                self.stopped = out.stop
                return
            for other in out.shut_out:
                sim.clock.late(lambda w=other: sim.log.bump(w), sim.slow_s(0.2))  # type: ignore[misc]
            for write in out.store:
                self._store_later(write)
            for work in out.run:
                outcome = added(
                    work.request, dict(writer.held[work.request.resource or ""].values), 1
                )
                wait_s = sim.clock.chance.random() * self.compute_waits_s
                sim.clock.after(wait_s, lambda w=work, o=outcome: self.call(lambda: writer.computed(w, o)))  # type: ignore[misc]
            for work in out.look_up:
                sim.clock.late(lambda w=work: self._look_up(w))  # type: ignore[misc]
            for work in out.answer:
                sim.answered(work.request.request_id, work.outcome)
            writer.compose(sim.clock.now_s)

    def _look_up(self, work: Work) -> None:
        found = self.sim.outcome_of(work.request.request_id)
        self.call(lambda: self.writer.looked_up(work, found))

    def _store_later(self, write: Write) -> None:
        """Between judging and storing a process may sleep."""
        settled = [
            Settled(work.request.request_id, work.request.resource or "", work.outcome)
            for work in write.works
            if work.outcome is not None
        ]
        write.content = repr([(s.request_id, s.outcome.body) for s in settled]).encode()
        if self.sim.fault is Fault.TOLD_EARLY:
            for one in settled:
                self.sim.answered(one.request_id, one.outcome)
        self.sim.clock.late(lambda: self.call(lambda: self._send(write, settled)))

    def _send(self, write: Write, settled: list[Settled]) -> None:
        if self.sim.fault is Fault.LATE_GATE:
            write.gate = self.writer.ownership.gates[self.name]
        self._again.add(id(write))
        self.sim.clock.late(lambda: self._arrive(write, settled), self.sim.slow_s(0.3))
        self.sim.clock.after(RETRY_S, lambda: self.call(lambda: self._send_again(write, settled)))

    def _send_again(self, write: Write, settled: list[Settled]) -> None:
        if id(write) in self._again:
            self._send(write, settled)

    def _arrive(self, write: Write, settled: list[Settled]) -> None:
        said = self.sim.log.turn(self.name, write, settled, self.sim.clock.now_s)
        if self.sim.clock.chance.random() > 0.2:  # else the answer is lost
            self.sim.clock.late(lambda: self.call(lambda: self._answer(write, said)))

    def _answer(self, write: Write, said: str) -> None:
        if id(write) not in self._again:
            return
        self._again.discard(id(write))
        if said == "stored":
            self.writer.stored(write, self.sim.clock.now_s)
        elif said == "taken":
            self.writer.cloned(write)
        else:
            self.writer.refused(write)
            if self.sim.fault is Fault.GATE_BY_ANSWER:
                self.writer.read(Gate(self.writer.position + 1, self.name))
                self.writer.position -= 1
                self.writer.ownership.gates[self.name] = self.sim.log.gates[self.name]


class Caller:
    """One request: sends it to whom it takes for the owner, again when there is a new one, and ends its doubt (R6)."""

    def __init__(self, sim: Simulation, request_id: str, resource: str) -> None:
        self.sim = sim
        self.request = Request(request_id, "s", "add", resource, b"1")
        self.pure = sim.clock.chance.random() < 0.7
        self.verdict = ""
        self.body = b""
        self._sent_to: set[str] = set()
        self._sent_s = sim.clock.now_s
        patience_s = sim.clock.chance.choice([0.003, 0.01]) if sim.is_impatient() else 2.0
        sim.clock.after(patience_s, self._give_up)
        self.send()

    def send(self) -> None:
        if self.verdict or self.sim.clock.now_s - self._sent_s > 2.0:
            return
        owner = self.sim.ownership.owner(self.request.resource or "")
        if owner != NOBODY and (owner not in self._sent_to or self.sim.clock.chance.random() < 0.2):
            self._sent_to.add(owner)
            process = self.sim.processes[owner]
            sent_s = self._sent_s
            for twin in (process, *self.sim.twins.get(owner, ())):
                self.sim.clock.late(lambda p=twin: p.accept(self.request, sent_s, self.pure), 0.01)  # type: ignore[misc]
        self.sim.clock.after(0.05, self.send)

    def told(self, outcome: Outcome) -> None:
        if not self.verdict:
            self.verdict, self.body = outcome.kind.value, outcome.body

    def _give_up(self) -> None:
        if self.verdict:
            return
        resource = self.request.resource or ""
        end = self.sim.log.end(resource, self.request.request_id, self.sim.clock.now_s)
        self.sim.when_read(end, lambda: self._shut(resource))

    def _shut(self, resource: str) -> None:
        may_write = self.sim.ownership.may_write(resource)
        if self.sim.fault is Fault.ONE_GATE:
            may_write = {self.sim.ownership.owner(resource)} - {NOBODY}
        last = max([self.sim.log.gate(writer) for writer in sorted(may_write)], default=0)
        if self.sim.fault is Fault.NO_LOOK:
            self._judge()
        else:
            self.sim.when_read(last, self._judge)

    def _judge(self) -> None:
        if self.verdict:
            return
        found = self.sim.seen.get(self.request.request_id)
        if found is None:
            self.verdict = "cancelled"
        else:
            self.told(found)


@dataclass
class Found:
    """What was wrong at the end, and what had happened."""

    wrong: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


class Simulation:
    def __init__(self, seed: int, fault: Fault | None = None, *, cloned: bool = False) -> None:
        self.fault = fault
        self.cloned = cloned or fault is Fault.CLONE
        self.clock = Clock(seed)
        self.log = Log(fault)
        self.ownership = Ownership()
        self.seen: dict[str, Outcome] = {}
        self.processes: dict[str, Process] = {}
        self.twins: dict[str, list[Process]] = {}
        self.callers: dict[str, Caller] = {}
        self._until: list[tuple[int, int, Callable[[], None]]] = []
        self._waits = itertools.count()
        self._names = itertools.count(1)
        self.counts = dict.fromkeys(("moves", "sleeps", "deaths", "refused_moves"), 0)
        self._impatient = self.clock.chance.choice([0.01, 0.1, 0.4])
        self._reader = Reader(self, self._read)

    # --- what callers and control read --------------------------------------------------------------------
    def _read(self, entry: Entry) -> None:
        if isinstance(entry, Own):
            self.ownership.read_own(entry.number, entry.moves)
        elif isinstance(entry, Gate):
            self.ownership.read_gate(entry.writer, entry.seq)
        elif isinstance(entry, Turn):
            for settled in entry.settled:
                self.seen.setdefault(settled.request_id, settled.outcome)
        while self._until and self._until[0][0] <= entry.seq:
            heapq.heappop(self._until)[2]()

    def when_read(self, seq: int, then: Callable[[], None]) -> None:
        if self._reader.position >= seq:
            self.clock.late(then)
        else:
            heapq.heappush(self._until, (seq, next(self._waits), then))

    def answered(self, request_id: str, outcome: Outcome | None) -> None:
        caller = self.callers.get(request_id)
        if caller is not None and outcome is not None and self.clock.chance.random() > 0.02:
            self.clock.late(lambda: caller.told(outcome))

    def outcome_of(self, request_id: str) -> Outcome | None:
        for entry in self.log.entries:
            if isinstance(entry, Turn):
                for settled in entry.settled:
                    if settled.request_id == request_id:
                        return settled.outcome
        return None

    def is_impatient(self) -> bool:
        """Each of its callers' gates shuts a writer out, and hides what would else be late: some runs have few of them."""
        return self.clock.chance.random() < self._impatient

    def slow_s(self, slow_s: float) -> float:
        """How late a message may be: one in four is slow."""
        return slow_s if self.clock.chance.random() < 0.25 else 0.005

    # --- what happens -------------------------------------------------------------------------------------
    def run(self, seconds: float, calls: int) -> Found:
        for _ in range(3):
            self._begin_process()
        if self.cloned:
            twin = Process(self, "w1")
            self.twins["w1"] = [twin]
        self._move({resource: self._someone() for resource in RESOURCES})
        for n in range(calls):
            when_s = self.clock.chance.random() * seconds
            self.clock.after(when_s, lambda n=n: self._call(n))  # type: ignore[misc]
        self.clock.after(0.02, self._control)
        end_s = self.clock.now_s + seconds
        self.clock.run(end_s)
        self._calm = True
        self.clock.run(end_s + 12.0)  # all awake, nobody moves
        return self._judge()

    _calm = False

    def _call(self, n: int) -> None:
        # One caller's numbers and no session below its window.
        request_id = f"c{self.clock.chance.randint(1, 3)}.{n + 1}"
        self.callers[request_id] = Caller(self, request_id, self.clock.chance.choice(RESOURCES))

    def _begin_process(self) -> str:
        name = f"w{next(self._names)}"
        self.processes[name] = Process(self, name)
        return name

    def _someone(self) -> str:
        live = [name for name, process in self.processes.items() if not process.stopped]
        live = live or [self._begin_process()]
        return self.clock.chance.choice(live)

    def _move(self, moves: dict[str, str]) -> None:
        number = self.ownership.number + 1

        def store() -> None:
            stored = self.log.own(number, moves)
            self.counts["moves" if stored else "refused_moves"] += 1

        self.clock.late(store, 0.01)

    def _control(self) -> None:
        if self._calm:
            return
        chance = self.clock.chance
        what = chance.random()
        if what < 0.5:
            self._move({r: self._someone() for r in chance.sample(RESOURCES, chance.randint(1, 3))})
            if chance.random() < 0.3:  # the other replica, at the same time
                self._move({r: self._someone() for r in chance.sample(RESOURCES, 2)})
        else:
            name = self._someone()
            self.counts["sleeps"] += 1
            self.processes[name].sleep(chance.choice([0.005, 0.03, 0.1, 1.2, 1.2]))
            if chance.random() < 0.4:
                self._move(
                    {r: self._someone() for r in RESOURCES if self.ownership.owner(r) == name}
                )
            elif chance.random() < 0.6:  # to one that sleeps, and on before it comes to serve
                self._move(dict.fromkeys(RESOURCES, name))
                self.clock.after(0.02, lambda: self._move({r: self._someone() for r in RESOURCES}))
        if chance.random() < 0.05 and len(self.processes) < 6:
            self._begin_process()
        self.clock.after(chance.uniform(0.004, 0.06), self._control)

    # --- what must be true --------------------------------------------------------------------------------
    def _judge(self) -> Found:
        found = Found(counts=dict(self.counts))
        values = dict.fromkeys(RESOURCES, 0)
        stored: dict[str, bytes] = {}
        for entry in self.log.entries:
            for settled in entry.settled if isinstance(entry, Turn) else ():
                request_id, resource = settled.request_id, settled.resource
                if request_id in stored:
                    found.wrong.append(f"{request_id} took effect twice")
                values[resource] += 1
                if settled.outcome.body != str(values[resource]).encode():
                    found.wrong.append(f"{request_id} was computed on a state that lacks something")
                    values[resource] = int(settled.outcome.body)
                stored[request_id] = settled.outcome.body
        for process in self.processes.values():
            if process.stopped and not self.twins:
                found.wrong.append(f"{process.name} stopped: {process.stopped}")
        for request_id, caller in self.callers.items():
            found.counts[caller.verdict] = found.counts.get(caller.verdict, 0) + 1
            if not caller.verdict:
                found.wrong.append(f"{request_id} was never answered")
            elif caller.verdict == "cancelled" and request_id in stored:
                found.wrong.append(f"{request_id} was cancelled and took effect")
            elif caller.verdict == "executed" and stored.get(request_id) != caller.body:
                found.wrong.append(f"{request_id} was answered and is not stored so")
        return found


def _make(fault: Fault | None, name: str) -> Writer:
    kept_s = 1e9 if fault is Fault.OLD_RUN else ENDS_KEPT_S
    ownership: Ownership | None = None
    if fault is Fault.NOBODY_SHUT_OUT:
        ownership = _Open()
    elif fault is Fault.LAST_OWNER_ALONE:
        ownership = _Last()
    kinds: dict[Fault | None, type[Writer]] = {
        Fault.UNDONE_EARLY: _Early,
        Fault.CLONE: _WithGaps,
    }
    return kinds.get(fault, Writer)(name, added, ends_kept_s=kept_s, ownership=ownership)


class _Open(Ownership):
    def is_whole(self, resource: str) -> bool:
        return True


class _Last(Ownership):
    def _move(self, resource: str, owner: str) -> bool:
        before = self._tenures.get(resource)
        if before is not None:
            before.open.clear()
        return super()._move(resource, owner)


class _Early(Writer):
    def refused(self, write: Write) -> None:
        self._undo(write)


class _WithGaps(Writer):
    def _undo(self, write: Write) -> None:
        last = self.k
        super()._undo(write)
        self.k = last


def simulate(seed: int, fault: Fault | None = None, *, cloned: bool = False) -> Found:
    """A second and a half of trouble with 900 calls, and twelve in which nothing more is disturbed."""
    return Simulation(seed, fault, cloned=cloned).run(1.5, 900)


__all__: list[Any] = ["Fault", "Found", "simulate"]
