"""Connections have a bound on their number, and each request on its time.

Strangers may open connections and send nothing, or a byte now and then, or never read the answer. None of
that may cost control the file descriptors that it needs for NATS, nor keep probes and operators out. So:

- There are at most `connections_max()`, far below the process's limit of open files.
- One more takes the place of the one that has kept us waiting longest. Only when all are being answered is the
  new one refused.
- A request is complete within `REQUEST_S` of the connection's start or of the answer before it, and
  answered and taken within `ANSWER_S` from there. Then the connection is cut.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

from aegis_control.infrastructure.seldom import Seldom

REQUEST_S: Final = 10.0
ANSWER_S: Final = 30.0
IDLE_S: Final = 5
"""How long a connection may wait between two requests."""
HEAD_BYTES_MAX: Final = 16_384
"""Of the request line and all headers."""
_CONNECTIONS_MAX: Final = 128
_SHARE: Final = 4
"""One in so many of the files that this process may open. The rest is for NATS, the disk, and bursts."""
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: 0\r\n\r\n"
)


def connections_max() -> int:
    return max(4, min(_CONNECTIONS_MAX, _open_files_max() // _SHARE))


def _open_files_max() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _CONNECTIONS_MAX * _SHARE
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS_MAX * _SHARE if soft == resource.RLIM_INFINITY else soft


class Connection(H11Protocol):
    """uvicorn's protocol, with these bounds. `bounded` makes a class of it for one server."""

    connections_max: int
    seldom: Seldom

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cutting: asyncio.TimerHandle | None = None
        self.since_s = self.loop.time()
        self._within(REQUEST_S)
        others = [one for one in self.connections if isinstance(one, Connection) and one.is_open]
        if len(others) > self.connections_max:
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
            self._within(ANSWER_S)

    def on_response_complete(self) -> None:
        self.since_s = self.loop.time()
        self._within(REQUEST_S)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self.seldom.warn("http_request_unreadable", client=self.client[0] if self.client else "")
        try:
            super().send_400_response(msg)
        except LocalProtocolError:  # an answer is under way already
            self.transport.abort()

    def _make_room(self, waiting: list[Connection]) -> None:
        client = self.client[0] if self.client else ""
        self.seldom.warn("http_connections_full", client=client, most=self.connections_max)
        if waiting:
            min(waiting, key=lambda one: one.since_s).transport.abort()
            return
        self.transport.write(_BUSY)
        self.transport.close()

    def _within(self, seconds: float) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
        self._cutting = self.loop.call_later(seconds, self.transport.abort)


def bounded(seldom: Seldom) -> type[Connection]:
    """The protocol class of one server."""
    kept: dict[str, Any] = {"connections_max": connections_max(), "seldom": seldom}
    return type("BoundedConnection", (Connection,), kept)
