"""Users' callbacks of promotions and demotions: one transition of a resource after the other, each in a task of its
own, and whatever they raise is told and nothing else.

A resource's requests wait until its promotion's callbacks have ended. One that hangs is told of loudly, and is
cancelled after `CALLBACK_S_MAX`: to serve is what the resource is for. A demotion cancels what is left of the promotion.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any, Final

from aegis_sdk.application.outcomes import deciding
from aegis_sdk.application.tracing import code_of
from aegis_sdk.service import Callback
from aegis_sdk.telemetry import log

CALLBACK_S_MAX: Final = 30.0
SLOW_S: Final = 5.0
"""After each, a line says which callback the resource waits for."""


class Callbacks:
    """Of one instance."""

    def __init__(self, service: str, *, instance_id: str) -> None:
        self._about = {"service": service, "instance_id": instance_id}
        self._last: dict[str, asyncio.Task[None]] = {}
        """By resource: what was called last."""

    def promoted(self, callbacks: Sequence[Callback], resource: str) -> asyncio.Task[None] | None:
        """Ends when all have; None when there are none."""
        return self._begin(callbacks, resource, cancels=False) if callbacks else None

    def demoted(self, callbacks: Sequence[Callback], resource: str) -> None:
        self._begin(callbacks, resource, cancels=True)

    def stop(self) -> None:
        for task in self._last.values():
            task.cancel()

    def _begin(
        self, callbacks: Sequence[Callback], resource: str, *, cancels: bool
    ) -> asyncio.Task[None]:
        before = self._last.get(resource)
        if before is not None and cancels:
            before.cancel()
        task = asyncio.create_task(self._call(before, callbacks, resource))
        self._last[resource] = task
        task.add_done_callback(lambda done: self._ended(resource, done))
        return task

    def _ended(self, resource: str, task: asyncio.Task[None]) -> None:
        if self._last.get(resource) is task:
            del self._last[resource]

    async def _call(
        self, before: asyncio.Task[None] | None, callbacks: Sequence[Callback], resource: str
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        for callback in callbacks:
            await self._end(callback, resource)

    async def _end(self, callback: Callback, resource: str) -> None:
        about = {**self._about, "resource": resource, "callback": _name(callback)}
        task = asyncio.create_task(_called(callback, resource))
        try:
            for n in range(int(CALLBACK_S_MAX / SLOW_S)):
                if await _has_ended(task):
                    break
                log.error("callback_runs_long", **about, duration_s=(n + 1) * SLOW_S)
            else:
                log.error("callback_given_up", **about, duration_s=CALLBACK_S_MAX)
        finally:
            task.cancel()
        if task.done() and not task.cancelled() and (error := task.result()) is not None:
            log.error("callback_failed", **about, error_code=code_of(error), exc_info=error)


async def _has_ended(task: asyncio.Task[Any]) -> bool:
    done, _ = await asyncio.wait([task], timeout=SLOW_S)
    return bool(done)


async def _called(callback: Callback, resource: str) -> BaseException | None:
    """What it raised: a task that raises SystemExit itself would end the loop."""
    try:
        result = callback(resource)
        if inspect.isawaitable(result):
            await result
    except BaseException as error:
        return deciding(error)
    return None


def _name(callback: Callback) -> str:
    return getattr(callback, "__qualname__", type(callback).__name__)
