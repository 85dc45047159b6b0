"""Who owns what by a service's log, and what control adds to it. Pure: entries in, leases and entries out.

Theory of operation. The log alone decides who owns a resource (ADR 0021): the newest ownership
entry that names it. `Owned` folds these entries and the gates, as instances do. A lease is what readers look at: it follows
the log, and `record` says what it must be. The owner and the epoch come from the log. What only control knows stays the lease's:
whether an owner that is lost is waited for, and why.

`moves` and `parts` say what is written: one entry for all resources that change hands, whoever gets them. The entry's number is
the one behind the last entry that was read. Storing it is create-only, so it takes effect only if nobody changed any
ownership since; otherwise the plan is void, and made anew from what is read then.

What must stay true: nothing is planned on ownership that was not read; a number is above every epoch that was ever told.
What would break: an entry that is sent again under another number after a refusal moves resources by a plan that is out of date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from aegis_sdk.contract.control import LeaseRecord, LeaseState
from aegis_sdk.contract.turns.checkpoint import SavedUpTo
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.contract.turns.holds import NO_HOLDS, Holds, holds_to_json
from aegis_sdk.contract.turns.writers import run_of, writer_name
from aegis_sdk.domain.turns.ownership import (
    IDLE,
    NOBODY,
    RETIRED,
    UNOWNED,
    MissingOwnership,
    Ownership,
)
from pydantic_core import to_json

from aegis_control.domain.leading.lease import Owner

LOSS_ACCEPTED: Final = "loss_accepted"
"""The reason of entries by which a log begins again."""
AROUND_BYTES: Final = 6
"""What JSON has around a name: quotes, a comma, and the brackets of a list."""
HEAD_BYTES: Final = 4096
"""Left for the rest of an entry: its words, and its headers."""


@dataclass(frozen=True, slots=True)
class StoredMoves:
    """An ownership entry as read. `at_s`: when it was stored, Unix time."""

    seq: int
    number: int
    moves: Moves
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StoredGate:
    """The newest gate of a writer."""

    seq: int
    writer: str


class LogBehind(Exception):
    """A lease names an ownership entry that the log does not have: the log lost it."""


class Owned:
    """What the log of one service says, as far as it was read."""

    def __init__(self, saved: Mapping[str, SavedUpTo] | None = None) -> None:
        """`saved`: what the newest checkpoints say. The log may have been trimmed up to the oldest of them."""
        self.ownership = Ownership()
        self.position = 0
        """The last entry that was read."""
        self.first_named: dict[str, int] = {}
        """resource: the first entry that may name it."""
        self.newest_seq = 0
        """The place of the newest ownership entry."""
        self.holds: Holds = NO_HOLDS
        """What operators have paused, as that entry says."""
        self._told: dict[int, tuple[str, float]] = {}
        """Why and when each ownership entry was stored."""
        self._first_by: float = min((each.own + 1 for each in (saved or {}).values()), default=inf)
        """The first ownership entry in the log is this one, or one before: else some were trimmed since `saved` was read."""
        for resource, each in (saved or {}).items():
            self.ownership.restore(resource, each.writer, epoch=each.epoch, own=each.own)

    def read(self, entry: StoredMoves | StoredGate) -> list[str]:
        """Fold the next entry; the resources whose owner it changed. Raises: MissingOwnership."""
        if entry.seq <= self.position:
            return []  # a gate from before a move says nothing about it
        self.position = entry.seq
        if isinstance(entry, StoredGate):
            self.ownership.read_gate(entry.writer, entry.seq)
            return []
        if not self._told and entry.number > self._first_by:
            raise MissingOwnership(f"the log begins at ownership entry {entry.number}")
        self.newest_seq = entry.seq
        self.holds = entry.moves.holds
        self._told[entry.number] = entry.moves.why, entry.at_s
        # Entries before may be among what was lost, and turns of these resources stand there still.
        first = 1 if entry.moves.why == LOSS_ACCEPTED else entry.seq
        for resource in entry.moves.moves:
            self.first_named.setdefault(resource, first)
        return self.ownership.read_own(entry.number, entry.moves.moves)

    def begins(self, resources: Iterable[str]) -> int:
        """What the log has of those without a checkpoint stands behind this: it is kept from where they were named first."""
        named = [self.first_named[name] - 1 for name in resources if name in self.first_named]
        return min(named, default=self.position)

    def vacant(self) -> dict[str, int]:
        """Resources of nobody whose writers are all shut out, and by which ownership entry: also what is retired."""
        return {
            name: self.ownership.epoch(name)
            for name in self.ownership.resources()
            if self.ownership.owner(name) in UNOWNED and self.ownership.is_whole(name)
        }

    def next_number(self, highest_epoch: int) -> int:
        """Of the next ownership entry. Raises: LogBehind."""
        number = self.ownership.number
        if not self._told:
            return highest_epoch + 1
        if highest_epoch > number:
            raise LogBehind(
                f"the log ends at ownership entry {number}, and a lease names {highest_epoch}"
            )
        return number + 1

    def is_behind(self, highest_epoch: int) -> bool:
        """Whether a lease names an entry that the log does not have."""
        return highest_epoch > self.ownership.number

    def missing(self, highest_epoch: int) -> range:
        """Numbers that an older copy of the log lacks: they are given to nothing, so that none is given twice."""
        return range(self.ownership.number + 1, highest_epoch + 1) if self._told else range(0)

    def says(self, record: LeaseRecord) -> bool:
        """Whether a lease is as the log has it."""
        writer, epoch = self.ownership.owner(record.resource), self.ownership.epoch(record.resource)
        if writer == NOBODY and not epoch:  # the log never named it
            return record.state is LeaseState.VACANT
        if record.epoch != epoch:
            return False
        if writer in UNOWNED:
            return record.state is _state(writer)
        is_owner = writer == writer_name(record.owner, record.incarnation)
        return is_owner and not record.state.is_unowned

    def record(self, service: str, resource: str, before: LeaseRecord | None) -> LeaseRecord:
        """The lease as the log has it; `before` is what it was, with what a newer version noted in it."""
        writer, epoch = self.ownership.owner(resource), self.ownership.epoch(resource)
        why, at_s = self._told.get(epoch, ("", 0.0))
        owner = Owner(*run_of(writer))
        if writer in UNOWNED and before is not None:
            owner = Owner(before.owner, before.incarnation)  # for people: who it was
            epoch = max(epoch, before.epoch)
        return LeaseRecord(
            **((before.model_extra or {}) if before else {}),
            service=service,
            resource=resource,
            state=_state(writer),
            owner=owner.instance_id,
            incarnation=owner.incarnation,
            epoch=epoch,
            since=at_s,
            reason=why,
        )


_STATES: Final = {
    NOBODY: LeaseState.VACANT,
    RETIRED: LeaseState.RETIRED,
    IDLE: LeaseState.IDLE,
}
_UNOWNED: Final = {state: owner for owner, state in _STATES.items()}


def unowned(state: LeaseState | None) -> str:
    """Whose a resource is that is nobody's, and was in that state."""
    return _UNOWNED.get(state or LeaseState.VACANT, NOBODY)


