"""What turns need from outside, in our words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import Record
from aegis_sdk.contract.turns.sent import Answer
from aegis_sdk.domain.turns.entries import Entry
from aegis_sdk.domain.turns.output import Save
from aegis_sdk.domain.turns.work import Write

FoundCheckpoint = tuple[Checkpoint, float] | ValueError
"""A resource's newest checkpoint, and when it was stored (Unix time); or why it can't be read."""


class WriterLog(Protocol):
    """A service's log, as one writer stores to it."""

    on_stored: Callable[[Write, float], None]
    on_refused: Callable[[Write], None]
    on_taken: Callable[[Write], None]
    on_clashed: Callable[[Write], None]

    @property
    def outcome_bytes_max(self) -> int:
        """What one outcome may take, its reply and its change together."""

    @property
    def turn_bytes_max(self) -> int:
        """Beyond it a turn takes no further outcome."""

    async def open(self) -> None:
        """Raises: StoreUnreachable."""

    def close(self) -> None: ...

    def store(self, write: Write) -> bool:
        """Store a turn or a single under its gate, and tell what became of it, however many tries it takes.

        Returns whether the log itself answers its one caller.
        """

    def push(self) -> None:
        """All that was stored and answered so far is under way now."""

    def forget_unanswered(self) -> list[Write]:
        """Nothing more is told of these."""

    async def gate(self, writer: str) -> int:
        """A new gate of anybody: its sequence. Raises: StoreError."""

    async def claim(self, nonce: str) -> int:
        """Raises: StoreError."""

    async def prove(self, gate: int) -> None:
        """The log takes something under this writer's gate: at that moment nobody had shut it out.

        Raises: GateRefused: somebody has; StoreError: nobody knows.
        """

    async def save(self, save: Save) -> None:
        """Store a checkpoint under its gate, by one try.

        Raises: GateRefused, StoreTooLarge: it is not stored; StoreError: nobody knows.
        """

    async def begins(self, request_id: str) -> int:
        """Of a group's request, how many are noted. Raises: StoreError."""

    async def note_begin(self, request_id: str, n: int) -> None:
        """With this one there are so many. Raises: StoreError."""

    async def find_of_group(self, request_id: str) -> Outcome | None:
        """The outcome of a group's request, if it has one now. Raises: StoreError."""

    async def find_all(self, request_ids: Collection[str], *, to_seq: int) -> dict[str, Outcome]:
        """The outcomes of these among what stands in the log up to the entry at `to_seq`. Raises: StoreError."""


class Sent(Protocol):
    """Requests as they are sent to the resources served here."""

    on_request: Callable[[Request, float, int], None]
    on_cancel: Callable[[str], None]
    on_asked: Callable[[str], bool]
    """Whether a group's request is in hand here."""

    def serve(self, resources: Iterable[str]) -> None:
        """Raises: StoreUnreachable, when the connection is closed."""

    def serve_group(self, instance_id: str) -> None:
        """Raises: StoreUnreachable, when the connection is closed."""

    def leave(self, resources: Iterable[str]) -> None: ...

    async def has_in_hand(self, instance_id: str, request_id: str) -> bool | None:
        """Whether that member has the group's request in hand; None when it does not say."""

    def leave_all(self) -> None: ...

    async def settle(self) -> None:
        """Return when nothing comes any more of what was left, or soon."""

    def announce(self, instance_id: str, resources: Collection[str]) -> None:
        """Tell callers that these are served here from now on. It may not reach them."""

    def answer(self, request_id: str, outcome: Outcome) -> None: ...

    def refuse(self, request_id: str, answer: Answer) -> None: ...


class Tap(Protocol):
    """Is told what an instance reads in the log, when that is folded."""

    def folded(self, entry: Entry) -> None: ...

    def not_folded(self, seq: int, why: str, words: Sequence[str]) -> None:
        """The entry at `seq`, with these words as its subject, can't be read."""


class CallsOut(Protocol):
    """A caller's requests on their way out, and what comes back."""

    on_outcome: Callable[[str, Outcome], None]
    on_answer: Callable[[str, Answer], None]
    on_served: Callable[[str, str, Collection[str]], None]
    """Of a service that was called: which instance serves which resources from now on."""

    def send(self, request: Request, *, sent_s: float, after: int, member: str) -> None:
        """To its resource's active; a group request to `member`, or to nobody. Raises: StoreTooLarge, StoreUnreachable."""

    def cancel(self, request: Request, *, member: str) -> None:
        """Raises: StoreUnreachable."""

    async def expect(self, request_id: str) -> None:
        """Hear answers to a request whose id is not this client's, until `forget`. Raises: StoreUnreachable."""

    def forget(self, request_id: str) -> None: ...


class Outcomes(Protocol):
    """What the services' logs have, as callers look for it."""

    async def named(self, request: Request, *, anywhere: bool) -> Record | None:
        """The outcome that stands under the request's own name, with its request; by one read.

        `anywhere`: whatever the resource. One that can't be read here is `unreadable`. Raises: StoreError.
        """

    async def anywhere(self, request: Request, *, timeout_s: float) -> Outcome | None:
        """Also one that shares a turn with others: the headers of all entries are read. Raises: StoreError."""

    async def children(self, service: str, parent_token: str) -> list[str]:
        """Ids of the requests with an outcome that one handler made: `parent_token` is their first token. Raises: StoreError."""


class LastWord(Protocol):
    """What became of requests that nobody answers for (R6)."""

    async def settle(
        self, service: str, requests: Sequence[Request], *, open_s: float, stored: bool
    ) -> dict[str, Outcome]:
        """Of `requests`, those that have an outcome; the others can never take effect.

        `open_s`: how long ago the first of them was sent. `stored`: one of them may be, now or later. Raises: StoreError, when nothing is known.
        """
