"""A run's history: what clients asked and saw, what the journals hold, which faults struck.

Values and their JSON lines, both ways; pure. One record a line, its `type` first:

- `run`      the seed, the sizes and the limits that the run states about itself
- `invoke`   a client is about to ask; `op` is its own name for the request, carried in its payload
- `ok`       the client has the reply
- `fail`     the client knows that it had no effect, now and later (refused, expired, cancelled, ...)
- `unknown`  the client does not know; an invoke without an end (its client was killed) is the same
- `accepted` a request as the request stream keeps it
- `outcome`  a journal entry: how a request ended
- `gone`     an outcome that was stored while the run went on, and is not in the journal at its end
- `fault`    what the nemesis did, from `began_s` until `healed_s`
- `loss`     what control told was lost of a service's streams, and when that was accepted
- `gate`     a gate that the suite stored, and its place
- `pause`    a resource that was paused, and between which places of the journal nothing of it may have run
- `final`    a resource's value, read from its service after everything settled

All times are seconds of one machine's monotonic clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from aegis_sdk.contract.subjects import Subjects

PUT_BACK = "put_back"
"""A fault's kind: what was stored while it lasted was replaced by an older copy."""

LOOKS = frozenset({"look", "peek"})
"""Kinds of operations of which nothing is stored."""
Place: TypeAlias = tuple[str, str]
"""(service, resource); the resource is empty for group requests."""


def nested(op: str) -> str:
    """The name of the one request that the handler of `op` makes."""
    return f"{op}/1"


class Status(StrEnum):
    """What a client knows about its operation. Only `ok` says that it took effect."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run is and what it promises of itself."""

    seed: int = 0
    seconds: float = 0.0
    nodes: int = 1
    recovery_limit_s: float = 15.0
    """After a fault has healed, every place must answer again within this time."""
    ok_ratio_min: float = 0.5
    """Of the operations of a workload that is not meant to fail."""
    ok_per_workload_min: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request of a client, from its invocation to what the client knows at the end."""

    op: str
    process: str
    workload: str
    service: str
    resource: str
    kind: str
    args: Mapping[str, Any] = field(default_factory=dict)
    invoked_s: float
    status: Status = Status.UNKNOWN
    completed_s: float | None = None
    result: Any = None
    error: str = ""
    """The error's class when it failed or is unknown; a handler's own refusal is `Rejected`."""
    until_s: float = math.inf
    """When it is unknown: it takes effect before that, or never."""

    @property
    def place(self) -> Place:
        return (self.service, self.resource)

    @property
    def answered(self) -> bool:
        """Whether a handler answered it: took it, or refused it."""
        return self.status is Status.OK or self.error == "Rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A request that the request stream acknowledged; the clients' and the handlers' own ones."""

    seq: int
    service: str
    resource: str
    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeEntry:
    """An outcome in a journal. `epoch` is 0 when no epoch's owner wrote it (a cancelling caller)."""

    seq: int
    service: str
    resource: str
    op: str
    outcome: str
    epoch: int = 0
    reply: Any = None
    changed: bool = False
    batched: bool = False
    """Stored together with others."""
    number: int = 0
    """Its place among its resource's outcomes, where these are numbered."""
    stored_s: float = math.inf
    """When; infinite where that was not taken note of."""
    writer: str = ""
    gate: int = 0
    """The place of the gate under which it was stored, if it needed one."""

    @property
    def place(self) -> Place:
        return (self.service, self.resource)

    @property
    def executed(self) -> bool:
        return self.outcome == "executed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A gate that the suite stored: whatever its writer had sent before is refused from then on."""

    service: str
    writer: str
    seq: int
    stored_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A resource that was paused: nothing of it ran when the journal ended at `from_seq`, nor may until `to_seq`."""

    service: str
    resource: str
    from_seq: int
    to_seq: int
    began_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """An outcome that the server told of when it was stored, and that its journal does not hold any more."""

    service: str
    op: str
    seq: int
    stored_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that the nemesis did. A kill heals when what was killed is started again."""

    kind: str
    target: str
    began_s: float
    healed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What control announced as lost before anything was served again."""

    service: str
    stream: str
    what: str
    accepted_s: float
    last_seq: int = 0
    """How far it went, as was told: what is stored from then on stands behind that."""

    @property
    def of_journal(self) -> bool:
        """Whether outcomes were lost, not requests."""
        return self.stream == Subjects().journal_stream(self.service)

    @property
    def emptied(self) -> bool:
        """Whether nothing of it was left, and how far it went was told."""
        return bool(self.last_seq) and ("emptied" in self.what or self.what.endswith("is gone"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """A resource's value after the run; what it looks like is its workload's affair."""

    workload: str
    service: str
    resource: str
    value: Any

    @property
    def place(self) -> Place:
        return (self.service, self.resource)


@dataclass(frozen=True, slots=True)
class History:
    """Everything that the checkers look at. Journal entries are in journal order, a place at a time."""

    run: Run = field(default_factory=Run)
    operations: Sequence[Operation] = ()
    looks: Sequence[Operation] = ()
    """Reads, of which nothing is stored: `look` at the active, `peek` at a standby."""
    accepted: Sequence[Accepted] = ()
    outcomes: Sequence[OutcomeEntry] = ()
    gone: Sequence[Gone] = ()
    faults: Sequence[Fault] = ()
    losses: Sequence[Loss] = ()
    gates: Sequence[Gate] = ()
    pauses: Sequence[Pause] = ()
    finals: Sequence[Final] = ()

    def of(self, workload: str) -> list[Operation]:
        """The operations of one workload, by invocation."""
        return [operation for operation in self.operations if operation.workload == workload]

    def outcomes_of(self) -> dict[str, list[OutcomeEntry]]:
        """The outcomes of each operation; more than one is a violation."""
        found: dict[str, list[OutcomeEntry]] = {}
        for entry in self.outcomes:
            found.setdefault(entry.op, []).append(entry)
        return found


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that this history breaks; `promise` is its id (G1 ...) or empty."""

    checker: str
    message: str
    promise: str = ""

    def __str__(self) -> str:
        return f"{self.checker}{f' ({self.promise})' if self.promise else ''}: {self.message}"


