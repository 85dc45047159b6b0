"""The group's consumer in memory: requests without a resource, dealt to the members in turn, and again after ack_wait.

It is the server's part alone. A request that was dealt is in hand until it is acknowledged, handed back, or its time is up;
each dealing counts, so that a member can tell a request that may have been begun before. Nothing says why an
acknowledgement did not come: a dead member, a lost message and a slow handler look the same, as on NATS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aegis_sdk.testing.clock import Clock, Timer
from aegis_sdk.testing.faults import Fault, Faults, Op
from aegis_sdk.testing.streams import RequestStream


class Member(Protocol):
    """Who is dealt requests."""

    @property
    def is_free(self) -> bool:
        """Its credit is not used up, and its link lets something through."""
        ...

    def give(self, seq: int, delivered: int) -> None:
        """The request at `seq`, for the `delivered`-th time (from 1)."""
        ...


class Dealer(Protocol):
    """What the consumer has of its server."""

    ack_wait_s: float
    clock: Clock
    faults: Faults

    def soon(self, work: Callable[[], None]) -> None: ...


@dataclass(slots=True)
class _InHand:
    """Delivered and not acknowledged; when the timer runs out it is dealt again."""

    delivered: int
    timer: Timer


class GroupConsumer:
    """The server's side: deals requests without resource to the readers in turn, within their credit.

    Invariant: a request that was stored is in one of three states: it waits (with how often it was dealt), is in hand, or is
    acknowledged and known nowhere. `_taken_to` is the last place that was looked at.
    """

    def __init__(self, server: Dealer, stream: RequestStream) -> None:
        self._server = server
        self._stream = stream
        self._taken_to = 0
        self._waiting: deque[tuple[int, int]] = deque()
        self._in_hand: dict[int, _InHand] = {}
        self._readers: deque[Member] = deque()
        stream.listeners.append(self.wake)

    def join(self, reader: Member) -> None:
        self._readers.append(reader)
        self.wake()

    def leave(self, reader: Member) -> None:
        """What it has in hand is dealt again after ack_wait."""
        if reader in self._readers:
            self._readers.remove(reader)

    def wake(self) -> None:
        self._server.soon(self._deal)

    def ack(self, seq: int) -> None:
        if (held := self._in_hand.pop(seq, None)) is not None:
            held.timer.cancel()

    def extend(self, seq: int) -> None:
        if (held := self._in_hand.get(seq)) is not None:
            held.timer.cancel()
            held.timer = self._timer(seq)

    def hand_back(self, seq: int, delay_s: float) -> None:
        if (held := self._in_hand.get(seq)) is not None:
            held.timer.cancel()
            held.timer = self._server.clock.call_later(delay_s, lambda: self._again(seq))

    def _timer(self, seq: int) -> Timer:
        return self._server.clock.call_later(self._server.ack_wait_s, lambda: self._again(seq))

    def _again(self, seq: int) -> None:
        held = self._in_hand.pop(seq)
        self._waiting.append((seq, held.delivered))
        self.wake()

    def _deal(self) -> None:
        """A lost delivery is in hand of nobody until its time is up. One that comes twice goes to the next member as well."""
        self._take_new()
        while self._waiting and (reader := self._next_reader()) is not None:
            seq, delivered = self._waiting.popleft()
            self._in_hand[seq] = _InHand(delivered + 1, self._timer(seq))
            fault = self._server.faults.draw(Op.DELIVERY)
            if fault is not Fault.LOST:
                reader.give(seq, delivered + 1)
            if fault is Fault.TWICE:
                self._in_hand.pop(seq).timer.cancel()
                self._waiting.append((seq, delivered + 1))

    def _take_new(self) -> None:
        for seq in range(self._taken_to + 1, self._stream.last_seq + 1):
            request = self._stream.get(seq)
            if request is not None and request.resource is None:
                self._waiting.append((seq, 0))
        self._taken_to = self._stream.last_seq

    def _next_reader(self) -> Member | None:
        for _ in range(len(self._readers)):
            self._readers.rotate(-1)
            if self._readers[-1].is_free:
                return self._readers[-1]
        return None
