"""Lets handlers run side by side, but a suspect of killing its process alone, so that one is blamed.

While a suspect waits for quiet, nested requests still pass: a handler that runs may wait for one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Shared by all of an instance's handlers.

    Beside others: `await gate.admitted(id)`, then `with gate:`. A suspect: `async with gate.alone(id):`.
    """

    def __init__(self) -> None:
        self._running = 0
        self._alone_id = ""
        self._is_alone = False
        self._lock = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def admitted(self, request_id: str) -> None:
        """Wait until a request may run beside others."""
        if not self.admits(request_id):
            async with self._lock:
                pass

    def admits(self, request_id: str) -> bool:
        """Whether it may run beside others now."""
        if not self._alone_id:
            return True
        if self._is_alone:
            return request_id.startswith(self._alone_id.replace(".", "~", 1))  # the suspect's own
        return "~" in request_id

    def __enter__(self) -> None:
        self._running += 1
        self._quiet.clear()

    def __exit__(self, *_: object) -> None:
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
                self._is_alone = True
                yield
            finally:
                self._alone_id, self._is_alone = "", False
