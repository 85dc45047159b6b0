"""The life of a request, told from what is stored: facts in, a timeline and where it stands out.

Facts come from several streams whose servers stamp the times; the order told is that of the times. What
left no trace is not guessed at: a first run is noted nowhere, so it shows only by the position of
the group's consumer, by a begin that is noted later, or by the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.control import EventRecord, LeaseRecord, LeaseState
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import is_keyed, parent_of, redriven_id, split_id
from aegis_sdk.contract.turns.timers import Timer
from pydantic import ValidationError

from aegis_control.domain.events import (
    Event,
    InstanceFenced,
    LeaseGranted,
    OperatorChange,
    RequestDeadLettered,
    told_by,
)


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """The request as the request stream has it."""

    request: Request
    seq: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome as the journal has it; `resource` None for a group request."""

    outcome: Outcome
    seq: int
    at_s: float
    resource: str | None
    request: Request | None = None
    """As the outcome's own entry tells it."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The caller's statement that it waits no longer. An outcome that was stored before is the truth."""

    seq: int
    at_s: float
    resource: str


@dataclass(frozen=True, slots=True)
class Noted:
    """The last note of a begin: `n` begins before that one are known to have ended in a death."""

    n: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Died:
    letter: DeadLetter
    at_s: float


@dataclass(frozen=True, slots=True)
class Queue:
    """The consumer that gives the group's requests out; `made` is false while nobody has made it."""

    made: bool = True
    delivered_seq: int = 0
    unacknowledged: int = 0
    readers: int = 0
    """Requests for messages that wait at the server: instances that ask for work now."""


@dataclass(frozen=True, slots=True)
class Child:
    """A request that the handler made. `outcome` is None while it has none."""

    request_id: str
    service: str
    outcome: OutcomeKind | None
    at_s: float


@dataclass(slots=True)
class Facts:
    """All that was found of one request. `service` is empty when nothing but its id is known."""

    request_id: str
    now_s: float
    service: str = ""
    accepted: StoredRequest | None = None
    ended: Ended | None = None
    noted: Noted | None = None
    given_up: GivenUp | None = None
    died: Died | None = None
    waits: Ended | None = None
    """What made a timer of it, since its time had not come."""
    redriven: Ended | None = None
    lease: LeaseRecord | None = None
    queue: Queue | None = None
    earlier: int = 0
    """Requests of the same resource, stored before it, without an outcome yet."""
    earlier_is_all: bool = True
    trace_id: str = ""
    children: list[Child] = field(default_factory=list)
    events: list[EventRecord] = field(default_factory=list)

    @property
    def found(self) -> bool:
        known = self.accepted or self.ended or self.died or self.noted or self.given_up
        return bool(known or self.waits)

    @property
    def request(self) -> Request | None:
        """As it was stored, or as its dead letter or its outcome kept it."""
        if self.accepted is not None:
            return self.accepted.request
        if self.died is not None:
            return self.died.letter.request
        known = self.ended or self.waits
        return known.request if known else None

    @property
    def traceparent(self) -> str:
        if self.request is not None and self.request.traceparent:
            return self.request.traceparent
        known = self.ended or self.waits
        return known.outcome.traceparent if known else ""

    @property
    def resource(self) -> str | None:
        if self.request is not None:
            return self.request.resource
        known = self.ended or self.given_up or self.waits
        return known.resource if known else None

    @property
    def kind(self) -> OutcomeKind | None:
        """What became of it; None while nothing has."""
        if self.ended is not None:
            return self.ended.outcome.kind
        return OutcomeKind.CANCELLED if self.given_up else None


class Word(StrEnum):
    """What a step of the timeline is."""

    ACCEPTED = "accepted"
    GRANTED = "granted"
    FENCED = "fenced"
    NOTED = "begun again"
    CHILD = "child"
    DEADLINE = "deadline"
    WAITS = "made a timer"
    GIVEN_UP = "given up"
    OUTCOME = "outcome"
    DEAD = "dead letter"
    REDRIVEN = "redriven"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Step:
    at_s: float
    word: Word
    text: str


@dataclass(frozen=True, slots=True)
class Story:
    """`standing` is one sentence: how it ended, or where it waits and why."""

    request_id: str
    service: str
    method: str
    resource: str | None
    caller: str
    trace_id: str
    deadline_s: float | None
    outcome: OutcomeKind | None
    standing: str
    steps: list[Step]
    children: list[Child]


def tell(facts: Facts) -> Story:
    """The story of a request of which something was found."""
    request = facts.request
    return Story(
        request_id=facts.request_id,
        service=facts.service,
        method=request.method if request else "",
        resource=facts.resource,
        caller=_caller(facts.request_id),
        trace_id=facts.trace_id,
        deadline_s=request.deadline_s if request else None,
        outcome=facts.kind,
        standing=_standing(facts),
        steps=sorted(_steps(facts), key=lambda step: step.at_s),
        children=facts.children,
    )


