"""The fold: a resource's state as the journal's entries make it, in the journal's order.

An active and its standbys run the same fold over the same entries, which is why a standby that has
read its own fence has the active's state (G6). Invariant: `last_request_seq` only rises, and every
request of this resource up to it has its outcome and was folded (a resource's requests take effect in
the order of the request stream); that is how a new active tells what was done already, and why nothing
that is read again, or late, undoes what came after it. A fence says it too (`start_seq`), also where the outcomes
before it were lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Any, Final

from pydantic_core import to_json

from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.checkpoint import Checkpoint, values_of
from aegis_sdk.contract.envelope import OUTCOME, Change, Outcome

NOBODYS_FENCE: Final = Fence(epoch=0, owner="", incarnation="", grant="none", start_seq=0)
"""Stands for one that can't be read: somebody else's."""


class EntryUnreadable(ValueError):
    """The state can't be told without this entry, and this version can't read it."""


class EntryKind(StrEnum):
    """The token behind the resource in a journal subject."""

    OUTCOME = "out"
    FENCE = "fence"
    CHECKPOINT = "state"
    PART = "part"
    ATTEMPT = "try"
    MARKER = "mark"
    """Of the service, not of a resource: it says nothing but that all in front of it was read."""


class Follow(Enum):
    """How much of its resource's journal an actor is given."""

    WHOLE = auto()
    FENCES = auto()
    """An active writes the rest itself; reading it again would double its work."""
    BEHIND = auto()
    """It was not given everything yet, and ignores what comes until it was."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal message: `seq` is its stream sequence, `name` what follows the kind in its subject."""

    seq: int
    resource: str
    kind: EntryKind
    name: str
    headers: Mapping[str, str]
    payload: bytes


@dataclass(frozen=True, slots=True)
class FenceMark:
    """The newest fence read so far and its own sequence, against which commits are checked."""

    fence: Fence
    seq: int

    def is_for(self, instance_id: str, incarnation: str) -> bool:
        return self.fence.owner == instance_id and self.fence.incarnation == incarnation


