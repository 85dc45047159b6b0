"""Heartbeats from a thread of their own, on a connection of their own.

A handler that blocks the main loop does not stop them: they carry how late the loop is, so that dead,
stalled and busy can be told apart. The thread shares nothing with the loop but plain numbers. What
holds the whole interpreter stops the thread too; then the guard speaks (guard.py).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final

from aegis_sdk.contract.control import Heartbeat
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.infrastructure.guard import Guard
from aegis_sdk.infrastructure.link import Link, Server
from aegis_sdk.telemetry import log

TICK_S: Final = 0.05
"""How often the main loop says that it runs; the resolution of its measured lag."""


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
        on_tick: Callable[[float], None],
    ) -> None:
        """`name` makes a connection's name from its kind; `on_tick` is told, on the main loop, how
        late each tick was.
        """
        self._server = server
        self._subjects = subjects
        self._name = name
        self._interval_s = interval_s
        self._gather = gather
        self._on_tick = on_tick
        self._ticked_s = time.monotonic()
        self._ticker: asyncio.Task[None] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aegis-pulse", daemon=True)

    def start(self) -> None:
        self._ticker = asyncio.create_task(self._tick())
        self._thread.start()

    async def stop(self) -> None:
        """Returns when the thread has ended, or after a second without it."""
        self._stop.set()
        if self._ticker is not None:
            self._ticker.cancel()
        await asyncio.to_thread(self._thread.join, 1.0)

    @property
    def loop_lag_s(self) -> float:
        return max(0.0, time.monotonic() - self._ticked_s - TICK_S)

    async def _tick(self) -> None:
        while True:
            self._ticked_s = time.monotonic()
            await asyncio.sleep(TICK_S)
            self._on_tick(self.loop_lag_s)

    def _run(self) -> None:
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        link = await self._connect()
        guard = await Guard.start(self._server, name=self._name("guard")) if link else None
        n = 0
        while link is not None and not self._stop.is_set():
            n += 1
            heartbeat = self._gather(n, self.loop_lag_s)
            subject = self._subjects.heartbeat(heartbeat.service, heartbeat.instance_id)
            link.publish(subject, heartbeat.model_dump_json().encode())
            if guard is not None:
                guard.told(subject, heartbeat, self._interval_s)
            await asyncio.sleep(self._interval_s)
        if guard is not None:
            await guard.close()
        if link is not None:
            await link.close()

    async def _connect(self) -> Link | None:
        while not self._stop.is_set():
            try:
                return await Link.open(self._server, name=self._name("pulse"))
            except Unavailable as error:
                log.debug("pulse_not_connected", error=str(error))
                await asyncio.sleep(0.1)
        return None
