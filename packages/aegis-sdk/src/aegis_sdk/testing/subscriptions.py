"""EventsIn and Positions (application/turns/relaying.py) on the bus.

There is one stream of events for each service, which is never replaced: `is_doubted` is never true here, and a position
always means something. What remains to be tried is what relays do: order, credit, lost stores, positions that are late, two
relays at once.
"""

from __future__ import annotations

from collections.abc import Callable

from aegis_sdk.application.ports import AlreadyStored
from aegis_sdk.application.turns.relaying import Came, StreamSight
from aegis_sdk.contract.control import SubscriptionRecord
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.event_stream import EventStream
from aegis_sdk.testing.faults import Flow, Op
from aegis_sdk.testing.turns import Pump

CREDIT = 512
"""As on NATS (infrastructure/subscriptions.py)."""


class MemoryEventsIn:
    def __init__(self, link: MemoryConnection) -> None:
        self._link = link

    async def look(self, service: str) -> StreamSight:
        return await self._link.call(
            Op.READ, lambda: StreamSight("1", self._link.bus.events(service).last_seq)
        )

    async def since(self, service: str, at_s: float) -> int:
        def read() -> int:
            stream = self._link.bus.events(service)
            later = (stored.seq for stored in stream.all() if stored.at_s >= at_s)
            return next(later, stream.last_seq + 1) - 1

        return await self._link.call(Op.READ, read)

    async def name_at(self, service: str, seq: int) -> str:
        return await self._link.call(
            Op.READ, lambda: self._link.bus.events(service).at(seq).emitted.id
        )

    def reader(
        self, service: str, event: str, on_event: Callable[[Came], None]
    ) -> MemoryEventReader:
        return MemoryEventReader(self._link, self._link.bus.events(service), event, on_event)


class MemoryEventReader(Pump):
    """In order, within its credit."""

    flow = Flow.DELIVERIES
    is_doubted = False

    def __init__(
        self,
        link: MemoryConnection,
        stream: EventStream,
        event: str,
        on_event: Callable[[Came], None],
    ) -> None:
        super().__init__(link, stream.listeners)
        self._stream = stream
        self._event = event
        self._on_event = on_event
        self._held = 0

    @property
    def lag_entries(self) -> int:
        return 0 if self._held >= CREDIT else self._stream.last_seq - self.position

    def finished(self) -> None:
        self._held -= 1
        self._wake()

    def _give(self, seq: int) -> None:
        stored = self._stream.at(seq)
        if stored.emitted.event == self._event:
            self._held += 1
            emitted = stored.emitted
            self._on_event(Came(seq, emitted.id, stored.at_s, emitted.payload, emitted.traceparent))


class MemoryPositions:
    """What is in it stands in `MemoryServer.positions`, by (service, `<service>.<event>`)."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link

    async def load(self, service: str, takes: str) -> tuple[SubscriptionRecord | None, int]:
        def read() -> tuple[SubscriptionRecord | None, int]:
            found = self._link.bus.positions.get((service, takes))
            return (None, 0) if found is None else (found[0].model_copy(), found[1])

        return await self._link.call(Op.READ, read)

    async def save(self, record: SubscriptionRecord, revision: int) -> int:
        def write() -> int:
            key, positions = (record.service, record.takes), self._link.bus.positions
            if (known := positions[key][1] if key in positions else 0) != revision:
                raise AlreadyStored("wrong last sequence")
            positions[key] = record.model_copy(), known + 1
            return known + 1

        return await self._link.call(Op.POSITION, write)
