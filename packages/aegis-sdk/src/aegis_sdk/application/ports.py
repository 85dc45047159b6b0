"""What the use cases need from outside, in our words. tests/contract runs one suite on each
implementation: the in-memory fakes of `aegis_sdk.testing` and the NATS adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aegis_sdk.contract.control import (
    Ack,
    Leave,
    Registration,
    RegistrationReply,
    ResourcesChange,
)
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.domain.delivery import Arrival


class StoreError(Exception):
    """A store operation did not do what was asked. The subclasses say what is known."""


class AlreadyStored(StoreError):
    """The subject has its one message already (G2); nothing was stored."""


class GateRefused(StoreError):
    """A newer gate exists (G5); nothing was stored."""


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
    losses: int = 0
    """How many connections have ended: what comes after one of them may come from another server than before."""


class RequestLog(Protocol):
    """The request stream, as a caller sees it."""

    async def append(self, request: Request, *, timeout_s: float) -> Accepted:
        """Store the request, unless its id was seen within the dedup window.

        Raises: StoreFull, StoreMissing, StoreUnreachable.
        """

    async def find(self, service: str, request_id: str, *, timeout_s: float) -> Request | None:
        """This request, if the stream has it now. It looks at every one that is kept: not for often.

        Raises: StoreMissing, StoreUnreachable (also when it did not come to the end in time).
        """

    async def services(self) -> Sequence[str]:
        """Those that have a request stream. Raises: StoreUnreachable."""

    async def read(self, service: str, seq: int) -> Request | None:
        """The stored request at `seq`. Raises: StoreMissing, StoreUnreachable."""


class Letters(Protocol):
    """The DLQ."""

    async def dead_letter(self, request: Request, outcome: Outcome) -> None:
        """Copy a request that failed for good to the DLQ; twice is once. Raises: StoreError."""


class Directory(Protocol):
    """Who serves what, from the registry and the leases; works while control is down."""

    def admits(
        self, service: str, method: str, resource: str | None, *, is_read: bool = False
    ) -> bool:
        """Whether what is known already says that a request, or a read, can be sent; no waiting."""

    def members(self, service: str) -> Sequence[str]:
        """Its live instances, in an order that stays. No waiting."""

    def takers(self, service: str, takes: str) -> Sequence[str]:
        """Its live instances that subscribe to `<service>.<event>`, as far as is known. No waiting."""

    def lost(self, service: str) -> str:
        """What the service's streams lost, as far as is known; empty when nothing. No waiting."""

    def requests_log(self, service: str) -> str:
        """The identity of the log that has its requests, also of a lost one. Empty while it is not known.

        The first call begins to find it out. No waiting.
        """

    async def check(
        self, service: str, method: str, resource: str | None, *, is_read: bool = False
    ) -> None:
        """Return when a request, or a read, can be sent.

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
    ack: Callable[[], None]
    extend: Callable[[], None]
    hand_back: Callable[[float], None]


class GroupSource(Protocol):
    """A running reader of the group's requests, with bounded credit."""

    async def retire(self) -> None:
        """Stop, but deliver first what is already on its way."""

    async def stop(self) -> None: ...

    def finished(self) -> None:
        """One delivery is out of hand: its credit may be used again."""

    def resumed(self) -> None:
        """One whose credit was given back is worked at again. So more than the credit may be in hand."""


class Deliveries(Protocol):
    """Opens readers of the request stream."""

    async def open_group(
        self, service: str, *, credit: int, on_delivery: Callable[[Delivery], None]
    ) -> GroupSource: ...


class Control(Protocol):
    """The control service, as an instance sees it."""

    async def register(self, registration: Registration, *, timeout_s: float) -> RegistrationReply:
        """Raises: Unavailable."""

    async def change(
        self, change: ResourcesChange, registration: Registration, *, timeout_s: float
    ) -> RegistrationReply:
        """Change what the instance offers; `registration` is what it registers with from then on.

        Raises: Unavailable, PayloadTooLarge.
        """

    async def leave(self, leave: Leave, *, timeout_s: float) -> Ack:
        """Raises: Unavailable."""
