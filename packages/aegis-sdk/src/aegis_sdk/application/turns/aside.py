"""Work beside what comes in: each in a task of its own, and one that fails is told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aegis_sdk.telemetry import log


class Aside:
    """`step` names whose work it is, in the log line of one that failed."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", step=self._step, exc_info=error)
