"""The machine's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """A `Clock`."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
