"""Which connections of an instance are open, told by the server's own events.

An instance has two, `main` and `pulse`. When the server has seen both close, and none open since, the
process is gone: no need to wait for heartbeats to stay away. One alone proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

KINDS: Final = frozenset({"main", "pulse"})

PROOFS: Final = ("Client Closed", "Read Error", "Write Error")
"""Reasons with which a dead process's sockets close. Others (a server that shuts down, a stale or slow
connection) say nothing about the process, and its heartbeats decide."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as the server names it: `kind` of instance `instance_id`."""

    service: str
    instance_id: str
    kind: str
    server: str
    number: int


def parse_name(name: str, prefix: str) -> tuple[str, str, str] | None:
    """(service, instance id, kind) of a connection name; None when it is not an instance's."""
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != prefix or parts[3] not in KINDS:
        return None
    return parts[1], parts[2], parts[3]


@dataclass(slots=True)
class Connections:
    """The open and the closed connections of every instance seen since the last `forget`."""

    _open: dict[tuple[str, str, str], set[tuple[str, int]]] = field(default_factory=dict)
    _closed: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def opened(self, one: Connection) -> None:
        self._open.setdefault(_key(one), set()).add((one.server, one.number))
        self._closed.get((one.service, one.instance_id), set()).discard(one.kind)

    def closed(self, one: Connection, reason: str) -> bool:
        """Take note; True when this was the last sign of the process."""
        still_open = self._open.get(_key(one), set())
        still_open.discard((one.server, one.number))
        # A client that reconnected elsewhere may be seen there before the old server sees it go.
        if still_open or not reason.startswith(PROOFS):
            return False
        self._open.pop(_key(one), None)
        self._closed.setdefault((one.service, one.instance_id), set()).add(one.kind)
        return self.is_closed(one.service, one.instance_id)

    def is_closed(self, service: str, instance_id: str) -> bool:
        """Have both connections been seen closing?"""
        return self._closed.get((service, instance_id), set()) == KINDS

    def forget(self) -> None:
        """Events were missed: nothing is known any more."""
        self._open.clear()
        self._closed.clear()


def _key(one: Connection) -> tuple[str, str, str]:
    return one.service, one.instance_id, one.kind
