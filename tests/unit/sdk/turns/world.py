"""The world that writers and callers are simulated in: faults, simulated time, the log, and its readers.

The log answers as nats-server does. A subject takes one entry. A gate is rolled up by anybody without a condition. A turn is
checked against the newest gate of its writer. A checkpoint replaces the one before it. A batch is stored whole or not at all.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from enum import Enum, auto

from aegis_control.domain.leading import trimming
from aegis_sdk.contract.envelope import Outcome
from aegis_sdk.contract.turns.checkpoint import SAVED, Checkpoint, SavedUpTo
from aegis_sdk.domain.turns.entries import End, Entry, Gate, Own, Saved, Settled, Turn
from aegis_sdk.domain.turns.work import Write

RESOURCES = ("r1", "r2", "r3")
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
    SAVED_AHEAD = auto()
    """Checkpoints: "up to the end of the log", which its writer has not read yet."""
    SAVED_WITHOUT_ENDS = auto()
    """Checkpoints: neither ends nor sessions are in it."""
    SAVED_TWICE = auto()
    """Checkpoints: after one whose answer is lost the next is made without a gate of its own."""
    TRIM_BY_NEWEST = auto()
    """The trim goes by one resource's checkpoint."""
    TRIM_LEAVES_GATES = auto()
    """It takes ownership entries, and leaves the gates that say that they were read."""
    KEPT_EARLY = auto()
    """Control saves a resource of nobody before its writers are shut out."""
    KEPT_LATE = auto()
    """Its checkpoint replaces whatever there is."""
    HOLE_UNSEEN = auto()
    """A reader that the trim overtook goes on."""
    SESSIONS_DROPPED = auto()
    """Sessions are forgotten while copies of their requests are about."""
    SINGLES_REPLACED = auto()
    """Singles: the second outcome replaces the first."""
    BATCH_IN_PIECES = auto()
    """Singles: of a batch is stored what can be."""
    SENT_EARLY = auto()
    """The outbox: what a handler hands in is sent when it has run."""
    MARKED_EARLY = auto()
    """The outbox: it is marked as sent when its entry is stored."""
    NOT_SENT_AGAIN = auto()
    """The outbox: the next owner sends nothing again."""
    TIMERS_RUN_BLINDLY = auto()
    """Timers: the request of one that is due runs, whatever became of the timer while it waited."""
    TIMERS_FORGOTTEN = auto()
    """Timers: one whose request was dropped here does not fire again."""
    SAVED_WITHOUT_TIMERS = auto()
    """Timers: they are not in checkpoints."""
    GROUP_NOT_KEPT = auto()
    """The outbox: a group's request that hands in something is not stored before its outcome."""


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


