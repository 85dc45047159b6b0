"""The bus in memory, and links to it: each client of a test has its own, which can be cut or held up.

One bus is one environment: a NATS server with its streams, and control. Its faults hit all links; a link's own are `cut`
and `hold`. `ack_wait_s` is how long a group request may be in hand without a word.
"""

from __future__ import annotations

from aegis_sdk.testing.clock import Clock
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.control import MemoryControl, MemoryControlPort
from aegis_sdk.testing.deliveries import MemoryDeliveries
from aegis_sdk.testing.directory import MemoryDirectory
from aegis_sdk.testing.events import event_appender, request_appender
from aegis_sdk.testing.faults import Faults
from aegis_sdk.testing.requests import MemoryLetters, MemoryRequestLog
from aegis_sdk.testing.server import MemoryServer
from aegis_sdk.testing.turns import MemoryCalls, MemoryLastWord, MemoryOutcomes


class MemoryBus(MemoryServer):
    """Streams, registry and control of one environment. `link` connects a client to it."""

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        clock: Clock | None = None,
        ack_wait_s: float = 1.0,
    ) -> None:
        super().__init__(faults=faults, clock=clock, ack_wait_s=ack_wait_s)
        self.control = MemoryControl(self)
        self.links: list[MemoryLink] = []

    def link(self, name: str = "client") -> MemoryLink:
        """A new connection; `name` is for messages only."""
        link = MemoryLink(self, name)
        self.links.append(link)
        self.on_outcome.append(link.calls.hear)
        self.callers.append(link.calls)
        return link


class MemoryLink(MemoryConnection):
    """One client's connection, with the SDK's ports over it: what `Link` and its adapters are on NATS.

    It is listed at its bus until `close`, by which it hears outcomes. An instance's further ports are made for its service
    (harness.py).
    """

    bus: MemoryBus

    def __init__(self, bus: MemoryBus, name: str) -> None:
        super().__init__(bus, name)
        self.requests = MemoryRequestLog(self)
        self.letters = MemoryLetters(self)
        self.events = event_appender(self)
        self.event_requests = request_appender(self)
        self.calls = MemoryCalls(self)
        self.outcomes = MemoryOutcomes(self)
        self.last_word = MemoryLastWord(self)
        self.directory = MemoryDirectory(self, bus.control)
        self.deliveries = MemoryDeliveries(self)
        self.control = MemoryControlPort(self, bus.control)

    def close(self) -> None:
        super().close()
        if self in self.bus.links:
            self.bus.links.remove(self)
            self.bus.on_outcome.remove(self.calls.hear)
            self.bus.callers.remove(self.calls)
