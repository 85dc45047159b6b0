"""Deliveries (application/ports.py) on the bus.

What a member says of a request (`ack`, `extend`, `hand_back`) gets lost while its link is cut, without a word to it. The
consumer then deals the request again when its time is up, and the outcome that is stored by then answers for it (G2).
"""

from __future__ import annotations

from collections.abc import Callable

from aegis_sdk.application.ports import Delivery
from aegis_sdk.domain.delivery import Arrival
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.faults import Flow
from aegis_sdk.testing.groups import GroupConsumer


class MemoryDeliveries:
    """Opens readers over one link."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link

    async def open_group(
        self, service: str, *, credit: int, on_delivery: Callable[[Delivery], None]
    ) -> GroupReader:
        reader = GroupReader(self._link, self._link.bus.group(service), credit, on_delivery)
        reader.start()
        return reader


class GroupReader:
    """GroupSource: one instance's share of the group. `_held` counts what it has in hand; `resumed` may bring it above the
    credit.
    """

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
        self._on_delivery(Delivery(request, arrival, ack, extend, hand_back))

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
