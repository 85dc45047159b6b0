"""What control needs from the world, in its own words. Every wait behind a port has a deadline.

All methods may raise `aegis_sdk.errors.Unavailable` when NATS can't be reached in time, unless they
say otherwise; nothing is known then about what was written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from aegis_sdk.contract.control import (
    Ack,
    Command,
    DriftView,
    LogMark,
    ServerView,
    SubscriptionView,
)
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.turns.checkpoint import Checkpoint, SavedUpTo
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.contract.turns.events import Emitted
from aegis_sdk.domain.turns.keeping import Keeping

from aegis_control.domain.events import Event
from aegis_control.domain.leading.logs import Sight
from aegis_control.domain.leading.owning import StoredGate, StoredMoves


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that only rise; every decision is made with these."""
        ...

    def wall(self) -> float:
        """Unix seconds, for people."""
        ...


class NotWritten(StrEnum):
    """Why one of several writes was not acknowledged."""

    CONFLICT = "conflict"
    """Somebody else wrote first; certainly not stored."""
    UNKNOWN = "unknown"
    """No acknowledgement came: read before deciding anything."""


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """A stored value; `value` is None for a deleted key."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Write:
    """Store `value` if the key is still at `revision` (0: never written)."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the streams, as read last."""

    depths: Mapping[tuple[str, str], int]
    """(service, route): requests that wait or are in work."""
    dead_letters: int
    subscriptions: Sequence[SubscriptionView] = ()

    def by_service(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for (service, _), depth in self.depths.items():
            found[service] = found.get(service, 0) + depth
        return found


class NotTheBucket(Exception):
    """The bucket was deleted, or replaced by an older copy: what is known of its revisions is wrong."""


class Bucket(Protocol):
    """Keys with revisions; the last value of each key is kept."""

    async def load(self, *, after: int = 0, again: bool = False) -> list[BucketEntry]:
        """The last entry of every key written after revision `after`, in revision order.

        Raises: NotTheBucket when it is loaded `again`, and is not the bucket that it was.
        """
        ...

    async def read(self, key: str) -> BucketEntry | None:
        """The key's last entry, not from a copy that may be late; None if it was never written."""
        ...

    async def write(self, writes: Sequence[Write]) -> list[int | NotWritten]:
        """Try all writes at once; for each its new revision, or why there is none."""
        ...

    async def delete(self, key: str, revision: int) -> int | NotWritten:
        """Delete the key if it is still at `revision`; the deletion's revision, or why there is none."""
        ...

    async def delete_all(self, entries: Sequence[BucketEntry]) -> list[int | NotWritten]:
        """`delete` each key that is still as it was read."""
        ...


@dataclass(frozen=True, slots=True)
class Going:
    """What a trim takes of a log."""

    upto: int
    """Turns, singles and ownership entries up to here."""
    newest_own: int
    """The place of the ownership entry that stays, whatever `upto` is."""
    old: int
    """The group's outcomes up to here."""
    writers: Sequence[str]
    """Their gates and claims, up to `upto`."""


class OwnLog(Protocol):
    """What a service's log says of ownership."""

    @property
    def entry_bytes_max(self) -> int:
        """What one entry may have."""
        ...

    async def saved(self, service: str) -> dict[str, SavedUpTo]:
        """What the newest checkpoint of each resource says; one that can't be read says that nothing was read."""
        ...

    async def read(self, service: str, *, after: int) -> list[StoredMoves | StoredGate]:
        """All ownership entries and gates behind position `after`, in the log's order."""
        ...

    async def write(self, service: str, number: int, entry: Moves) -> int | NotWritten:
        """Store ownership entry `number`, if there is none of that number; its position, or why not."""
        ...

    async def shut_out(self, service: str, writers: Sequence[str]) -> list[int | None]:
        """Store a new gate of each; its position, or None when that is not known."""
        ...


class LogSpace(Protocol):
    """What may go of a service's log, and the checkpoints of what is nobody's."""

    async def old(self, service: str, *, keep_s: float) -> int:
        """The last entry that is older than `keep_s`, by the server's clock."""
        ...

    async def newest(self, service: str, resource: str) -> tuple[Checkpoint | None, int]:
        """The resource's newest checkpoint, and its place; (None, 0) when there is none.

        Raises: EntryUnreadable.
        """
        ...

    async def fold(self, service: str, keeping: Keeping, *, outcomes: bool) -> int:
        """Have `keeping` read on up to the log's end: its place. Without `outcomes`, only ownership entries and ends.

        Raises: EntryUnreadable, and whatever `keeping` does.
        """
        ...

    async def keep(self, service: str, checkpoint: Checkpoint, *, after_seq: int) -> bool:
        """Store the checkpoint, if the newest one is still that at `after_seq`; whether it was."""
        ...

    async def remove(self, service: str, going: Going) -> int:
        """How many entries went."""
        ...


class Requests(Protocol):
    """The streams of a service, and what may go of its request stream."""

    async def provision(self, service: str) -> None:
        """Create what is missing and mend what differs; nothing is written when all fits.

        Raises: ProvisionFailed when the server refuses.
        """
        ...

    async def provision_events(self, service: str) -> None:
        """The stream of what it emits, likewise: it may be there before the service is."""
        ...

    async def keep_group(self, service: str) -> bool:
        """Make the group's consumer again if it is gone; whether it was."""
        ...

    async def remove_settled(self, service: str, *, done_seq: int, held: Collection[str]) -> int:
        """Forget stored requests that have an outcome; how many.

        `done_seq`: up to there, those of the resources in `held` have one. The group's consumer knows about its own; one to
        another resource is kept, and all behind it.
        """
        ...

    async def open(self, service: str, resource: str) -> list[str]:
        """Stored requests of the resource that have no outcome, by their ids."""
        ...

    async def resources(self, service: str) -> set[str]:
        """Those with a stored request, whatever became of it."""
        ...

    async def waiting(self, service: str) -> list[str]:
        """All stored requests of the service that have no outcome, by their ids."""
        ...

    async def close(self, service: str) -> None:
        """Have the request stream take no more. Fine if it is not there."""
        ...

    async def reopen(self, service: str) -> None:
        """Have it take requests again, as `provision` does."""
        ...

    async def forget(self, service: str, starts: Mapping[str, int]) -> None:
        """Forget the stored requests of these resources that stand before a place each: they are done."""
        ...


class Logs(Protocol):
    """Which log a stream is."""

    async def look(self, stream: str) -> Sight | None:
        """The stream as it is now; None when it is not there."""
        ...

    async def request_at(self, stream: str, seq: int) -> str:
        """The id of the request at that place; empty when none is there."""
        ...

    async def holds(self, stream: str, seq: int) -> bool:
        """Whether there is a message at that place."""
        ...

    async def messages(self, stream: str) -> int | None:
        """How many it holds; None when it is not there."""
        ...

    async def remove(self, stream: str, identity: str) -> None:
        """Delete the stream if it is that log, and what is remembered of it."""
        ...

    def seen_end(self, stream: str, identity: str) -> int:
        """The highest end that this process ever saw of that log; 0 for none. No waiting."""
        ...

    def know(self, stream: str, identity: str) -> None:
        """Which log the stream should be, for when the registry that keeps it is lost just now."""
        ...

    async def adopt(self, stream: str, *, new: bool) -> LogMark:
        """The mark of a stream of which nothing is kept: what this process knew of it a moment ago, else
        what is there, which is given an identity if it has none. Only a `new` one is made.
        """
        ...

    async def begin(self, stream: str, *, behind: int, generation: int) -> LogMark:
        """Make the stream, or what is there of it, a log of its own whose next position is behind `behind`.

        Its identity tells its `generation`.

        Raises: ProvisionFailed.
        """
        ...


class ProvisionFailed(Exception):
    """A stream could not be brought to what the protocol needs; the message says which and why."""


class Instances(Protocol):
    """The way back to instances."""

    async def command(self, instance_id: str, command: Command, *, timeout_s: float) -> Ack | None:
        """Send and wait for the answer; None if there is none in time. Doesn't raise."""
        ...

    async def tell(self, instance_id: str, command: Command) -> None:
        """Send without waiting; lost if the instance is not there. Doesn't raise."""
        ...


class Hearing(Protocol):
    async def check(self) -> None:
        """Returns when all heartbeats that had reached NATS at the call have been heard.

        Raises: Unavailable, in less than a heartbeat timeout's order, when NATS does not answer.
        """
        ...


class Events(Protocol):
    def emit(self, event: Event) -> None:
        """Tell operators (event subject, log, metrics). Never waits, never raises."""
        ...


class RequestsFull(Exception):
    """The request stream takes no more; nothing was stored."""


class Letters(Protocol):
    """The dead letters, and sending them again."""

    async def find(self, request_id: str) -> DeadLetter | None:
        """The dead letter of a request, whatever its service."""
        ...

    async def outcome(self, service: str, request_id: str) -> Outcome | None:
        """How a request ended, if its journal knows that (or the service)."""
        ...

    async def emit(self, event: Emitted) -> None:
        """Returns when the stream of events has it. Again is harmless. Raises: RequestsFull."""
        ...

    async def send(self, request: Request) -> None:
        """Returns when the request stream has it. Sending it again is harmless.

        Raises: RequestsFull.
        """
        ...

    async def drop(self, service: str, request_id: str) -> None:
        """Forget the dead letter; fine if it is not there."""
        ...

    async def count(self, service: str) -> int:
        """How many dead letters the service has."""
        ...

    async def drop_all(self, service: str) -> None:
        """Forget all of them."""
        ...


class Checkup(Protocol):
    """What `doctor` needs to know of NATS and can't see without control's settings or accounts."""

    @property
    def replicas(self) -> int:
        """Copies of each stream that control makes."""
        ...

    async def servers(self) -> list[ServerView] | None:
        """Every NATS server that answers the system account; None without such an account."""
        ...

    async def drift(self, services: Sequence[str]) -> list[DriftView]:
        """What differs from what control would make now; a stream that isn't there is no drift."""
        ...
