"""Which connections the NATS server saw closing: the last word of a process that died.

An instance names its two connections, `main` and `pulse`, in each heartbeat, as the server numbers them. When the server
has seen both of the last heartbeat close, the process is gone: no need to wait for heartbeats to stay away. One alone
proves nothing, and a connection that no heartbeat names is a stranger's, however it is called and whatever its account.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

KINDS: Final = frozenset({"main", "pulse"})

PROOFS: Final = ("Client Closed", "Read Error", "Write Error")
"""Reasons with which a dead process's sockets close. Others (a server that shuts down, a stale or slow
connection) say nothing about the process, and its heartbeats decide."""
CLOSED_MAX: Final = 10_000
"""Closings that are remembered, for a heartbeat that comes after them."""


def is_instances(name: str, prefix: str) -> bool:
    """Can a connection of this name be one of an instance?"""
    parts = name.split("/")
    return len(parts) == 4 and parts[0] == prefix and parts[3] in KINDS


@dataclass(slots=True)
class Connections:
    """The closings seen lately, by what the server calls the connection: no name comes twice."""

    _closed: dict[str, None] = field(default_factory=dict)

    def closed(self, session: str, reason: str) -> bool:
        """Take note; False when the reason says nothing about the process."""
        if not reason.startswith(PROOFS):
            return False
        self._closed[session] = None
        if len(self._closed) > CLOSED_MAX:
            del self._closed[next(iter(self._closed))]
        return True

    def have_closed(self, main: str, pulse: str) -> bool:
        """Both of them, as a heartbeat named them; one that names none can't tell."""
        return bool(main and pulse) and main in self._closed and pulse in self._closed
