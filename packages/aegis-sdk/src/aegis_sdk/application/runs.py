"""The handlers that run now on one instance: ended when their deadline has passed, and told of when they hang.

Each run is a task of its own, or a thread. When the deadline has passed, what a run does can't be the outcome any
more: a task is cancelled, and one that does not end by that, as a thread never does, is given up. It goes on without
anybody waiting for it, what it returns is nothing, and others have its place. A run without a deadline, or with
a distant one, is never ended: after `LONG_S` others have its place too, and the log names it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Final

from aegis_sdk.application.place import Place
from aegis_sdk.contract.envelope import Request
from aegis_sdk.telemetry import about, log

GRACE_S: Final = 0.25
"""Past the deadline: what a handler waits for in here ends by itself then, and says more than a cancellation."""
GIVE_UP_S: Final = 1.0
"""How long a cancelled task may take to clean up, before it is given up."""
LONG_S: Final = 10.0
LOOK_S: Final = 0.1
"""How often running handlers are looked at. One timer for all: each request would pay for its own."""

OnEnd = Callable[[asyncio.Future[Any] | None], None]


class Run:
    """One run of a handler: `work` is its task, or the future of its thread."""

    __slots__ = (
        "_runs",
        "begun_s",
        "ends_s",
        "is_over",
        "next_word_s",
        "on_end",
        "place",
        "request",
        "work",
    )

    def __init__(
        self,
        runs: Runs,
        request: Request,
        place: Place,
        work: asyncio.Future[Any],
        on_end: OnEnd,
    ) -> None:
        now_s = work.get_loop().time()
        left_s = math.inf if request.deadline_s is None else request.deadline_s - time.time()
        self._runs = runs
        self.request = request
        self.place = place
        self.work = work
        self.on_end = on_end
        self.begun_s = now_s
        self.next_word_s = now_s + LONG_S
        self.ends_s = now_s + left_s + GRACE_S
        """By the loop's clock, which nobody sets."""
        self.is_over = False
        """Its deadline has passed: whatever comes of it, it is too late."""
        work.add_done_callback(self._done)

    def _done(self, _: asyncio.Future[Any]) -> None:
        self._runs.ended(self)


class Runs:
    """Of one instance."""

    def __init__(self, *, instance_id: str) -> None:
        self._instance_id = instance_id
        self._running: set[Run] = set()
        self._cancelled: set[asyncio.Future[Any]] = set()
        """Whose run was dropped, and that have not ended yet."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(
        self, request: Request, place: Place, work: asyncio.Future[Any], on_end: OnEnd
    ) -> Run:
        """`on_end` gets `work` once it is done, or None when the deadline has passed. It is called once, by the loop."""
        run = Run(self, request, place, work, on_end)
        self._running.add(run)
        if self._timer is None:
            self._timer = work.get_loop().call_later(LOOK_S, self._look)
        return run

    def ended(self, run: Run) -> None:
        """Its work is done."""
        if run in self._running:
            self._running.discard(run)
            run.on_end(None if run.is_over else run.work)

    def drop(self, run: Run) -> None:
        """Nobody waits for it any more."""
        if run in self._running:
            self._running.discard(run)
            self._cancel(run.work)

    async def stop(self) -> None:
        """Returns when what was cancelled has ended, or is given up."""
        if self._cancelled:
            await asyncio.wait(self._cancelled, timeout=GIVE_UP_S)
        for work in self._cancelled:
            if isinstance(work, asyncio.Task):
                # Else the loop waits for it at its end, for ever (asyncio's documentation, "Extending").
                asyncio.tasks._unregister_task(work)
                work._log_destroy_pending = False  # type: ignore[attr-defined]

    def methods_since(self, lasted_s: float) -> list[str]:
        """Whose handlers have run for so long, sorted."""
        begun_s = asyncio.get_running_loop().time() - lasted_s
        return sorted({r.request.method for r in self._running if r.begun_s <= begun_s})

    def _cancel(self, work: asyncio.Future[Any]) -> None:
        self._cancelled.add(work)
        work.add_done_callback(self._gone)
        work.cancel()

    def _gone(self, work: asyncio.Future[Any]) -> None:
        self._cancelled.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            log.debug("late_handler_raised", instance_id=self._instance_id, exc_info=error)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for run in list(self._running):
            if run.work.done():
                continue  # and is told of, now
            if now_s >= run.ends_s:
                self._end(run, now_s)
            elif now_s >= run.next_word_s:
                self._tell_long(run, now_s)
        self._timer = loop.call_later(LOOK_S, self._look) if self._running else None

    def _end(self, run: Run, now_s: float) -> None:
        is_task = isinstance(run.work, asyncio.Task)
        if is_task and not run.is_over:
            run.is_over = True
            self._tell("handler_cancelled", run, now_s)
            run.work.cancel()
        elif not is_task or now_s >= run.ends_s + GIVE_UP_S:
            self._tell("handler_given_up", run, now_s)
            self.drop(run)
            run.on_end(None)

    def _tell_long(self, run: Run, now_s: float) -> None:
        """At ever longer intervals; the first time, its place is given away."""
        lasted_s = now_s - run.begun_s
        if lasted_s < 2 * LONG_S:
            run.place.give_away()
        run.next_word_s = now_s + lasted_s
        self._tell("handler_runs_long", run, now_s)

    def _tell(self, event: str, run: Run, now_s: float) -> None:
        log.warning(
            event,
            **about(run.request),
            instance_id=self._instance_id,
            duration_s=round(now_s - run.begun_s, 3),
        )
