"""What the use cases need from outside, in our words. tests/contract runs one suite on each
implementation: the in-memory fakes of `aegis_sdk.testing` and the NATS adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.checkpoint import Checkpoint
from aegis_sdk.contract.control import Ack, Leave, Registration, RegistrationReply
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.domain.delivery import Arrival
from aegis_sdk.domain.journal import Entry


class StoreError(Exception):
    """A store operation did not do what was asked. The subclasses say what is known."""


class AlreadyStored(StoreError):
    """The subject has its one message already (G2); nothing was stored."""


class FenceRefused(StoreError):
    """A newer fence exists (G5); nothing was stored."""


class StoreFull(StoreError):
    """The stream is at its bound, or the server's disk is; nothing was stored."""


class StoreTooLarge(StoreError):
    """Over the server's max_payload; nothing was stored."""


class StoreMissing(StoreError):
    """No such stream or consumer; nothing was stored."""


class StoreUnreachable(StoreError):
    """No definite answer: it may have been stored, or still be stored later."""


class StoreForbidden(StoreError):
    """The server does not permit the subject, which the message names; nothing was stored by this call."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request stream has the request at `seq`; `duplicate`: it had that id before."""

    seq: int
    duplicate: bool


@dataclass(slots=True)
class Connected:
    """How the server names this process's connection now: `session`, empty while there is none.

    A copy of a process (a resumed machine, a restored container) has a connection of its own.
    """

    session: str = ""


class RequestLog(Protocol):
    """The request stream, as a caller sees it."""

    async def append(self, request: Request, *, timeout_s: float) -> Accepted:
        """Store the request, unless its id was seen within the dedup window.

        Raises: StoreFull, StoreMissing, StoreUnreachable.
        """

    def post(self, request: Request) -> None:
        """Send the request and return: no word on whether it was stored, `append` again for that.

        Raises: StoreTooLarge, StoreUnreachable.
        """

    async def holds(self, service: str, request_id: str, *, timeout_s: float) -> bool:
        """Whether the stream has this request now. It looks at every one that is kept: not for often.

        Raises: StoreMissing, StoreUnreachable (also when it did not come to the end in time).
        """

    async def read(self, service: str, seq: int) -> Request | None:
        """The stored request at `seq`. Raises: StoreMissing, StoreUnreachable."""


class Letters(Protocol):
    """The DLQ."""

    async def dead_letter(self, request: Request, outcome: Outcome) -> None:
        """Copy a request that failed for good to the DLQ; twice is once. Raises: StoreError."""


class Journal(Letters, Protocol):
    """The journal: the only place where effects exist."""

    async def commit(self, request: Request, outcome: Outcome, *, fence_seq: int | None) -> int:
        """Store the one outcome of a request; the stream sequence of the entry.

        Create-only, and checked against `fence_seq` for a resource's active (None: no fence, as for
        group requests and for a caller's cancel).

        Raises: AlreadyStored, FenceRefused, StoreFull, StoreMissing, StoreUnreachable.
        """

    async def commit_together(
        self, commits: Sequence[tuple[Request, Outcome]], *, fence_seq: int
    ) -> int:
        """Store the outcomes of several requests of one resource, all or none, one behind the other; the
        last one's sequence.

        Each is create-only, and all are checked against `fence_seq`. It costs about one commit where the
        journal is replicated, and much more where it is not.

        Raises: as commit.
        """

    async def outcome(self, request: Request, *, anywhere: bool = False) -> Outcome | None:
        """The stored outcome, read from the stream's leader.

        `anywhere`: whatever the resource, for an id whose resource isn't known or that may have been
        used with another one. Raises: StoreMissing, StoreUnreachable.
        """

    async def children(self, service: str, parent_token: str) -> list[str]:
        """Ids of the requests to this service that have an outcome and were made by one handler's run, or
        its re-runs: `parent_token` is the first token of their ids. As the stream's leader has it.

        Raises: StoreMissing, StoreUnreachable.
        """

    async def attempts(self, request: Request) -> int:
        """Begins noted for a request. Raises: StoreMissing, StoreUnreachable."""

    async def note_attempt(self, request: Request, n: int, *, fence_seq: int | None) -> None:
        """Raises: FenceRefused, StoreFull, StoreMissing, StoreUnreachable."""

    async def claim(self, service: str, resource: str, fence: Fence, *, after_seq: int) -> int:
        """Store the own fence again, for the connection it names, if the one at `after_seq` is the last.

        Raises: FenceRefused, StoreFull, StoreMissing, StoreUnreachable.
        """

    async def store_checkpoint(
        self, service: str, resource: str, checkpoint: Checkpoint, *, fence_seq: int
    ) -> tuple[int, Checkpoint]:
        """Store a checkpoint as one or several entries: the sequence of the last, and it as stored.

        Raises: FenceRefused, StoreFull, StoreMissing, StoreUnreachable.
        """

    async def forget_parts(self, service: str, resource: str, checkpoint_id: int) -> None:
        """Remove the parts of a checkpoint that a newer one replaced. Raises: StoreError."""