class Ahead(Mapping[str, Any]):
    """A resource's values with changes on top that are not stored yet; what is below stays as it is."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._stored = stored
        self._set: dict[str, Any] = {}
        self._deleted: set[str] = set()

    def apply(self, change: Change) -> None:
        self._set.update(change.set)
        self._deleted.difference_update(change.set)
        for key in change.delete:
            self._set.pop(key, None)
            self._deleted.add(key)

    def __getitem__(self, key: str) -> Any:
        if key in self._set:
            return self._set[key]
        if key in self._deleted:
            raise KeyError(key)
        return self._stored[key]

    def __iter__(self) -> Iterator[str]:
        return iter((self._stored.keys() | self._set.keys()) - self._deleted)

    def __len__(self) -> int:
        return len((self._stored.keys() | self._set.keys()) - self._deleted)


@dataclass(slots=True)
class ResourceJournal:
    """The fold's value for one resource. `apply` takes the entries in the order of their sequences."""

    resource: str
    values: dict[str, Any] = field(default_factory=dict)
    whole: bool = True
    """Whether everything before `position` is in `values`; false until the checkpoint is read that it begins with."""
    position: int = 0
    last_request_seq: int = 0
    fence: FenceMark | None = None
    attempts: dict[str, int] = field(default_factory=dict)
    """How often a request was begun again, for requests without an outcome so far."""
    changes: int = 0
    """Changes since the last checkpoint, and their size."""
    change_bytes: int = 0
    checkpoint_bytes: int = 0
    covered_request_seq: int = 0
    """`last_request_seq` of the newest complete checkpoint."""
    parts_of: int = 0
    """The newest checkpoint's position when it is stored in parts, else 0."""
    _parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def apply(self, entry: Entry) -> str:
        """Fold one entry; an entry at or below `position` was folded before and is skipped.

        Returns why it could not be read, if the state can be told without it: a stray, or a checkpoint
        of what was folded. Raises: EntryUnreadable when it can't.
        """
        if entry.seq <= self.position:
            return ""
        self.position = entry.seq
        try:
            self._apply(entry)
        except ValueError as error:
            return self._without(entry, error)
        return ""

    def _apply(self, entry: Entry) -> None:
        """Raises: ValueError."""
        match entry.kind:
            case EntryKind.OUTCOME if OUTCOME in entry.headers:
                self.apply_outcome(entry.name, Outcome.parse(entry.headers, entry.payload))
            case EntryKind.OUTCOME:
                raise ValueError(f"it has no header {OUTCOME}")
            case EntryKind.FENCE:
                self.fence = FenceMark(NOBODYS_FENCE, entry.seq)
                self.fence = FenceMark(Fence.model_validate_json(entry.payload), entry.seq)
                self.last_request_seq = max(self.last_request_seq, self.fence.fence.start_seq - 1)
            case EntryKind.CHECKPOINT:
                self._restore(Checkpoint.decode(entry.payload))
            case EntryKind.PART:
                checkpoint_id, _, part = entry.name.partition(".")
                self._parts.setdefault(checkpoint_id, {})[int(part)] = entry.payload
            case EntryKind.ATTEMPT:
                self.attempts[entry.name] = 1
                self.attempts[entry.name] = int(entry.payload)

    def _without(self, entry: Entry, error: ValueError) -> str:
        """Go on without an entry that can't be read, if that can be. Raises: EntryUnreadable."""
        why = f"{entry.kind.value} {entry.name} at {entry.seq}: {error}"
        is_outcome = entry.kind is EntryKind.OUTCOME and OUTCOME in entry.headers
        if is_outcome or (entry.kind is EntryKind.CHECKPOINT and not self.whole):
            raise EntryUnreadable(why) from error
        return why

    def apply_outcome(self, request_id: str, outcome: Outcome) -> None:
        """Take over what a stored outcome changed; one that was taken over before is skipped.

        An active learns of its own outcome at the commit, and may read the entry later.
        """
        self.attempts.pop(request_id, None)
        if outcome.request_seq and outcome.request_seq <= self.last_request_seq:
            return
        change = outcome.changed
        if outcome.change and change is None:
            change = Change.decode(outcome.change)
        self.last_request_seq = max(self.last_request_seq, outcome.request_seq)
        if not outcome.change or change is None:
            return
        self.values.update(change.set)
        for key in change.delete:
            self.values.pop(key, None)
        self.changes += 1
        self.change_bytes += len(outcome.change)

    def checkpoint(self) -> Checkpoint:
        """The state as it is now, for the active to write when no request is between run and commit."""
        return Checkpoint(self.position, self.last_request_seq, to_json(self.values))

    def checkpointed(self, checkpoint: Checkpoint, size: int) -> None:
        """`checkpoint`, whose values have `size` bytes, is stored."""
        self.changes = self.change_bytes = 0
        self.checkpoint_bytes = size
        self.covered_request_seq = checkpoint.last_request_seq
        self.parts_of = checkpoint.position if checkpoint.parts else 0
        self._parts.clear()

    @property
    def is_covered(self) -> bool:
        """Whether the newest checkpoint says all that the outcomes so far do."""
        return self.last_request_seq <= self.covered_request_seq

    def wants_checkpoint(self, *, every_changes: int) -> bool:
        """After `every_changes`, but never more bytes of checkpoints than twice those of changes:
        a large state that changes in small steps is written seldom.
        """
        return (
            self.changes >= every_changes
            and self.change_bytes >= min(self.checkpoint_bytes, 2**24) / 2
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        values = checkpoint.values
        if checkpoint.parts:
            parts = self._parts.get(str(checkpoint.position), {})
            if any(n not in parts for n in range(checkpoint.parts)):
                if not self.whole:
                    raise ValueError("its parts are not all there")
                return  # read from its middle: what it covers was folded entry by entry
            values = b"".join(parts[n] for n in range(checkpoint.parts))
        if checkpoint.last_request_seq >= self.last_request_seq:
            self.values = values_of(values)
            self.last_request_seq = checkpoint.last_request_seq
            self.whole = True
        self.checkpointed(checkpoint, len(values))
