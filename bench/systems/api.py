"""What a measured system is to the suite: how it serves, how it is called, what it promises.

Each system gives the same work (bench.model) in the way its own documentation makes fastest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from bench.model import Book, Fill, Lookup, Op, Position

CALL_TIMEOUT_S = 10.0
"""Long beside any latency here: a request without an outcome by then counts as lost."""


class Refused(Exception):
    """The system says that the request certainly had no effect."""


class Client(Protocol):
    """The caller's side of a system."""

    async def call(self, op: Op, request: Fill | Lookup) -> Position:
        """The reply.

        Raises:
            Refused: certainly without effect.
            Exception: anything else leaves the outcome unknown.
        """
        ...


class Served(Protocol):
    """The instance's side while it serves."""

    @property
    def address(self) -> str:
        """Where callers find it; empty when the broker knows."""
        ...

    @property
    def orders(self) -> Position:
        """Count, sum and digest of the group orders that this instance executed."""
        ...


@dataclass(slots=True)
class Serving:
    """A Served around a Book."""

    book: Book = field(default_factory=Book)
    address: str = ""

    @property
    def orders(self) -> Position:
        return self.book.orders


@dataclass(frozen=True, slots=True)
class InstanceSetup:
    """What an instance process is told. `accounts` are those that it owns."""

    url: str
    index: int
    accounts: list[str]


@dataclass(frozen=True, slots=True)
class CallerSetup:
    """What a caller process is told. `owners` maps each account to its instance's index."""

    url: str
    index: int
    owners: dict[str, int]
    addresses: list[str]


@dataclass(frozen=True, slots=True)
class System:
    """One entry of the comparison. `promises` is what a reader must know beside the speed."""

    name: str
    promises: str
    serve: Callable[[InstanceSetup], AbstractAsyncContextManager[Served]]
    connect: Callable[[CallerSetup], AbstractAsyncContextManager[Client]]
    uses_nats: bool = True
    uses_control: bool = False
    prepare: Callable[[str, int], Awaitable[None]] | None = None
    """Makes streams (and so many copies of them) and the like, once, before any instance."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """How it is tuned, for the report."""
