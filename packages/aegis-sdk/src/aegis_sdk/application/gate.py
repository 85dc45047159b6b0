"""Lets handlers run side by side, but a suspect of killing its process alone, so that one is blamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Shared by all of an instance's handlers."""

    def __init__(self) -> None:
        self._running = 0
        self._alone_id = ""
        self._lock = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()

    @asynccontextmanager
    async def shared(self, request_id: str) -> AsyncIterator[None]:
        """Run beside others; waits while a suspect runs, unless this request is the suspect's own."""
        if self._alone_id and not request_id.startswith(self._alone_id.replace(".", "~", 1)):
            async with self._lock:
                pass
        self._running += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._quiet.set()

    @asynccontextmanager
    async def alone(self, request_id: str) -> AsyncIterator[None]:
        """Wait until nothing else runs, then run; others wait."""
        async with self._lock:
            self._alone_id = request_id
            try:
                await self._quiet.wait()
                yield
            finally:
                self._alone_id = ""
