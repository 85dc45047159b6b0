"""A bound on work: how many do it at the same time, and how many may wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

WAITING_MAX: Final = 8


class Busy(Exception):
    """As many wait as may: nothing was begun."""


class Turnstile:
    """One works at a time, and the loop has a turn before each: heartbeats never wait for two of them."""

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        self._inside_max = 1 + waiting_max
        self._inside = 0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Raises: Busy."""
        if self._inside >= self._inside_max:
            raise Busy
        self._inside += 1
        try:
            async with self._turn:
                await asyncio.sleep(0)
                yield
        finally:
            self._inside -= 1
