"""Time that jumps: a test that waits for minutes ends in milliseconds, and always in the same order.

Theory of operation. While `virtual_time` is in force, time stands still as long as anything can run. When nothing can, it
jumps to the next timer of the event loop. The loop's own time, `time.time` and `time.monotonic` move together, so deadlines, sleeps,
retries and heartbeats all see the same time. While a thread is at work (a plain `def` handler, `asyncio.to_thread`), the loop waits
for it in real time: nobody knows how long it takes.

What stays real: `time.perf_counter`, `time.sleep` in a thread, and `datetime.now`, which asks the system itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from unittest.mock import patch

REAL_WAIT_S: Final = 0.01
"""How long the loop waits for threads before it looks again."""
LIMIT_S: Final = 3_600.0


@asynccontextmanager
async def virtual_time(
    *, busy: Callable[[], bool] = lambda: False, limit_s: float = LIMIT_S
) -> AsyncIterator[VirtualTime]:
    """For the running event loop, one of asyncio's own. `busy`: whether to wait in real time, as for threads.

    Raises: TimeoutError, when the block takes more than `limit_s` of virtual time; RuntimeError, for another kind of loop.
    """
    loop = asyncio.get_running_loop()
    selector = getattr(loop, "_selector", None)
    if selector is None:
        raise RuntimeError(
            f"virtual time needs asyncio's own event loop, not {type(loop).__name__}"
        )
    virtual = VirtualTime(loop, selector.select, busy)
    with (
        patch.object(loop, "time", virtual.loop_s),
        patch.object(selector, "select", virtual.select),
        patch.object(loop, "run_in_executor", virtual.counted(loop.run_in_executor)),
        patch.object(time, "time", virtual.unix_s),
        patch.object(time, "time_ns", lambda: int(virtual.unix_s() * 1e9)),
        patch.object(time, "monotonic", virtual.monotonic_s),
        patch.object(time, "monotonic_ns", lambda: int(virtual.monotonic_s() * 1e9)),
    ):
        async with asyncio.timeout(limit_s):
            yield virtual


class VirtualTime:
    """`elapsed_s` is what a test has passed so far, in virtual seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        select: Callable[[float | None], Any],
        busy: Callable[[], bool],
    ) -> None:
        self.elapsed_s = 0.0
        self._began = loop.time(), time.time(), time.monotonic()
        self._select = select
        self._busy = busy
        self._in_executors = 0

    def loop_s(self) -> float:
        """What the event loop takes for its time."""
        return self._began[0] + self.elapsed_s

    def unix_s(self) -> float:
        """What `time.time` says, in seconds since 1970."""
        return self._began[1] + self.elapsed_s

    def monotonic_s(self) -> float:
        """What `time.monotonic` says."""
        return self._began[2] + self.elapsed_s

    def select(self, timeout_s: float | None = None) -> Any:
        """The loop has nothing to run before its next timer: move on to that, unless something real comes."""
        if self._in_executors or self._busy():
            real_s = REAL_WAIT_S if timeout_s is None else min(timeout_s, REAL_WAIT_S)
            return self._select(real_s)
        events = self._select(0)
        if not events and timeout_s is None:
            return self._select(None)
        if not events:
            self.elapsed_s += max(0.0, timeout_s or 0.0)
        return events

    def counted(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run_in_executor`, with what is at work there counted."""

        def counting(*arguments: Any) -> Any:
            future = run(*arguments)
            self._in_executors += 1
            future.add_done_callback(self._is_done)
            return future

        return counting

    def _is_done(self, _: object) -> None:
        self._in_executors -= 1
