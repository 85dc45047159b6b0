"""Many writers on one log, in simulated time and from one seed: what the rules are worth.

Everything between the log and the parties is late by chance, entries come to each reader in order, answers get lost and are
asked for again. Writers sleep at any moment, with all that was on its way to them, and wake up as zombies; some never do, and
others begin anew, from checkpoints. Two control replicas move resources as they please, and trim the log. Callers give up early.

`Faults` are breaches of one rule each: with any of them `run` has to find something.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aegis_control.domain.leading import trimming
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import is_timer
from aegis_sdk.contract.turns.timers import Timer
from aegis_sdk.domain.turns.entries import Entry, Gate, Own, Turn
from aegis_sdk.domain.turns.keeping import Keeping
from aegis_sdk.domain.turns.ownership import NOBODY, MissingOwnership, Ownership
from aegis_sdk.domain.turns.work import BehindTrim

from tests.unit.sdk.turns.parties import Caller, Process, Stored
from tests.unit.sdk.turns.world import RESOURCES, Clock, Fault, Log, Reader

PROCESSES_MAX = 12


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
        self.owns: list[Own] = []
        self.seen: dict[str, Outcome] = {}
        self.processes: dict[str, Process] = {}
        self.twins: dict[str, list[Process]] = {}
        self.callers: dict[str, Caller] = {}
        self.stored: dict[str, Stored] = {}
        self.handed_in: set[str] = set()
        self.wrong: list[str] = []
        self._until: list[tuple[int, int, Callable[[], None]]] = []
        self._waits = itertools.count()
        self._names = itertools.count(1)
        self._alone_s: dict[str, float] = {}
        self._shuts_out = self.clock.chance.random() < 0.7
        what = ("moves", "sleeps", "deaths", "refused_moves", "behind", "adopted", "kept")
        self.counts = dict.fromkeys(what, 0)
        self._impatient = self.clock.chance.choice([0.01, 0.1, 0.4])
        self.batched = fault is Fault.BATCH_IN_PIECES or self.clock.chance.random() < 0.3
        self._reader = Reader(self.clock, self.log, self._read, sees_all=True)

    # --- what callers and control read --------------------------------------------------------------------
    def _read(self, entry: Entry) -> None:
        if isinstance(entry, Own):
            self.ownership.read_own(entry.number, entry.moves)
            self.owns.append(entry)
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
        if caller is not None and outcome is not None and self.clock.chance.random() > 0.1:
            told = Outcome(outcome.kind, outcome.body)
            self.clock.late(lambda: caller.told(told))

    def is_impatient(self) -> bool:
        """Each of its callers' gates shuts a writer out, and hides what would else be late: some runs have few of them."""
        return self.clock.chance.random() < self._impatient

    def slow_s(self, slow_s: float) -> float:
        """How late a message may be: one in four is slow."""
        return slow_s if self.clock.chance.random() < 0.25 else 0.005

    # --- stored requests ----------------------------------------------------------------------------------
    def store(self, request: Request) -> int:
        """Its place among them; twice under one id is once."""
        there = self.stored.get(request.request_id)
        if there is None:
            seq = len(self.stored) + 1
            there = self.stored[request.request_id] = Stored(self, request, seq)
        return there.seq

    def hand_in(self, content: Mapping[str, Any]) -> None:
        self.handed_in.add(content["id"])
        self.store(Request(content["id"], "s", "add", content["to"], b"1"))

    def acknowledged(self, request_id: str) -> None:
        if request_id in self.stored:
            self.stored[request_id].is_done = True

    # --- what happens -------------------------------------------------------------------------------------
    def run(self, seconds: float, calls: int) -> Found:
        for _ in range(3):
            self.begin_process()
        if self.cloned:
            self.twins["w1"] = [Process(self, "w1")]
        self._move({resource: self.someone() for resource in RESOURCES})
        for n in range(calls):
            when_s = self.clock.chance.random() * seconds
            self.clock.after(when_s, lambda n=n: self._call(n))  # type: ignore[misc]
        self.clock.after(0.02, self._control)
        self.clock.after(0.1, self._trim)
        self.clock.after(0.03, self._keep)
        end_s = self.clock.now_s + seconds
        self.clock.run(end_s)
        self._calm = True
        self.clock.run(end_s + 12.0)  # all awake, nobody moves
        return self._judge()

    _calm = False

    def _call(self, n: int) -> None:
        # One caller's numbers and no session below its window.
        chance = self.clock.chance
        caller, payload = f"c{chance.randint(1, 3)}", b"send" if chance.random() < 0.25 else b"1"
        resource = None if chance.random() < 0.1 else chance.choice(RESOURCES)
        if resource and chance.random() < 0.15:
            payload = self._of_timer(f"t{chance.randint(1, 9)}")
        is_child = chance.random() < 0.1 and payload == b"1"
        request_id = f"{caller}~{n + 1}.child" if is_child else f"{caller}.{n + 1}"
        request = Request(request_id, "s", "add", resource, payload)
        self.callers[request_id] = Caller(self, request)

    def _of_timer(self, name: str) -> bytes:
        """Of a name that others have, too: they replace it, or drop it, often when it is due."""
        chance = self.clock.chance
        if chance.random() < 0.3:
            return f"drop {name}".encode()
        return f"later {name}={self.clock.now_s + chance.choice([0.0, 0.05, 0.6]):.3f}".encode()

    def begin_process(self) -> str:
        name = f"w{next(self._names)}"
        self.processes[name] = Process(self, name)
        return name

    def another(self) -> None:
        self.begin_process()

    def someone(self) -> str:
        live = [name for name, process in self.processes.items() if not process.stopped]
        live = live or [self.begin_process()]
        return self.clock.chance.choice(live)

    def _move(self, moves: dict[str, str]) -> None:
        number = self.ownership.number + 1

        def store() -> None:
            stored = self.log.own(number, moves)
            self.counts["moves" if stored else "refused_moves"] += 1

        self.clock.late(store, 0.01)

    def _trim(self) -> None:
        self.log.trim(self.clock.now_s)
        self.clock.after(0.1, self._trim)

    def _keep(self) -> None:
        """What is nobody's has its checkpoints from control, which may sleep before it reads, and before it stores."""
        owned = self.ownership
        vacant = {
            name: owned.epoch(name)
            for name in RESOURCES
            if owned.epoch(name)
            and owned.owner(name) == NOBODY
            and (owned.is_whole(name) or self.fault is Fault.KEPT_EARLY)
        }
        sooner_than_need_be = len(self.log.entries)
        for name in trimming.to_keep(self.log.heads(), vacant, old=sooner_than_need_be):
            fold = partial(self._fold_kept, name, vacant[name], owned.number)
            self.clock.late(fold, self.slow_s(0.3))
        self.clock.after(0.03, self._keep)

    def _fold_kept(self, name: str, epoch: int, known: int) -> None:
        newest, position = self.log.saved.get(name), len(self.log.entries)
        keeping = Keeping({name: newest.checkpoint if newest else None}, own=known, log="")
        for entry in self.log.entries[keeping.begins_after :]:
            if self.log.is_there(entry, self.clock.now_s):
                try:
                    keeping.read(entry)
                except (MissingOwnership, BehindTrim):
                    return
        made = keeping.checkpoint(name, read=position, epoch=epoch, kept_s=600.0)
        for _, contents in made.unsent:
            for content in contents:
                self.hand_in(content)
        made.unsent = []
        self.counts["kept"] += 1
        late_s = self.slow_s(self.clock.chance.choice([0.3, 3.0]))
        self.clock.late(lambda: self.log.keep(made, newest, self.clock.now_s), late_s)

    def _control(self) -> None:
        lost = [r for r in RESOURCES if self._is_gone(self.ownership.owner(r))]
        if lost:
            self._move({resource: self.someone() for resource in lost})
        self._shut_out()
        if self._calm:
            self.clock.after(0.2, self._control)
            return
        chance = self.clock.chance
        what = chance.random()
        if what < 0.04:
            self._leave_alone(chance.choice(RESOURCES))
        elif what < 0.5:
            self._move(self._some(chance.randint(1, 3)))
            if chance.random() < 0.3:  # the other replica, at the same time
                self._move(self._some(2))
        else:
            self._disturb(self.someone())
        if chance.random() < 0.08 and len(self.processes) < PROCESSES_MAX:
            self.begin_process()
        self.clock.after(chance.uniform(0.004, 0.06), self._control)

    def _some(self, most: int) -> dict[str, str]:
        names = self.clock.chance.sample(RESOURCES, most)
        return {r: self.someone() for r in names if self._alone_s.get(r, 0.0) < self.clock.now_s}

    def _leave_alone(self, resource: str) -> None:
        """It is nobody's for a while, or for a moment; often somebody new comes for it."""
        wait_s = self.clock.chance.choice([0.0, 0.1, 0.3, 0.6])
        self._alone_s[resource] = self.clock.now_s + wait_s
        if self.clock.chance.random() < 0.6:  # its owner, before it hears of that
            owner = self.ownership.owner(resource)
            if owner in self.processes:
                self.processes[owner].sleep(wait_s + 0.05)
        self._move({resource: NOBODY})
        if len(self.processes) < PROCESSES_MAX:
            self.clock.after(wait_s, partial(self._new_owner, resource))

    def _new_owner(self, resource: str) -> None:
        name = self.begin_process()
        self.clock.after(0.02, lambda: self._move({resource: name}))

    def _shut_out(self) -> None:
        """Of what is nobody's, control shuts the writers out, if it lives; everybody else's new owner does."""
        if not self._shuts_out:
            return
        vacant = [r for r in RESOURCES if self.ownership.owner(r) == NOBODY]
        for writer in sorted(self.ownership.unshut(vacant)):
            self.clock.late(lambda w=writer: self._gate(w), self.slow_s(0.4))  # type: ignore[misc]

    def _gate(self, writer: str) -> None:
        self.log.gate(writer)

    def _is_gone(self, owner: str) -> bool:
        """In the end nobody's resources are given to somebody, too."""
        if owner == NOBODY:
            return self._calm
        return owner in self.processes and bool(self.processes[owner].stopped)

    def _disturb(self, name: str) -> None:
        chance = self.clock.chance
        if chance.random() < 0.1 and len(self.processes) < PROCESSES_MAX and name not in self.twins:
            self.counts["deaths"] += 1
            self.processes[name].end("dead")
            self.begin_process()
            return
        self.counts["sleeps"] += 1
        self.processes[name].sleep(chance.choice([0.005, 0.03, 0.1, 1.2, 1.2]))
        if chance.random() < 0.4:
            self._move({r: self.someone() for r in RESOURCES if self.ownership.owner(r) == name})
        elif chance.random() < 0.6:  # to one that sleeps, and on before it comes to serve
            self._move(dict.fromkeys(self._some(3), name))
            self.clock.after(0.02, lambda: self._move(self._some(3)))

    # --- what must be true --------------------------------------------------------------------------------
    def _judge(self) -> Found:
        found = Found(list(self.wrong), dict(self.counts))
        stored: dict[str, Outcome] = {}
        values = dict.fromkeys(RESOURCES, 0)
        numbers = dict.fromkeys(RESOURCES, 0)
        for entry in self.log.entries:
            for settled in entry.settled if isinstance(entry, Turn) else ():
                request_id, resource, outcome = (
                    settled.request_id,
                    settled.resource,
                    settled.outcome,
                )
                if request_id in stored:
                    found.wrong.append(f"{request_id} has two outcomes")
                stored[request_id] = outcome
                if not resource or outcome.kind is not OutcomeKind.EXECUTED:
                    continue
                values[resource] += 1
                numbers[resource] += 1
                if outcome.body != str(values[resource]).encode():
                    found.wrong.append(f"{request_id} was computed on a state that lacks something")
                    values[resource] = int(outcome.body)
                if outcome.number != numbers[resource]:
                    found.wrong.append(f"{request_id} has number {outcome.number}")
                    numbers[resource] = outcome.number
        self._judge_what_was_handed_in(stored, found)
        self._judge_timers(found)
        self._judge_processes(values, found)
        for request_id, caller in self.callers.items():
            found.counts[caller.verdict] = found.counts.get(caller.verdict, 0) + 1
            outcome_ = stored.get(request_id)
            if not caller.verdict:
                found.wrong.append(f"{request_id} was never answered")
            elif caller.verdict == "cancelled":
                if outcome_ is not None and outcome_.kind is OutcomeKind.EXECUTED:
                    found.wrong.append(f"{request_id} was cancelled and took effect")
            elif outcome_ is None or outcome_.body != caller.body:
                found.wrong.append(f"{request_id} was answered and is not stored so")
        return found

    def _judge_what_was_handed_in(self, stored: dict[str, Outcome], found: Found) -> None:
        due: set[str] = set()
        for outcome in stored.values():
            if outcome.change:
                due.update(content["id"] for content in Change.decode(outcome.change).send)
        found.wrong += [f"{i} was not handed in" for i in sorted(due - self.handed_in)]
        found.wrong += [f"{i} was, by nobody" for i in sorted(self.handed_in - due)]
        found.wrong += [f"{i} was not done" for i in sorted(self.handed_in - set(stored))]
        found.counts["handed_in"] = len(due)

    def _judge_timers(self, found: Found) -> None:
        """Of each resource, in the order of its outcomes: what fires is set, and due; in the end nothing is left."""
        left: dict[tuple[str, str], tuple[str, float]] = {}
        fired = 0
        for entry in [each for each in self.log.entries if isinstance(each, Turn)]:
            for settled in entry.settled:
                if is_timer(settled.request_id):
                    fired += 1
                    mine = [key for key, (id_, _) in left.items() if id_ == settled.request_id]
                    if not mine:
                        found.wrong.append(f"{settled.request_id} fired, and was not set any more")
                    for key in mine:
                        if left.pop(key)[1] > entry.stored_s:
                            found.wrong.append(f"{settled.request_id} fired early")
                if not settled.outcome.change:
                    continue
                change = Change.decode(settled.outcome.change)
                for name in change.drop:
                    left.pop((settled.resource, name), None)
                for timer in map(Timer.read, change.later):
                    left[settled.resource, timer.name] = timer.id, timer.due_s
        found.wrong += [f"{id_} never fired" for id_, _ in left.values()]
        found.counts["fired"] = fired

    def _judge_processes(self, values: dict[str, int], found: Found) -> None:
        for process in self.processes.values():
            if process.stopped not in ("", "dead", "behind") and not self.twins:
                found.wrong.append(f"{process.name} stopped: {process.stopped}")
            if process.stopped:
                continue
            for name, held in process.writer.held.items():
                if held.values.get("n", 0) != values[name]:
                    found.wrong.append(
                        f"{process.name} has {held.values} of {name}, not {values[name]}"
                    )
        found.counts["trimmed"] = self.log.trimmed
        found.counts["entries"] = len(self.log.entries)


def simulate(seed: int, fault: Fault | None = None, *, cloned: bool = False) -> Found:
    """A second and a half of trouble with 900 calls, and twelve in which nothing more is disturbed."""
    return Simulation(seed, fault, cloned=cloned).run(1.5, 900)


__all__: list[Any] = ["Fault", "Found", "simulate"]