class BadHistory(ValueError):
    """A line that is no record, or an end without its invoke."""


def read(lines: Iterable[str]) -> History:
    """Put a history together from its JSON lines, in any order but invokes before their ends.

    Raises: BadHistory, with the line's number.
    """
    reader = _Reader()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            reader.take(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise BadHistory(f"line {number}: {error!r}") from error
    return reader.history()


def write(history: History) -> Iterator[str]:
    """The history as JSON lines, without line feeds; `read` makes the same history of them."""
    yield _line("run", asdict(history.run))
    for operation in (*history.operations, *history.looks):
        yield from operation_lines(operation)
    for kind, entries in (
        ("accepted", history.accepted),
        ("outcome", history.outcomes),
        ("gone", history.gone),
        ("fault", history.faults),
        ("loss", history.losses),
        ("gate", history.gates),
        ("pause", history.pauses),
        ("final", history.finals),
    ):
        for entry in entries:
            yield record_line(kind, entry)


def record_line(kind: str, entry: Any) -> str:
    """One record (run, accepted, outcome, gone, fault, loss, gate, pause, final) as a line."""
    return _line(kind, asdict(entry))


def operation_lines(operation: Operation) -> Iterator[str]:
    """The invoke of an operation and, when it has one, its end."""
    yield invoke_line(operation)
    if operation.completed_s is not None:
        yield end_line(
            operation.op,
            operation.status,
            completed_s=operation.completed_s,
            result=operation.result,
            error=operation.error,
        )


def invoke_line(operation: Operation) -> str:
    """The record to write, and flush, before the request is sent."""
    record = asdict(operation)
    for later in ("status", "completed_s", "result", "error", "until_s"):
        del record[later]
    return _line("invoke", record)


def end_line(
    op: str, status: Status, *, completed_s: float, result: Any = None, error: str = ""
) -> str:
    """The record to write when the client knows how its operation ended, or gives up."""
    end = {"op": op, "completed_s": completed_s, "result": result, "error": error}
    return _line(status.value, end)


def _line(kind: str, record: Mapping[str, Any]) -> str:
    return json.dumps({"type": kind, **record}, separators=(",", ":"), ensure_ascii=False)


class _Reader:
    def __init__(self) -> None:
        self._run = Run()
        self._invokes: dict[str, dict[str, Any]] = {}
        self._ends: dict[str, dict[str, Any]] = {}
        self._accepted: list[Accepted] = []
        self._outcomes: list[OutcomeEntry] = []
        self._gone: list[Gone] = []
        self._faults: list[Fault] = []
        self._losses: list[Loss] = []
        self._gates: list[Gate] = []
        self._pauses: list[Pause] = []
        self._finals: list[Final] = []

    def take(self, record: dict[str, Any]) -> None:
        kind = record.pop("type")
        match kind:
            case "run":
                self._run = Run(**record)
            case "invoke":
                self._begin(record)
            case "ok" | "fail" | "unknown":
                self._end(kind, record)
            case "accepted":
                self._accepted.append(Accepted(**record))
            case "outcome":
                self._outcomes.append(OutcomeEntry(**record))
            case "gone":
                self._gone.append(Gone(**record))
            case "fault":
                self._faults.append(Fault(**record))
            case "loss":
                self._losses.append(Loss(**record))
            case "gate":
                self._gates.append(Gate(**record))
            case "pause":
                self._pauses.append(Pause(**record))
            case "final":
                self._finals.append(Final(**record))
            case _:
                raise BadHistory(f"unknown record type {kind!r}")

    def _begin(self, record: dict[str, Any]) -> None:
        if record["op"] in self._invokes:
            raise BadHistory(f"operation {record['op']} is invoked twice")
        self._invokes[record["op"]] = record

    def _end(self, kind: str, record: dict[str, Any]) -> None:
        op = record.pop("op")
        if op not in self._invokes or op in self._ends:
            raise BadHistory(f"operation {op} ends without an invoke, or twice")
        self._ends[op] = {**record, "status": Status(kind)}

    def history(self) -> History:
        asked = [
            Operation(**invoke, **self._ends.get(op, {})) for op, invoke in self._invokes.items()
        ]
        asked.sort(key=lambda operation: operation.invoked_s)
        return History(
            run=self._run,
            operations=[operation for operation in asked if operation.kind not in LOOKS],
            looks=[operation for operation in asked if operation.kind in LOOKS],
            accepted=sorted(self._accepted, key=lambda entry: (entry.service, entry.seq)),
            outcomes=sorted(self._outcomes, key=lambda entry: (entry.place, entry.seq)),
            gone=sorted(self._gone, key=lambda entry: (entry.service, entry.seq)),
            faults=sorted(self._faults, key=lambda fault: fault.began_s),
            losses=first_of_each(self._losses),
            gates=self._gates,
            pauses=self._pauses,
            finals=sorted(self._finals, key=lambda final: final.place),
        )


def first_of_each(losses: Iterable[Loss]) -> list[Loss]:
    """Two accidents side by side may each have the same loss accepted: the first counts. A later one of that stream goes further."""
    first: dict[tuple[str, int, float], Loss] = {}
    for loss in sorted(losses, key=lambda loss: loss.accepted_s):
        unknown_s = 0.0 if loss.last_seq else loss.accepted_s
        first.setdefault((loss.stream, loss.last_seq, unknown_s), loss)
    return list(first.values())
