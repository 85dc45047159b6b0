"""A term of leadership: load what is stored, answer instances and operators, watch, reconcile.

A term begins with empty hands and ends by cancellation; nothing of it is carried into the next one.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any

from aegis_sdk.contract.control import Heartbeat
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.trace import trace_id
from aegis_sdk.errors import Unavailable

from aegis_control.application.assembly import assemble
from aegis_control.application.ports import NotTheBucket
from aegis_control.application.state import ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import BucketReplaced, ControlStepFailed, RequestDeadLettered

RECONCILE_INTERVAL_S = 1.0
SPREAD_INTERVAL_S = 0.5
"""Between two handovers of a few resources each: what is paused for one of them is served again before the next."""
LOOK_INTERVAL_S = 0.5
"""How long a service may go on with a log that lost something, unless its instances see it first."""
_TICKS_A_TIMEOUT = 14
"""Judging this often in a heartbeat timeout adds little to the detection (50 ms of 700)."""


class Term:
    """One term; `run` it once. `state` is for reading (metrics)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._parts = parts = assemble(world, spawn=self._spawn)
        self.state = parts.state
        self.register, self.change, self.leave = parts.register, parts.change, parts.leave
        self.admin, self.demand = parts.admin, parts.place.demand
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled. Raises: Unavailable when what is stored can't be read at the start."""
        await self._parts.roster.refresh()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            async with self._world.listen(self):
                tasks.create_task(self._judge())
                tasks.create_task(self._keep_trimming())
                tasks.create_task(self._keep_looking())
                tasks.create_task(self._keep_spreading())
                await self._keep_reconciling()

    def heard(self, beat: Heartbeat) -> None:
        self._parts.watch.heard(beat)

    def dead_lettered(self, letter: DeadLetter) -> None:
        """Heard while it was stored; what came in without a leader is in the DLQ alone."""
        request = letter.request
        self._world.events.emit(
            RequestDeadLettered(
                service=request.service,
                request_id=request.request_id,
                method=request.method,
                resource=request.resource,
                trace_id=trace_id(request.traceparent),
                error_code=letter.error_code,
                reason=letter.error,
            )
        )

    def closed(self, session: str, reason: str) -> None:
        self._parts.watch.closed(session, reason)

    def reconnected(self) -> None:
        """Control was cut off from NATS: heartbeats and connection events were missed."""
        self._parts.watch.forgive()

    async def _judge(self) -> None:
        interval_s = self._world.limits.heartbeat_timeout_s / _TICKS_A_TIMEOUT
        clock = self._world.clock
        while True:
            before_s = clock.monotonic()
            await asyncio.sleep(interval_s)
            # Late ourselves: heartbeats may lie unread in the socket.
            if clock.monotonic() - before_s > interval_s + self._world.limits.heartbeat_interval_s:
                self._parts.watch.forgive()
            await self._logged(self._tick(), "judge")

    async def _tick(self) -> None:
        self._parts.watch.tick()

    async def _keep_reconciling(self) -> None:
        while True:
            await self._logged(self._parts.reconcile(), "reconcile")
            await asyncio.sleep(RECONCILE_INTERVAL_S)

    async def _keep_looking(self) -> None:
        """At the logs of every service: one without an answer doesn't hold up the others."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            await asyncio.gather(*map(self._look_at, self._services()))

    async def _look_at(self, table: ServiceTable) -> None:
        await self._logged(self._parts.logs.check(table), "logs")

    async def _keep_spreading(self) -> None:
        while True:
            await asyncio.sleep(SPREAD_INTERVAL_S)
            await asyncio.gather(*map(self._spread, self._services()))

    async def _spread(self, table: ServiceTable) -> None:
        await self._logged(self._parts.spread(table), "spread")
        is_moving = self._parts.spread.is_under_way(table)
        await self._logged(self._parts.place(table, is_moving=is_moving), "place")

    def _services(self) -> list[ServiceTable]:
        return list(self.state.services.values())

    async def _keep_trimming(self) -> None:
        while True:
            await asyncio.sleep(self._parts.trim.interval_s)
            await self._logged(self._parts.trim(), "trim")

    def _spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        if self._tasks is None:
            coroutine.close()
            return
        what = getattr(coroutine, "__qualname__", "task")
        task = self._tasks.create_task(self._logged(coroutine, what))
        task.add_done_callback(lambda _: coroutine.close())  # it may be cancelled before it began

    async def _logged(self, coroutine: Coroutine[Any, Any, object], what: str) -> None:
        """Errors here leave work for the next reconciliation; they don't end the term.

        Raises: NotTheBucket, which does.
        """
        try:
            await coroutine
        except NotTheBucket as error:
            # Begin again with what is stored: leases from the logs, instances from their heartbeats.
            self._world.events.emit(BucketReplaced(reason=str(error)))
            raise
        except Unavailable as error:
            self._world.events.emit(ControlStepFailed(step=what, reason=str(error)))
        except Exception as error:
            reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
            self._world.events.emit(ControlStepFailed(step=what, reason=reason, trace=trace))
