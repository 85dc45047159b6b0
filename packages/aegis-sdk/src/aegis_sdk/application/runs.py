"""The handlers that run now on one instance: ended when their deadline has passed, and told of when they hang.

Each run is a task of its own, or a thread. When the deadline has passed, what a run does can't be the outcome any
more: a task is cancelled, and one that does not end by that, as a thread never does, is given up. It goes on without
anybody waiting for it, what it returns is nothing, and others have its place. A run without a deadline, or with
a distant one, is never ended: after `LONG_S` others have its place too, and the log names it.
"""

from __future__ import annotations

import asyncio
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


class DeadlinePassed(Exception):
    """The run was ended, or given up."""


class Run:
    """One run of a handler, which calls `end` when it has ended."""

    __slots__ = ("begun_s", "ended", "ends_s", "is_over", "next_word_s", "place", "request")

    def __init__(
        self, request: Request, place: Place, loop: asyncio.AbstractEventLoop, left_s: float
    ) -> None:
        now_s = loop.time()
        self.request = request
        self.place = place
        self.begun_s = now_s
        self.next_word_s = now_s + LONG_S
        self.ends_s = now_s + left_s + GRACE_S
        """By the loop's clock, which nobody sets."""
        self.is_over = False
        """Its deadline has passed: whatever comes of it, it is too late."""
        self.ended: asyncio.Future[None] = loop.create_future()

    def end(self, _: object = None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Runs:
    """Of one instance."""

    def __init__(self, *, instance_id: str) -> None:
        self._instance_id = instance_id
        self._running: dict[Run, asyncio.Future[Any]] = {}
        self._cancelled: set[asyncio.Future[Any]] = set()
        """Whose run was dropped, and that have not ended yet."""
        self._timer: asyncio.TimerHandle | None = None

    async def of(self, run: Run, work: asyncio.Future[Any]) -> Any:
        """What `work` returns or raises, unless `run` is over before.

        Raises: DeadlinePassed.
        """
        self._running[run] = work
        if self._timer is None:
            self._timer = work.get_loop().call_later(LOOK_S, self._look)
        try:
            await run.ended
        except asyncio.CancelledError:
            self._cancel(work)
            raise
        finally:
            del self._running[run]
        if run.is_over:
            self._cancel(work)
            raise DeadlinePassed
        return work.result()

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
        for run, work in self._running.items():
            if work.done():  # also one that a stranger cancelled before it began
                run.end()
            elif now_s >= run.ends_s:
                self._end(run, work, now_s)
            elif now_s >= run.next_word_s:
                self._tell_long(run, now_s)
        self._timer = loop.call_later(LOOK_S, self._look) if self._running else None

    def _end(self, run: Run, work: asyncio.Future[Any], now_s: float) -> None:
        is_task = isinstance(work, asyncio.Task)
        if is_task and not run.is_over:
            work.add_done_callback(run.end)  # it may be cancelled before it began
            work.cancel()
            self._tell("handler_cancelled", run, now_s)
        elif not is_task or now_s >= run.ends_s + GIVE_UP_S:
            self._tell("handler_given_up", run, now_s)
            run.end()
        run.is_over = True

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
