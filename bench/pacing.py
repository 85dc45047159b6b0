"""Sends at the intended time: an alarm for the event loop that is exact to tens of microseconds.

Event loops round their timers to a millisecond, which an open-loop measurement would see as latency of
the measured system. On Linux a timerfd wakes the loop instead; elsewhere the loop's own timer has to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterator
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_TFD_NONBLOCK_CLOEXEC: Final = 0o4000 | 0o2000000
_TFD_TIMER_ABSTIME: Final = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class LoopAlarm:
    """The event loop's own timer: as exact as the loop, a millisecond or so."""

    async def until(self, deadline_s: float) -> None:
        """Return at `deadline_s` of time.monotonic() or a little later."""
        await asyncio.sleep(max(0.0, deadline_s - time.monotonic()))

    def close(self) -> None:
        """Nothing to close."""


class TimerFdAlarm:
    """A timerfd in the event loop; one waiter at a time."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._waiter: asyncio.Future[None] | None = None
        asyncio.get_running_loop().add_reader(self._fd, self._on_ready)

    async def until(self, deadline_s: float) -> None:
        """Return at `deadline_s` of time.monotonic() or a little later."""
        if deadline_s <= time.monotonic():
            return
        self._waiter = asyncio.get_running_loop().create_future()
        seconds, fraction = divmod(deadline_s, 1.0)
        spec = _TimerSpec(_Timespec(0, 0), _Timespec(int(seconds), int(fraction * 1e9)))
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._waiter

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _on_ready(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@contextlib.contextmanager
def alarm() -> Iterator[LoopAlarm | TimerFdAlarm]:
    """The most exact alarm that this system has. Call it inside a running loop."""
    chosen = TimerFdAlarm() if sys.platform == "linux" else LoopAlarm()
    try:
        yield chosen
    finally:
        chosen.close()
