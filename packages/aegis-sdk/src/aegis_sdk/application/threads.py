"""Threads for plain `def` handlers.

At most `at_work_max` of them work at once. One whose handler waits for an answer, hangs, or was given up does not
count, and another begins: so handlers that block on each other never wait for a thread that waits for them. In all
there are `threads_max`; only requests that handlers make themselves, which somebody waits for, may go beyond. The
threads are daemons: those of `concurrent.futures` are joined when the process ends, so that one which never returns
would keep it alive for ever. Everything but the handlers' own code runs on the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from aegis_sdk.application.place import Place
from aegis_sdk.telemetry import log

AT_WORK_MAX: Final = 32
THREADS_MAX: Final = 512
"""Each that is blocked costs some 50 KB of memory; this many are a fault of what they wait for."""


class _Job:
    """One run of a handler. It is its place's Holder (place.py)."""

    __slots__ = ("_pool", "at_work", "begun", "future", "work")

    def __init__(self, pool: Threads, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self._pool = pool
        self.work = work
        self.future = future
        self.begun = self.at_work = False

    def leave(self) -> None:
        if self.at_work:
            self.at_work = False
            self._pool.one_less()

    def come_back(self) -> None:
        if self.begun and not self.at_work:
            self.at_work = True
            self._pool.one_more()


_Inbox = queue.SimpleQueue[_Job | None]


class Threads:
    """The threads of one instance; used from one event loop."""

    def __init__(
        self, name: str, *, at_work_max: int = AT_WORK_MAX, threads_max: int = THREADS_MAX
    ) -> None:
        self._name = name
        self._at_work_max = at_work_max
        self._threads_max = threads_max
        self._loop: asyncio.AbstractEventLoop | None = None
        self._numbers = itertools.count(1)
        self._idle: list[_Inbox] = []
        self._threads = 0
        self._at_work = 0
        self._nested: deque[_Job] = deque()
        self._fresh: deque[_Job] = deque()
        self._closed = False
        self._told_full = False

    def start(self, work: Callable[[], Any], place: Place, *, nested: bool) -> asyncio.Future[Any]:
        """What `work` returns or raises, run in a thread. `nested`: another handler waits for it.

        A future that is cancelled is not waited for; its thread goes on and counts no more.
        """
        self._loop = asyncio.get_running_loop()
        job = _Job(self, work, self._loop.create_future())
        place.hold(job)
        job.future.add_done_callback(lambda _: job.leave())
        (self._nested if nested else self._fresh).append(job)
        self._begin()
        return job.future

    def close(self) -> None:
        """What waits for a thread gets none. Does not wait for those at work. Safe twice."""
        self._closed = True
        for job in (*self._nested, *self._fresh):
            job.future.cancel()
        for inbox in self._idle:
            inbox.put(None)
        self._idle.clear()

    @property
    def at_work(self) -> int:
        """Handlers that neither wait for an answer nor were given up."""
        return self._at_work

    def one_less(self) -> None:
        self._at_work -= 1
        self._begin()

    def one_more(self) -> None:
        self._at_work += 1

    def _begin(self) -> None:
        while self._at_work < self._at_work_max and (waiting := self._first()):
            job = waiting.popleft()
            if job.future.done():
                continue
            if (inbox := self._thread()) is None:
                waiting.appendleft(job)
                return
            job.begun = job.at_work = True
            self._at_work += 1
            inbox.put(job)

    def _first(self) -> deque[_Job]:
        """The queue whose turn it is; those that somebody waits for go first."""
        if self._nested or not self._fresh:
            return self._nested
        full = not self._idle and self._threads >= self._threads_max
        if full and not self._told_full:
            log.error("threads_used_up", pool=self._name, threads=self._threads)
        self._told_full = full
        return self._nested if full else self._fresh

    def _thread(self) -> _Inbox | None:
        if self._idle:
            return self._idle.pop()
        inbox: _Inbox = queue.SimpleQueue()
        name = f"{self._name}-{next(self._numbers)}"
        try:
            threading.Thread(target=self._run, args=(inbox,), name=name, daemon=True).start()
        except RuntimeError as error:  # the system gives no more
            log.error(
                "thread_not_started", pool=self._name, threads=self._threads, error=str(error)
            )
            return None
        self._threads += 1
        return inbox

    def _run(self, inbox: _Inbox) -> None:
        assert self._loop is not None
        pid = os.getpid()
        while (job := inbox.get()) is not None:
            result, error = None, None
            try:
                result = job.work()
            except BaseException as raised:  # whatever it is, the handler's run ends with it
                error = raised
            if os.getpid() != pid:  # a child that the handler forked: this is its only thread
                if error is not None:
                    raise error
                return
            try:
                self._loop.call_soon_threadsafe(self._done, inbox, job, result, error)
            except RuntimeError:
                return  # the loop is closed: this process ends
            del job, result, error

    def _done(self, inbox: _Inbox, job: _Job, result: object, error: BaseException | None) -> None:
        if self._closed or len(self._idle) >= self._at_work_max:
            self._threads -= 1
            inbox.put(None)
        else:
            self._idle.append(inbox)
        job.begun = False
        job.leave()
        if job.future.done():
            self._begin()
        elif error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
