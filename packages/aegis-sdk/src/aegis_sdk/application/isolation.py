"""Lets handlers run side by side, but a suspect of killing its process alone, so that one is blamed.

While a suspect waits for quiet, nested requests still pass: a handler that runs may wait for one of them. Both
the quiet and the time alone are bounded: a handler that hangs must not shut the others out for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from aegis_sdk.application.place import NOTHING, Holder

QUIET_S_MAX: Final = 10.0
"""How long a suspect waits for what runs; then it runs beside that."""
ALONE_S_MAX: Final = 10.0
"""How long others wait for a suspect that runs: what kills its process does so sooner, or hangs."""


class Isolation:
    """Shared by all of an instance's handlers.

    Beside others: `await isolation.admitted(id)`, then `with isolation:`. A suspect: `async with isolation.alone(id):`. Who waits
    here gives its `credit` back meanwhile: the suspect may wait for a request that is behind.
    """

    def __init__(self) -> None:
        self._running = 0
        self._alone_id = ""
        self._is_alone = False
        self._lock = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def admitted(self, request_id: str, credit: Holder = NOTHING) -> None:
        """Wait until a request may run beside others."""
        if self.admits(request_id):
            return
        credit.leave()
        try:
            async with self._lock:
                pass
        finally:
            credit.come_back()

    def admits(self, request_id: str) -> bool:
        """Whether it may run beside others now."""
        if not self._alone_id:
            return True
        if self._is_alone:
            return request_id.startswith(self._alone_id.replace(".", "~", 1))  # the suspect's own
        return "~" in request_id

    def begun(self) -> None:
        """One more runs."""
        self._running += 1
        self._quiet.clear()

    def ended(self) -> None:
        self._running -= 1
        if not self._running:
            self._quiet.set()

    def __enter__(self) -> None:
        self.begun()

    def __exit__(self, *_: object) -> None:
        self.ended()

    @asynccontextmanager
    async def alone(self, request_id: str, credit: Holder = NOTHING) -> AsyncIterator[None]:
        """Wait until nothing else runs, then run; others wait."""
        credit.leave()
        try:
            await self._lock.acquire()
            self._alone_id = request_id
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET_S_MAX):
                    await self._quiet.wait()
        except BaseException:
            self._let_in(request_id)
            raise
        finally:
            credit.come_back()
        self._is_alone = True
        timer = asyncio.get_running_loop().call_later(ALONE_S_MAX, self._let_in, request_id)
        try:
            yield
        finally:
            timer.cancel()
            self._let_in(request_id)

    def _let_in(self, request_id: str) -> None:
        """The suspect had its time."""
        if self._alone_id == request_id:
            self._alone_id, self._is_alone = "", False
            self._lock.release()