class Replies(Protocol):
    """Outcomes as the server republishes them to this caller. May miss some: read the journal then."""

    async def expect(self, request_id: str, deliver: Callable[[Outcome], None]) -> None: ...

    def forget(self, request_id: str, deliver: Callable[[Outcome], None]) -> None: ...


class Directory(Protocol):
    """Who serves what, from the registry and the leases; works while control is down."""

    def admits(self, service: str, method: str, resource: str | None) -> bool:
        """Whether what is known already says that a request can be sent; no waiting."""

    def members(self, service: str) -> Sequence[str]:
        """Its live instances, in an order that stays. No waiting."""

    def lost(self, service: str) -> str:
        """What the service's streams lost, as far as is known; empty when nothing. No waiting."""

    def requests_log(self, service: str) -> str:
        """The identity of the log that has its requests, also of a lost one. Empty while it is not known.

        The first call begins to find it out. No waiting.
        """

    async def check(self, service: str, method: str, resource: str | None) -> None:
        """Return when a request can be sent.

        Raises: UnknownService, UnknownMethod, ContractError (resource given or missing), NoRoute,
            LogLost, StoreUnreachable.
        """


@dataclass(slots=True)
class Delivery:
    """A delivered request. `ack` says that its outcome is stored (it is sent soon, with others);
    `extend` that it is in hand; `hand_back` returns it, to be delivered again after so many seconds.
    """

    request: Request
    arrival: Arrival
    grant: str
    ack: Callable[[], None]
    extend: Callable[[], None]
    hand_back: Callable[[float], None]


@dataclass(slots=True)
class FarDelivery:
    """A delivery without its request, which can be read again at `arrival.stream_seq`."""

    arrival: Arrival
    grant: str
    ack: Callable[[], None]


class DeliverySource(Protocol):
    """A running reader of requests."""

    async def retire(self) -> None:
        """Stop, but deliver first what is already on its way."""

    async def stop(self) -> None: ...


class GroupSource(DeliverySource, Protocol):
    """With bounded credit."""

    def finished(self) -> None:
        """One delivery is out of hand: its credit may be used again."""

    def resumed(self) -> None:
        """One whose credit was given back is worked at again. So more than the credit may be in hand."""


class Deliveries(Protocol):
    """Opens readers of the request stream."""

    async def open_group(
        self, service: str, *, credit: int, on_delivery: Callable[[Delivery], None]
    ) -> GroupSource: ...

    async def open_grant(
        self,
        service: str,
        grant: str,
        resources: Sequence[str],
        *,
        start_seq: int,
        on_delivery: Callable[[Delivery], None],
        on_restart: Callable[[], None],
    ) -> DeliverySource:
        """Deliver the requests of `resources` from `start_seq` on, in stream order, as many as there are.

        On any doubt about that order (a reconnect, a gap) it calls `on_restart`, after which the caller
        has to forget what it has not begun, and delivers everything unacknowledged again, in order.
        """

    async def read(self, service: str, seq: int) -> Request | None:
        """The stored request at `seq`, or None. Raises: StoreMissing, StoreUnreachable."""


class FollowSource(Protocol):
    async def stop(self) -> None:
        """Nothing is given after this returns."""

    async def reached(self, seq: int) -> None:
        """Wait until a message at `seq` or behind it was read; that of a marker is sure to come."""

    @property
    def read_to(self) -> int:
        """The sequence of the last message read."""

    @property
    def lag_entries(self) -> int:
        """Entries stored but not read yet, as of the last one read."""


class JournalReader(Protocol):
    async def start_of(self, service: str, resources: Sequence[str]) -> Mapping[str, int]:
        """For each resource with a checkpoint: the sequence to read from. Raises: StoreError."""

    async def mark(self, service: str) -> int:
        """Write a marker behind all that is stored now: its sequence. Raises: StoreError."""

    async def follow(
        self,
        service: str,
        *,
        whole: Sequence[str],
        fences: Sequence[str],
        from_seq: int | None,
        on_entry: Callable[[Entry], None],
    ) -> FollowSource:
        """Read the journal in order, for ever: all of `whole`, only fences of `fences`, and the markers,
        which are not given. None: what is stored from now on, which is the one start that does not
        hold up the commits of others in a long journal.
        """


class Control(Protocol):
    """The control service, as an instance sees it."""

    @property
    def session(self) -> str:
        """The connection that control is asked on."""

    async def register(self, registration: Registration, *, timeout_s: float) -> RegistrationReply:
        """Raises: Unavailable."""

    async def leave(self, leave: Leave, *, timeout_s: float) -> Ack:
        """Raises: Unavailable."""
