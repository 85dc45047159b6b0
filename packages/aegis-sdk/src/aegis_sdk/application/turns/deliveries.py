"""The group's stored requests in hand: the broker gave them to this instance, and is told that it lives.

Each is extended until it is acknowledged or handed back. One that this process no longer extends is given to another
instance. Credit is for handlers at work: one that waits for an answer gives its credit back meanwhile (place.py), so that
the request it waits for is read, whatever is before it in the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aegis_sdk.application.ports import Delivery, GroupSource
from aegis_sdk.contract.ids import is_nested
from aegis_sdk.telemetry import about, log

CREDIT: Final = 16
"""Requests at work at once. A paused instance delays these by one ack_wait, and those whose handlers wait."""
AWAY_MAX: Final = 1000
"""Clients' requests whose handlers wait for others or hang."""
LACKING_DELAY_S: Final = 0.5
"""For another version's instance, which has the method that this one lacks."""
PAUSED_DELAY_S: Final = 1.0
"""How long one that waits until it is resumed stays with the broker: it comes again as often."""
AWAY_DELAY_S: Final = 2.0
"""What is handed back beyond that passes through here as often: the broker has no way to send others first."""
SOON_S: Final = 0.02
"""A bare negative acknowledgement burns the delivery count in milliseconds."""
EXTEND_S_MAX: Final = 3600.0
"""The hard stop: a handler that runs longer is taken for hung, and its request goes elsewhere."""


class Deliveries:
    """Of one instance. `ack_wait_s` is the consumer's."""

    def __init__(self, *, ack_wait_s: float = 1.0) -> None:
        self._ack_wait_s = ack_wait_s
        self._in_hand: dict[str, tuple[Delivery, float]] = {}
        self._source: GroupSource | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, source: GroupSource) -> None:
        self._source = source
        self._look_later()

    async def retire(self) -> None:
        """Ask for nothing more; what is on its way still comes."""
        if self._source is not None:
            await self._source.retire()

    async def stop(self) -> None:
        """At once: what is in hand is delivered elsewhere after ack_wait."""
        if self._timer is not None:
            self._timer.cancel()
        source, self._source = self._source, None
        if source is not None:
            await source.stop()

    def take(self, delivery: Delivery) -> bool:
        """Whether it is new here: else its run blocked the loop, and nothing extended it."""
        request_id = delivery.request.request_id
        if request_id in self._in_hand:
            self.hand_back(delivery, self._ack_wait_s)
            return False
        self._in_hand[request_id] = delivery, time.monotonic()
        return True

    def hand_back(self, delivery: Delivery, delay_s: float) -> None:
        delivery.hand_back(delay_s)
        self.credit_back()

    def acknowledge(self, request_id: str) -> None:
        """Its outcome is stored, and all is sent that it hands in."""
        if (found := self._in_hand.pop(request_id, None)) is not None:
            found[0].ack()
            self.credit_back()

    def give_up(self, request_id: str, *, later: bool = False) -> bool:
        """It is not served here; whether it was in hand. `later`: it may have ended elsewhere when it comes again."""
        found = self._in_hand.pop(request_id, None)
        if found is not None:
            self.hand_back(found[0], self._ack_wait_s if later else SOON_S)
        return found is not None

    def give_up_all(self) -> None:
        for request_id in list(self._in_hand):
            self.give_up(request_id)

    def credit_back(self) -> None:
        if self._source is not None:
            self._source.finished()

    def credit_taken(self) -> None:
        if self._source is not None:
            self._source.resumed()

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._in_hand

    def __len__(self) -> int:
        return len(self._in_hand)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._ack_wait_s / 3, self._extend)

    def _extend(self) -> None:
        """Thrice in an ack_wait, whatever becomes of one."""
        self._look_later()
        now_s = time.monotonic()
        for delivery, since_s in list(self._in_hand.values()):
            if now_s - since_s < EXTEND_S_MAX:
                try:
                    delivery.extend()
                except Exception:
                    log.exception("request_not_extended", **about(delivery.request))


class GroupPlace:
    """What a run of a group's request holds: the Holder of its place (place.py)."""

    __slots__ = ("_counts", "_deliveries", "_is_away", "_is_delivered", "_moved")

    def __init__(
        self, deliveries: Deliveries, request_id: str, *, moved: Callable[[int, int], None]
    ) -> None:
        """`moved` is told how many more run now, and how many more clients' requests wait."""
        self._deliveries = deliveries
        self._is_delivered = request_id in deliveries
        self._counts = int(not is_nested(request_id))
        self._moved = moved
        self._is_away = False

    def leave(self) -> None:
        self._is_away = True
        if self._is_delivered:
            self._deliveries.credit_back()
        self._moved(-1, self._counts)

    def come_back(self) -> None:
        self._is_away = False
        if self._is_delivered:
            self._deliveries.credit_taken()
        self._moved(1, -self._counts)

    def end(self) -> None:
        if self._is_away:
            self.come_back()
