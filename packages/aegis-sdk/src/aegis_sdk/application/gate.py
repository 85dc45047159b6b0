"""Lets handlers run side by side, but a suspect of killing its process alone, so that one is blamed."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Gate:
    """Shared by all of an instance's handlers: `async with gate.shared(id)` or `gate.alone(id)`."""

    def __init__(self) -> None:
        self._running = 0
        self._alone_id = ""
        self._lock = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def shared(self, request_id: str) -> _Shared:
        """Run beside others; waits while a suspect runs, unless this request is the suspect's own."""
        return _Shared(self, request_id)

    def alone(self, request_id: str) -> _Alone:
        """Wait until nothing else runs, then run; others wait."""
        return _Alone(self, request_id)


class _Shared:
    # Every request passes here: a generator-based context manager costs as much as the header's parse.
    __slots__ = ("_gate", "_request_id")

    def __init__(self, gate: Gate, request_id: str) -> None:
        self._gate = gate
        self._request_id = request_id

    async def __aenter__(self) -> None:
        gate = self._gate
        if gate._alone_id and not self._is_nested_in(gate._alone_id):
            async with gate._lock:
                pass
        gate._running += 1
        gate._quiet.clear()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gate = self._gate
        gate._running -= 1
        if not gate._running:
            gate._quiet.set()

    def _is_nested_in(self, alone_id: str) -> bool:
        return self._request_id.startswith(alone_id.replace(".", "~", 1))


class _Alone:
    __slots__ = ("_gate", "_request_id")

    def __init__(self, gate: Gate, request_id: str) -> None:
        self._gate = gate
        self._request_id = request_id

    async def __aenter__(self) -> None:
        gate = self._gate
        await gate._lock.acquire()
        gate._alone_id = self._request_id
        try:
            await gate._quiet.wait()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._gate._alone_id = ""
        self._gate._lock.release()