def _caller(request_id: str) -> str:
    parent = parent_of(request_id)
    if parent is not None:
        return f"the handler of {parent}"
    if is_keyed(request_id):
        return "whoever used this idempotency key"
    return f"client {split_id(request_id)[0]}"


# --- the timeline ----------------------------------------------------------------------------------
def _steps(facts: Facts) -> list[Step]:
    steps = [step for event in facts.events if (step := _event_step(facts, event))]
    if facts.accepted is not None:
        steps.append(_accepted(facts.accepted))
    if facts.noted is not None:
        steps.append(_noted(facts.noted))
    if facts.waits is not None:
        steps.append(
            Step(facts.waits.at_s, Word.WAITS, f"of {facts.resource}{_until(facts.waits)}")
        )
    steps += [_asked(child) for child in facts.children]
    if facts.request is not None and facts.request.deadline_s is not None:
        steps.append(Step(facts.request.deadline_s, Word.DEADLINE, "as its caller set it"))
    if facts.died is not None and not any(step.word is Word.DEAD for step in steps):
        steps.append(Step(facts.died.at_s, Word.DEAD, _why(facts.died.letter)))
    if facts.given_up is not None:
        steps.append(Step(facts.given_up.at_s, Word.GIVEN_UP, _given_up(facts.given_up)))
    if facts.ended is not None:
        steps.append(Step(facts.ended.at_s, Word.OUTCOME, _outcome(facts.ended)))
    if facts.redriven is not None:
        steps.append(_redriven(facts))
    return steps


def _accepted(accepted: StoredRequest) -> Step:
    request = accepted.request
    route = "the group" if request.resource is None else f"resource {request.resource}"
    again = f", attempt {request.attempt}" if request.attempt > 1 else ""
    text = f"{request.service}.{request.method} for {route}, request {accepted.seq} of its stream"
    return Step(accepted.at_s, Word.ACCEPTED, text + again)


def _noted(noted: Noted) -> Step:
    """A request that an earlier active could have begun counts as begun: nothing notes a first run."""
    before = "one run before it" if noted.n == 1 else f"{noted.n} runs before it"
    return Step(noted.at_s, Word.NOTED, f"begin {noted.n + 1}: {before} may have died unfinished")


def _given_up(given_up: GivenUp) -> str:
    return f"its caller waits no longer (journal {given_up.seq})"


def _asked(child: Child) -> Step:
    ended = "no outcome yet" if child.outcome is None else child.outcome.value
    return Step(child.at_s, Word.CHILD, f"{child.request_id} of {child.service}: {ended}")


def _redriven(facts: Facts) -> Step:
    assert facts.redriven is not None
    new_id, outcome = redriven_id(facts.request_id), facts.redriven.outcome
    return Step(facts.redriven.at_s, Word.REDRIVEN, f"sent again as {new_id}: {outcome.kind.value}")


def _waiting(waits: Ended) -> str:
    if waits.outcome.kind is not OutcomeKind.EXECUTED:
        return _outcome(waits)  # there was no room for it
    return f"waits for its time as a timer of {waits.resource}{_until(waits)}"


def _until(waits: Ended) -> str:
    """When its time comes, as far as this version can read it."""
    try:
        [timer] = map(Timer.read, Change.decode(waits.outcome.change).later)
        return f", due {datetime.fromtimestamp(timer.due_s, UTC).isoformat(' ', 'seconds')}"
    except (ValueError, OverflowError, OSError):
        return ""


def _outcome(ended: Ended) -> str:
    outcome = ended.outcome
    by = f" by {outcome.instance_id}" if outcome.instance_id else ""
    epoch = f" in epoch {outcome.epoch}" if outcome.epoch else ""
    if outcome.kind is OutcomeKind.CANCELLED:
        by = " by its caller"
    changed = ", with a change of state" if outcome.change else ""
    return f"{outcome.kind.value}{by}{epoch} (journal {ended.seq}){changed}{_error(outcome)}"


def _error(outcome: Outcome) -> str:
    if outcome.kind is OutcomeKind.EXECUTED:
        return ""
    try:
        error = ErrorBody.model_validate_json(outcome.body)
    except ValidationError:
        return ""
    return f": {error.code}" + (f", {error.message}" if error.message else "")


def _why(letter: DeadLetter) -> str:
    return f"{letter.error_code}: {letter.error}" if letter.error else letter.error_code


