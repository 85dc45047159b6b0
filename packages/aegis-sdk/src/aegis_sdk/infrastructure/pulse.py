"""Heartbeats from a thread of their own, on a connection of their own.

A handler that blocks the main loop does not stop them: they carry how late the loop is, so that dead,
stalled and busy can be told apart. The thread asks the loop at each heartbeat, so a loop with nothing
to do is woken as seldom as that. They share nothing but plain numbers. What holds the whole interpreter
stops the thread too; then the guard speaks (guard.py).

The thread has an event loop of its own, and a link that belongs to that loop. Its connection is another than the one by
which the instance serves: a main connection that is lost, or drowned in messages, does not stop the heartbeats. Each names
both (`session`, `pulse`), so that control can tell from the server's own events when both have closed, without waiting for
silence.

A failure in one heartbeat is logged, and the next one is sent: a thread that ended by an exception would have a healthy
instance taken for dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

from aegis_sdk.contract.control import Heartbeat
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.infrastructure.guard import Guard
from aegis_sdk.nats.connection import SAY_AGAIN_S
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from aegis_sdk.telemetry import log

JOIN_TIMEOUT_S: Final = 1.0


class Lag:
    """How late an event loop is: asked from another thread, answered when the loop comes to it.

    One question is open at a time. A field is written by one thread and read by the other, which the interpreter makes whole.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_answer: Callable[[float], None]) -> None:
        """`on_answer` is told, on the loop, how long each question waited."""
        self._loop = loop
        self._on_answer = on_answer
        self._asked_s: float | None = None
        """When the question was put that is not answered yet."""

    @property
    def seconds(self) -> float:
        """For how long the open question has waited; 0 when the last one was answered."""
        asked_s = self._asked_s
        return 0.0 if asked_s is None else time.monotonic() - asked_s

    def ask(self) -> None:
        """From the other thread; nothing while an earlier question waits."""
        if self._asked_s is not None:
            return
        self._asked_s = time.monotonic()
        with contextlib.suppress(RuntimeError):  # the loop is closed: this process ends
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        waited_s, self._asked_s = self.seconds, None
        self._on_answer(waited_s)


class Pulse:
    """`start` on the main loop; `gather` is called from the thread and must only read numbers."""

    def __init__(
        self,
        server: Server,
        subjects: Subjects,
        *,
        name: Callable[[str], str],
        interval_s: float,
        gather: Callable[[int, float], Heartbeat],
        on_lag: Callable[[float], None],
    ) -> None:
        """`name` makes a connection's name from its kind; `on_lag` is told, on the main loop, how late
        that was at each heartbeat.
        """
        self._server = server
        self._subjects = subjects
        self._name = name
        self._interval_s = interval_s
        self._gather = gather
        self._lag = Lag(asyncio.get_running_loop(), on_lag)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aegis-pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Returns when the thread has ended, or after a second without it."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, JOIN_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        link = await self._connect()
        guard = await self._guard() if link else None
        n = 0
        while link is not None and not self._stop.is_set():
            n += 1
            try:
                self._say(n, link, guard)
            except Exception as error:  # of one: without any, this instance would be taken for dead
                log.error("heartbeat_failed", exc_info=error)
            # After the sending: the loop needs the interpreter, which this thread then gives up.
            asyncio.get_running_loop().call_soon(self._lag.ask)
            await asyncio.sleep(self._interval_s)
        if guard is not None:
            await guard.close()
        if link is not None:
            await link.close()

    def _say(self, n: int, link: Link, guard: Guard | None) -> None:
        heartbeat = self._gather(n, self._lag.seconds)
        heartbeat.pulse = link.connected.session
        subject = self._subjects.heartbeat(heartbeat.service, heartbeat.instance_id)
        payload = heartbeat.model_dump_json().encode()
        link.publish(subject, payload)
        if guard is not None:
            guard.told(subject, payload, self._interval_s)

    async def _guard(self) -> Guard | None:
        try:
            return await Guard.start(self._server, name=self._name("guard"))
        except Exception as error:  # it is a second voice: the first must speak without it
            log.warning("guard_not_started", reason=repr(error))
            return None

    async def _connect(self) -> Link | None:
        said_s = -SAY_AGAIN_S
        while not self._stop.is_set():
            try:
                return await Link.open(self._server, name=self._name("pulse"))
            except Unavailable as error:
                now_s = time.monotonic()
                if now_s - said_s >= SAY_AGAIN_S:
                    log.warning("pulse_not_connected", error=str(error))
                    said_s = now_s
                await asyncio.sleep(0.1)
        return None
