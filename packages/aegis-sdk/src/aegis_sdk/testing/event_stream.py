"""A service's stream of events, as a server keeps it, in memory: each under a name that takes one message.

A second one of a name is left out without an error, which is what the appenders make of the server's refusal. It is never full.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from aegis_sdk.contract.turns.events import Emitted
from aegis_sdk.testing.streams import Limits


@dataclass(frozen=True, slots=True)
class StoredEvent:
    seq: int
    emitted: Emitted
    at_s: float


class EventStream:
    """`listeners` are called after each write."""

    def __init__(self, limits: Limits) -> None:
        self.listeners: list[Callable[[], None]] = []
        self._limits = limits
        self._stored: list[StoredEvent] = []
        self._ids: set[str] = set()

    @property
    def last_seq(self) -> int:
        return len(self._stored)

    def append(self, emitted: Emitted) -> None:
        """Unless it is there. Raises: StoreTooLarge."""
        self._limits.check_size(emitted.headers(), emitted.payload)
        if emitted.id in self._ids:
            return
        self._ids.add(emitted.id)
        self._stored.append(StoredEvent(self.last_seq + 1, emitted, time.time()))
        for listener in list(self.listeners):
            listener()

    def at(self, seq: int) -> StoredEvent:
        return self._stored[seq - 1]

    def all(self) -> list[StoredEvent]:
        return list(self._stored)