def _state(writer: str) -> LeaseState:
    return _STATES.get(writer, LeaseState.HELD)


def moves(
    owned: Owned, plan: Mapping[str, Iterable[str]], runs: Mapping[str, Owner]
) -> dict[str, str]:
    """Resource to writer, for those of `plan` (instance id to resources) that change hands.

    `runs`: the live instances. What is planned for another stays where it is.
    """
    return {
        resource: writer
        for instance_id, resources in plan.items()
        if instance_id in runs
        for writer in (writer_name(instance_id, runs[instance_id].incarnation),)
        for resource in resources
        if owned.ownership.owner(resource) != writer
    }


def to_nobody(owned: Owned, resources: Iterable[str]) -> dict[str, str]:
    """The same for resources that nobody shall own, of those that somebody does."""
    return {name: NOBODY for name in resources if owned.ownership.owner(name) != NOBODY}


def parts(moves_: Mapping[str, str], *, bytes_max: int) -> Iterator[dict[str, str]]:
    """Split by size, so that each part fits into one entry: most often there is one."""
    part: dict[str, str] = {}
    writers: set[str] = set()
    room = bytes_max - HEAD_BYTES
    for resource, writer in moves_.items():
        cost = _json_bytes(resource) + (0 if writer in writers else _json_bytes(writer))
        if part and cost > room:
            yield part
            part, writers, room = {}, set(), bytes_max - HEAD_BYTES
            cost = _json_bytes(resource) + _json_bytes(writer)
        part[resource] = writer
        writers.add(writer)
        room -= cost
    if part:
        yield part


def room(holds: Holds, *, bytes_max: int) -> int:
    """What is left of an entry for its moves: each repeats what is paused."""
    return bytes_max - (len(to_json(holds_to_json(holds))) if holds else 0)


def _json_bytes(text: str) -> int:
    """Of a name in an entry, with what stands around it; at most."""
    escaped = 0 if text.isalnum() else sum(c in '"\\' or c < " " or c == "\x7f" for c in text)
    return len(text.encode()) + 5 * escaped + AROUND_BYTES
