"""The stream of requests that the bus keeps in memory: what a server stores and checks, and nothing of links.

Each write is atomic, as on a server: it is checked and stored in one step of the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aegis_sdk.application.ports import Accepted, StoreFull, StoreTooLarge
from aegis_sdk.contract.envelope import Request

DEDUP_WINDOW_S: Final = 120.0


@dataclass(slots=True)
class Limits:
    """The server's bounds; change them in a test as an operator would."""

    payload_bytes_max: int = 1 << 20
    requests_max: int | None = None
    """Requests a stream takes; more are refused (StoreFull)."""
    journal_max: int | None = None

    def check_size(self, headers: Mapping[str, str], payload: bytes) -> None:
        """Headers count, as on the server. Raises: StoreTooLarge."""
        lines = sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
        size = len(payload) + (lines + 12 if headers else 0)
        if size > self.payload_bytes_max:
            raise StoreTooLarge(f"{size} bytes are over max_payload ({self.payload_bytes_max})")


class RequestStream:
    """A service's requests. `listeners` are called after each new one."""

    def __init__(self, service: str, limits: Limits) -> None:
        self.service = service
        self.listeners: list[Callable[[], None]] = []
        self._limits = limits
        self._stored: list[Request] = []
        self._ids: dict[str, tuple[int, float]] = {}

    @property
    def last_seq(self) -> int:
        return len(self._stored)

    def append(self, request: Request, *, now_s: float) -> Accepted:
        """Raises: StoreFull, StoreTooLarge."""
        self._limits.check_size(request.headers(), request.payload)
        seq, seen_s = self._ids.get(request.request_id, (0, 0.0))
        if seq and now_s - seen_s < DEDUP_WINDOW_S:
            return Accepted(seq, duplicate=True)
        if self._limits.requests_max is not None and self.last_seq >= self._limits.requests_max:
            raise StoreFull("maximum messages exceeded")
        self._stored.append(self._as_stored(request))
        self._ids[request.request_id] = (self.last_seq, now_s)
        for listener in list(self.listeners):
            listener()
        return Accepted(self.last_seq, duplicate=False)

    def get(self, seq: int) -> Request | None:
        return self._stored[seq - 1] if 1 <= seq <= self.last_seq else None

    def forget_ids(self) -> None:
        """What a server that was killed may do: know no id of the dedup window any more."""
        self._ids.clear()

    def _as_stored(self, request: Request) -> Request:
        """Through its wire form, so that what the wire can't carry shows in tests too."""
        return Request.parse(
            request.headers(), request.payload, service=self.service, resource=request.resource
        )
