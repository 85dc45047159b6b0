"""The bus's time: the event loop's, or one that stands still until a test moves it on."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the bus needs of time: how long ids are remembered, redelivery and delays."""

    def now_s(self) -> float:
        """Seconds since some moment; it never goes back."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call once, so many seconds from now, unless the timer is cancelled before."""
        ...


class LoopClock:
    """The running event loop's time."""

    def now_s(self) -> float:
        """The running loop's own time."""
        return asyncio.get_running_loop().time()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """A timer of the running loop."""
        return asyncio.get_running_loop().call_later(delay_s, callback)


class ManualClock:
    """Time that stands still. `advance` runs what falls due, in order.

    It is the bus's time only: deadlines of requests and the SDK's own retries go by the real clock.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._numbers = itertools.count()
        self._timers: list[tuple[float, int, _ManualTimer]] = []

    def now_s(self) -> float:
        """Seconds that the test has let pass."""
        return self._now_s

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """It is due when the test has let so much time pass; of two that are due, the earlier one is called first."""
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (self._now_s + delay_s, next(self._numbers), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move time on by `seconds`, and run every timer that falls due on the way."""
        end_s = self._now_s + seconds
        while self._timers and self._timers[0][0] <= end_s:
            self._now_s, _, timer = heapq.heappop(self._timers)
            timer.run()
        self._now_s = end_s


class _ManualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def run(self) -> None:
        if self._callback is not None:
            self._callback()
