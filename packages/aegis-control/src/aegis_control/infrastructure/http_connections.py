"""Connections have a bound on their number, and each request on its time.

Strangers may open connections and send nothing, or a byte now and then, or never read the answer. None of
that may cost control the file descriptors that it needs for NATS, nor keep probes and operators out. So:

- There are at most `connections_max`, far below the process's limit of open files.
- One more takes the place of the one that has kept us waiting longest. Only when all are being answered is the
  new one refused.
- A request is complete within `request_s` of the connection's start or of the answer before it, and
  answered and taken within `answer_s` from there. Then the connection is cut.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Final

from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

from aegis_control.infrastructure.seldom import Seldom

IDLE_S: Final = 5
"""How long a connection may wait between two requests."""
HEAD_BYTES_MAX: Final = 16_384
"""Of the request line and all headers."""
_SHARE: Final = 4
"""One in so many of the files that this process may open. The rest is for NATS, the disk, and bursts."""
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: 0\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Bounds:
    request_s: float = 10.0
    answer_s: float = 30.0
    connections_max: int = 128

    def within_limits(self) -> Bounds:
        """With as many connections as this process may have files for."""
        try:
            import resource
        except ImportError:  # Windows has no such limit
            return self
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self
        return replace(self, connections_max=max(4, min(self.connections_max, soft // _SHARE)))


BOUNDS: Final = Bounds()


class BoundedConnection(H11Protocol):
    """uvicorn's protocol, with these bounds. `bounded` makes a class of it for one server."""

    bounds: Bounds
    seldom: Seldom

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cutting: asyncio.TimerHandle | None = None
        self.since_s = self.loop.time()
        self._within(self.bounds.request_s)
        others = [
            one for one in self.connections if isinstance(one, BoundedConnection) and one.is_open
        ]
        if len(others) > self.bounds.connections_max:
            self._make_room([one for one in others if one.keeps_us_waiting and one is not self])

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
        super().connection_lost(exc)

    @property
    def is_open(self) -> bool:
        return not self.transport.is_closing()

    @property
    def keeps_us_waiting(self) -> bool:
        """It has not sent a whole request that is not answered yet."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._within(self.bounds.answer_s)

    def on_response_complete(self) -> None:
        self.since_s = self.loop.time()
        self._within(self.bounds.request_s)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self.seldom.warn("http_request_unreadable", client=self.client[0] if self.client else "")
        try:
            super().send_400_response(msg)
        except LocalProtocolError:  # an answer is under way already
            self.transport.abort()

    def _make_room(self, waiting: list[BoundedConnection]) -> None:
        client = self.client[0] if self.client else ""
        self.seldom.warn("http_connections_full", client=client, most=self.bounds.connections_max)
        if waiting:
            min(waiting, key=lambda one: one.since_s).transport.abort()
            return
        self.transport.write(_BUSY)
        self.transport.close()

    def _within(self, seconds: float) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
        self._cutting = self.loop.call_later(seconds, self.transport.abort)


def bounded(seldom: Seldom, bounds: Bounds) -> type[BoundedConnection]:
    """The protocol class of one server."""
    kept: dict[str, Any] = {"bounds": bounds.within_limits(), "seldom": seldom}
    return type("BoundedConnection", (BoundedConnection,), kept)
