"""What a resource's state was, told from what its service's log still has: the newest checkpoint, and outcomes.

Theory of operation. The log has one checkpoint of a resource, the newest, and the outcomes that were not removed yet: those behind it
in any case, and as a rule many before it. Three cases:

- The moment asked for is behind the checkpoint: the checkpoint, and the outcomes after it are folded.
- It is before that, and all outcomes from the first one on are there: these are folded.
- It is before that, and the first outcomes are gone. Of each key it is told what is certain: the value of the last outcome before that
  moment which touched it; or, when no outcome between it and the checkpoint did, the checkpoint's value. A key that was changed in
  between, and whose earlier value was removed, is *not known*, and is named.

The numbers of outcomes tell what is missing: an entry that this version can't read holds outcomes of resources that it does not name
outside. What such an outcome changed is not known, and its numbers are told.

What must stay true: no value is told that the state did not have at that moment, unless outcomes are told to be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aegis_sdk.contract.envelope import Change, OutcomeKind
from aegis_sdk.contract.turns.checkpoint import Checkpoint, values_of
from aegis_sdk.contract.turns.entries import Record


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry with outcomes. Of one that can't be read, `unread` says why, and its ids alone are known."""

    seq: int
    at_s: float
    records: Sequence[Record] = ()
    request_ids: Sequence[str] = ()
    unread: str = ""
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """One outcome of the resource."""

    position: int
    time: float
    request_id: str
    method: str
    outcome: OutcomeKind
    number: int
    """Its place among the resource's outcomes; 0 for one out of turn, which changes nothing."""
    set: Mapping[str, Any]
    deleted: tuple[str, ...]
    timers_set: tuple[str, ...] = ()
    """Their names."""
    timers_dropped: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        return [*self.set, *self.deleted]


@dataclass(frozen=True, slots=True)
class Unread:
    """An entry that this version can't read. It may hold outcomes of the resource."""

    position: int
    time: float
    request_ids: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Range:
    """Outcomes of the resource by their numbers."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Told:
    """The state at a moment."""

    values: Mapping[str, Any]
    number: int
    """Of the last outcome in it."""
    unknown: list[str]
    """Keys that had another value, or none: what they had was removed from the log."""
    missing: list[Range]
    """Outcomes that could not be read; the values are not certain then."""


class TrimmedAway(Exception):
    """What was before `first` was removed from the log, and nothing tells the state there any more."""

    def __init__(self, first: int) -> None:
        super().__init__(first)
        self.first = first


class Past:
    """All that the log has of one resource. `first`: the oldest outcome that it has of anybody; 0: none."""

    def __init__(self, resource: str, checkpoint: Checkpoint | None, *, first: int) -> None:
        """Raises: ValueError, when the checkpoint's values can't be read."""
        self.resource = resource
        self.steps: list[Step] = []
        self.unread: list[Unread] = []
        self.first = first
        self._saved = checkpoint.number if checkpoint else 0
        self._read = checkpoint.read if checkpoint else 0
        self._values = values_of(checkpoint.values) if checkpoint else {}

    def add(self, entry: LogEntry) -> None:
        if entry.unread:
            ids = tuple(entry.request_ids)
            self.unread.append(Unread(entry.seq, entry.at_s, ids, entry.unread))
        for record in entry.records:
            if record.resource == self.resource:
                self._add(entry, record)

    def _add(self, entry: LogEntry, record: Record) -> None:
        outcome = record.outcome
        try:
            change = Change.decode(outcome.change)
        except ValueError as error:
            ids = (record.request_id,)
            self.unread.append(Unread(entry.seq, entry.at_s, ids, f"its change: {error}"))
            return
        self.steps.append(
            Step(
                *(entry.seq, entry.at_s, record.request_id, record.method),
                *(outcome.kind, outcome.number, change.set, change.delete),
                *(tuple([str(timer.get("name")) for timer in change.later]), change.drop),
            )
        )

    @property
    def removed(self) -> int:
        """How many of its first outcomes are not in the log any more."""
        return next((step.number - 1 for step in self.steps if step.number), self._saved)

    @property
    def is_whole(self) -> bool:
        """Whether its first outcome is there."""
        return any(step.number == 1 for step in self.steps)

    def at(self, position: int) -> Told:
        """Raises: TrimmedAway."""
        return self._told(lambda step: step.position <= position, position)

    def around(self, of: Step) -> tuple[Told, Told]:
        """Just before it, and just behind it. Raises: TrimmedAway."""
        before = self._told(lambda step: step.number < of.number, of.position - 1)
        return before, self._told(lambda step: step.number <= of.number, of.position)

    def _told(self, is_before: Callable[[Step], bool], position: int) -> Told:
        numbered = [step for step in self.steps if step.number]
        before = [step for step in numbered if is_before(step)]
        later = [step for step in numbered if not is_before(step) and step.number <= self._saved]
        if not later and position >= self._read:
            behind = [step for step in before if step.number > self._saved]
            return _folded(self._values, self._saved, behind, [], list(_gaps(self._saved, behind)))
        if self.is_whole or not (numbered or self._saved):
            return _folded({}, 0, before, [], list(_gaps(0, before)))
        if not self.first or position < self.first:
            raise TrimmedAway(self.first or self._read)
        touched = _keys(later)
        values = {key: value for key, value in self._values.items() if key not in touched}
        unknown = sorted(touched - _keys(before))
        gaps = list(_gaps(self.removed, [*before, *later], up_to=self._saved))
        return _folded(values, self.removed, before, unknown, gaps)


def _keys(steps: Iterable[Step]) -> set[str]:
    return {key for step in steps for key in step.keys}


def _folded(
    values: Mapping[str, Any],
    number: int,
    steps: Sequence[Step],
    unknown: list[str],
    missing: list[Range],
) -> Told:
    folded = dict(values)
    for step in steps:
        folded.update(step.set)
        for key in step.deleted:
            folded.pop(key, None)
    return Told(folded, steps[-1].number if steps else number, unknown, missing)


def _gaps(number: int, steps: Iterable[Step], *, up_to: int = 0) -> Iterator[Range]:
    """Numbers that are left out behind `number`."""
    for step in steps:
        if step.number > number + 1:
            yield Range(number + 1, step.number - 1)
        number = max(number, step.number)
    if up_to > number:
        yield Range(number + 1, up_to)