class Log:
    """The stream. `entries` has all that was ever stored; what is left of it `is_there`."""

    def __init__(self, fault: Fault | None) -> None:
        self.entries: list[Entry] = []
        self.gates: dict[str, int] = {}
        self.names: dict[object, Turn | Own] = {}
        self.saved: dict[str, Saved] = {}
        self.outcomes: dict[str, Outcome] = {}
        """By request: the first one, as whoever looks for it finds it."""
        self.trimmed = 0
        self.newest_own = 0
        self.taken_gates: set[int] = set()
        self._fault = fault

    def is_there(self, entry: Entry, now_s: float) -> bool:
        if isinstance(entry, End):
            return now_s - entry.stored_s <= ENDS_KEPT_S
        if isinstance(entry, Saved):
            return self.saved[entry.checkpoint.resource] is entry
        if isinstance(entry, Gate):
            return (
                entry.seq not in self.taken_gates
            )  # a replaced one may still be seen: that is the harder case
        if isinstance(entry, Own) and entry.number == self.newest_own:
            return True
        return entry.seq > self.trimmed

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
        self.newest_own = number
        return True

    def end(self, resource: str, request_id: str, now_s: float) -> int:
        entry = End(len(self.entries) + 1, resource, request_id, stored_s=now_s)
        self.entries.append(entry)
        return entry.seq

    def write(self, writer: str, write: Write, now_s: float) -> str:
        """`stored`, `refused`; `taken`: the turn's subject holds another turn, `clashed`: one of its singles'."""
        holds = not write.gate or self.gates.get(writer, 0) == write.gate
        if not holds and self._fault is not Fault.NO_CHECK:
            return "refused"
        name: object = (writer, write.k) if write.k else str(write.name)
        if (there := self.names.get(name)) is not None:
            assert isinstance(there, Turn)
            if there.content == write.content:
                return "stored"
            if write.k or self._fault is not Fault.SINGLES_REPLACED:
                return "taken"
        singles = [str(work.request.request_id) for work in write.singles]
        if any(single in self.names for single in singles):
            if self._fault is not Fault.BATCH_IN_PIECES:
                return "clashed"
            singles = [single for single in singles if single not in self.names]
        self._append(name, writer, write.name, settled_of(write.works), write, now_s)
        for single, settled in zip(singles, settled_of(write.singles), strict=False):
            self._append(single, writer, single, [settled], write, now_s)
        for checkpoint in write.saves:
            self._save(checkpoint, now_s)
        return "stored"

    def cancel(self, request_id: str, resource: str, outcome: Outcome, now_s: float) -> Outcome:
        """Its caller's own outcome under its name, unless there is one: the one that is there."""
        there = self.names.get(request_id)
        if isinstance(there, Turn):
            return there.settled[0].outcome
        write = Write(0, 0)
        self._append(
            request_id, "", request_id, [Settled(request_id, resource, outcome)], write, now_s
        )
        return outcome

    def _append(
        self,
        name: object,
        writer: str,
        called: int | str,
        settled: list[Settled],
        write: Write,
        now_s: float,
    ) -> None:
        seq = len(self.entries) + 1
        entry = Turn(seq, writer, called, settled, write.content, now_s, dict(write.sent))
        self.entries.append(entry)
        self.names[name] = entry
        for one in settled:
            self.outcomes.setdefault(one.request_id, one.outcome)

    def save(self, checkpoint: Checkpoint, gate: int, now_s: float) -> str:
        if self.gates.get(checkpoint.writer, 0) != gate:
            return "refused"
        self._save(checkpoint, now_s)
        return "stored"

    def _save(self, checkpoint: Checkpoint, now_s: float) -> None:
        if self._fault is Fault.SAVED_AHEAD:
            checkpoint.read = len(self.entries)
        if self._fault is Fault.SAVED_WITHOUT_ENDS:
            checkpoint.ended, checkpoint.sessions = {}, ()
        if self._fault is Fault.SAVED_WITHOUT_TIMERS:
            checkpoint.timers = ()
        checkpoint = Checkpoint.decode(checkpoint.encode())
        entry = Saved(len(self.entries) + 1, checkpoint, now_s)
        self.entries.append(entry)
        self.saved[checkpoint.resource] = entry

    def keep(self, checkpoint: Checkpoint, newest: Saved | None, now_s: float) -> None:
        """Control's, of a resource of nobody: on condition of the newest one."""
        if self.saved.get(checkpoint.resource) is newest or self._fault is Fault.KEPT_LATE:
            self._save(checkpoint, now_s)

    def heads(self) -> dict[str, SavedUpTo]:
        return {
            resource: SavedUpTo.parse(saved.checkpoint.headers()[SAVED])
            for resource, saved in self.saved.items()
        }

    def old(self, now_s: float) -> int:
        """The last entry before which all are past their retention."""
        upto = self.trimmed
        while upto < len(self.entries) and self._is_old(self.entries[upto], now_s):
            upto += 1
        return upto

    def trim(self, now_s: float) -> None:
        """As the rules have it (trimming.py)."""
        heads = self.heads()
        first_named: dict[str, int] = {}
        for entry in self.entries:
            for resource in entry.moves if isinstance(entry, Own) else ():
                first_named.setdefault(resource, entry.seq)
        limit = trimming.limit(heads, first_named, old=self.old(now_s))
        if self._fault is Fault.TRIM_BY_NEWEST and len(heads) == len(RESOURCES):
            limit = trimming.Limit(max(head.read for head in heads.values()))
        self.trimmed = max(self.trimmed, limit.upto)
        if self._fault is Fault.TRIM_LEAVES_GATES:
            return
        for writer in trimming.gates_to_go(heads, self.gates, upto=self.trimmed):
            seq = self.gates.pop(writer)
            self.taken_gates.update(
                e.seq for e in self.entries[:seq] if isinstance(e, Gate) and e.writer == writer
            )

    def _is_old(self, entry: Entry, now_s: float) -> bool:
        return not isinstance(entry, Turn) or now_s - entry.stored_s > ENDS_KEPT_S


def settled_of(works: list) -> list[Settled]:  # type: ignore[type-arg]
    """As the entry has it, whatever becomes of the values in memory."""
    return [
        Settled(work.request.request_id, work.request.resource or "", _copy(work.outcome))
        for work in works
    ]


def _copy(outcome: Outcome) -> Outcome:
    return Outcome.read(outcome.headers()["aegis-outcome"], outcome.payload())


class Reader:
    """Hands the log's entries on in their order, each a little late; one that is not there any more is missed."""

    def __init__(
        self, clock: Clock, log: Log, on_entry: Callable[[Entry], None], *, position: int = 0, sees_all: bool = False
    ) -> None:  # fmt: skip
        self._clock = clock
        self._log = log
        self._on_entry = on_entry
        self._sees_all = sees_all
        self.position = position
        self.frozen = False
        self.closed = False
        clock.late(self._step)

    def _step(self) -> None:
        if self.closed:
            return
        entries = self._log.entries
        if not self.frozen and self.position < len(entries):
            for _ in range(self._clock.chance.randint(1, 4)):
                if self.position < len(entries):
                    entry = entries[self.position]
                    self.position += 1
                    if not self._is_missed(entry):
                        self._on_entry(entry)
        self._clock.late(self._step, 0.003)

    def _is_missed(self, entry: Entry) -> bool:
        if self._log._fault is Fault.ENDS_ROLLED_UP and isinstance(entry, End):
            return any(
                isinstance(e, End) and e.resource == entry.resource
                for e in self._log.entries[entry.seq :]
            )
        if self._sees_all and not isinstance(entry, End):
            return False
        return not self._log.is_there(entry, self._clock.now_s)