def _event_step(facts: Facts, record: EventRecord) -> Step | None:
    event, at_s = told_by(record), record.time
    if _named_by(event) not in ("", facts.request_id):
        return None
    match event:
        case LeaseGranted():
            text = (
                f"epoch {event.epoch_of(facts.resource)} begins: {event.instance_id} is the active"
            )
            return Step(at_s, Word.GRANTED, f"{text} ({event.reason})")
        case InstanceFenced():
            text = f"{event.instance_id}, as it ran until then, can't commit any more"
            return Step(at_s, Word.FENCED, text)
        case RequestDeadLettered():
            return Step(at_s, Word.DEAD, f"{event.error_code}: {event.reason}")
        case OperatorChange():
            done = "" if event.ok else "refused: "
            text = f"{event.verb} by {event.by}: {done}{event.result}"
            return Step(at_s, Word.OPERATOR, text)
    return None


# --- where it stands ---------------------------------------------------------------------------------
def _standing(facts: Facts) -> str:
    if facts.ended is not None:
        return _outcome(facts.ended)
    if facts.given_up is not None:
        return f"given up by its caller before it had an outcome (journal {facts.given_up.seq})"
    if facts.waits is not None:
        return _waiting(facts.waits)
    if facts.accepted is None:
        return _trace_only(facts)
    late = _lateness(facts)
    if facts.resource is None:
        return _in_group(facts) + late
    return _at_resource(facts) + late


def _trace_only(facts: Facts) -> str:
    if facts.died is not None:
        return f"a dead letter ({_why(facts.died.letter)}); its request is not kept any more"
    return "begun, and neither its request nor an outcome is kept any more"


def _lateness(facts: Facts) -> str:
    request = facts.request
    if request is None or request.deadline_s is None or facts.now_s < request.deadline_s:
        return ""
    late_s = facts.now_s - request.deadline_s
    return f"; its deadline passed {late_s:.1f} s ago, so it will end as cancelled or expired"


def _in_group(facts: Facts) -> str:
    queue, seq = facts.queue, _seq(facts)
    if queue is None or not queue.made:
        return "waits: the group has no consumer, since no instance ever registered the service"
    if seq > queue.delivered_seq:
        readers = (
            "no instance asks for work" if not queue.readers else "instances are asking for work"
        )
        return f"waits behind {seq - queue.delivered_seq - 1} requests not given out; {readers}"
    return (
        f"was given to an instance of the group and is not acknowledged ({queue.unacknowledged}"
        " in hand); it is given to another one if that one dies"
    )


def _at_resource(facts: Facts) -> str:
    lease = facts.lease
    if lease is None:
        return "waits: nobody was ever active for its resource"
    if lease.state is LeaseState.RETIRED:
        return f"waits: its resource was retired ({lease.reason})"
    if lease.state is LeaseState.IDLE:
        return "waits: its resource is idle, and is about to be given to an instance"
    if lease.state is LeaseState.VACANT:
        return f"waits: nobody is active for its resource ({lease.owner} was; {lease.reason})"
    if lease.state is LeaseState.WAITING:
        return f"waits: its active {lease.owner} is lost, without a standby, and may come back"
    return _at_active(facts, lease)


def _at_active(facts: Facts, lease: LeaseRecord) -> str:
    more = "" if facts.earlier_is_all else "at least "
    behind = f", behind {more}{facts.earlier} earlier ones" if facts.earlier else ""
    return f"is stored, and waits for {lease.owner}, the active{behind}"


def _seq(facts: Facts) -> int:
    return facts.accepted.seq if facts.accepted else 0


def relevant(
    events: Sequence[EventRecord],
    *,
    request_id: str,
    service: str,
    resource: str | None,
    since_s: float,
    until_s: float,
) -> list[EventRecord]:
    """Those that name the request, and those of its resource: from the epoch it was accepted in on."""
    told = [(record, told_by(record)) for record in events]
    named = [record for record, event in told if _named_by(event) == request_id]
    epochs = [
        (record, event)
        for record, event in told
        if isinstance(event, LeaseGranted | InstanceFenced)
        and event.service == service
        and resource in event.resources
    ]
    around = epochs[_first_of_epoch(epochs, since_s) :]
    return [*named, *(record for record, _ in around if record.time <= until_s)]


def _named_by(event: Event | None) -> str:
    """The request that the event is about; empty when it names none."""
    return event.request_id if isinstance(event, RequestDeadLettered | OperatorChange) else ""


def _first_of_epoch(
    epochs: Sequence[tuple[EventRecord, LeaseGranted | InstanceFenced]], at_s: float
) -> int:
    """Where the change begins that was the last one before `at_s`: who lost the resource is told before who got it."""
    grants = [
        n
        for n, (record, event) in enumerate(epochs)
        if isinstance(event, LeaseGranted) and record.time <= at_s
    ]
    if not grants:
        return 0
    last = grants[-1]
    fenced = last > 0 and isinstance(epochs[last - 1][1], InstanceFenced)
    return last - 1 if fenced else last
