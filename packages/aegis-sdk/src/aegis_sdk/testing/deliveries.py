"""Deliveries (application/ports.py) on the bus: readers of the group, and of grants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aegis_sdk.application.ports import Delivery
from aegis_sdk.contract.envelope import Request
from aegis_sdk.domain.delivery import Arrival
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.faults import Fault, Flow, Op
from aegis_sdk.testing.groups import GroupConsumer
from aegis_sdk.testing.requests import MemoryRequestLog
from aegis_sdk.testing.streams import RequestStream


class MemoryDeliveries:
    """Opens readers over one link."""

    def __init__(self, link: MemoryConnection, requests: MemoryRequestLog) -> None:
        self._link = link
        self._requests = requests

    async def open_group(
        self, service: str, *, credit: int, on_delivery: Callable[[Delivery], None]
    ) -> GroupReader:
        reader = GroupReader(self._link, self._link.bus.group(service), credit, on_delivery)
        reader.start()
        return reader

    async def open_grant(
        self,
        service: str,
        grant: str,
        resources: Sequence[str],
        *,
        start_seq: int,
        on_delivery: Callable[[Delivery], None],
        on_restart: Callable[[], None],
    ) -> GrantReader:
        reader = GrantReader(
            self._link,
            self._link.bus.requests(service),
            grant=grant,
            resources=frozenset(resources),
            start_seq=start_seq,
            on_delivery=on_delivery,
            on_restart=on_restart,
        )
        reader.start()
        return reader

    async def read(self, service: str, seq: int) -> Request | None:
        return await self._requests.read(service, seq)


class GroupReader:
    """DeliverySource: one instance's share of the group."""

    def __init__(
        self,
        link: MemoryConnection,
        consumer: GroupConsumer,
        credit: int,
        on_delivery: Callable[[Delivery], None],
    ) -> None:
        self._link = link
        self._consumer = consumer
        self._credit = credit
        self._on_delivery = on_delivery
        self._held = 0
        self._stream = consumer._stream

    @property
    def is_free(self) -> bool:
        return self._held < self._credit and self._link.lets(Flow.DELIVERIES)

    def start(self) -> None:
        self._consumer.join(self)
        self._link.add_pump(Flow.DELIVERIES, self._consumer.wake)

    def give(self, seq: int, delivered: int) -> None:
        request = self._stream.get(seq)
        assert request is not None  # a consumer deals what is stored
        self._held += 1
        link, consumer = self._link, self._consumer

        def ack() -> None:
            if link.reachable:
                consumer.ack(seq)

        def extend() -> None:
            if link.reachable:
                consumer.extend(seq)

        def hand_back(delay_s: float) -> None:
            if link.reachable:
                consumer.hand_back(seq, delay_s)

        arrival = Arrival(seq, delivered, suspect=False)
        self._on_delivery(Delivery(request, arrival, "", ack, extend, hand_back))

    def finished(self) -> None:
        self._held = max(0, self._held - 1)
        self._consumer.wake()

    def resumed(self) -> None:
        self._held += 1

    async def retire(self) -> None:
        await self.stop()  # in memory nothing is ever on its way

    async def stop(self) -> None:
        self._consumer.leave(self)
        self._link.drop_pump(Flow.DELIVERIES, self._consumer.wake)


class GrantReader:
    """DeliverySource: the requests of a grant's resources in order; all again after any doubt."""

    def __init__(
        self,
        link: MemoryConnection,
        stream: RequestStream,
        *,
        grant: str,
        resources: frozenset[str],
        start_seq: int,
        on_delivery: Callable[[Delivery], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._link = link
        self._stream = stream
        self._grant = grant
        self._resources = resources
        self._on_delivery = on_delivery
        self._on_restart = on_restart
        self._next_seq = max(1, start_seq)
        self._suspect_to = stream.last_seq
        self._unacked: set[int] = set()
        self._stopped = False

    def start(self) -> None:
        self._stream.listeners.append(self._wake)
        self._link.add_pump(Flow.DELIVERIES, self._wake)
        self._link.on_restored.append(self.restart)
        self._wake()

    @property
    def ack_floor(self) -> int:
        """Every request of the grant up to this sequence is acknowledged."""
        return min(self._unacked) - 1 if self._unacked else self._next_seq - 1

    def restart(self) -> None:
        """Deliver everything from the ack floor on again."""
        self._on_restart()
        self._next_seq = self.ack_floor + 1
        self._unacked.clear()
        self._wake()

    async def retire(self) -> None:
        await self.stop()

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._stream.listeners.remove(self._wake)
            self._link.drop_pump(Flow.DELIVERIES, self._wake)
            if self.restart in self._link.on_restored:
                self._link.on_restored.remove(self.restart)

    def _wake(self) -> None:
        self._link.bus.soon(self._pump)

    def _pump(self) -> None:
        while self._may_deliver():
            seq, request = self._next_seq, self._stream.get(self._next_seq)
            self._next_seq += 1
            if request is None or request.resource not in self._resources:
                continue
            self._unacked.add(seq)
            fault = self._link.bus.faults.draw(Op.DELIVERY)
            if fault is not Fault.LOST:
                self._on_delivery(self._delivery(seq))
            if fault is not None:
                self.restart()
                return
        self._stream.ack_floors[self._grant] = self.ack_floor

    def _may_deliver(self) -> bool:
        return (
            not self._stopped
            and self._link.lets(Flow.DELIVERIES)
            and self._next_seq <= self._stream.last_seq
        )

    def _delivery(self, seq: int) -> Delivery:
        request = self._stream.get(seq)
        assert request is not None

        def ack() -> None:
            if self._link.reachable:
                self._unacked.discard(seq)
                self._stream.ack_floors[self._grant] = self.ack_floor

        def nothing(*_: object) -> None:
            """A grant's requests are never taken from its one reader by time."""

        arrival = Arrival(seq, 1, suspect=seq <= self._suspect_to)
        return Delivery(request, arrival, self._grant, ack, nothing, nothing)
