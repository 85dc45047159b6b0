"""The timers of a service: read from its log, with or without a control."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from aegis_control.application.operators.pasts import Logs
from aegis_control.domain.operators.past import Unread
from aegis_control.domain.operators.schedule import Schedule, TimerLine


@dataclass(frozen=True, slots=True)
class TimersView:
    """What `timers` says; `position` is the log's end."""

    service: str
    position: int
    timers: Sequence[TimerLine]
    unread: Sequence[Unread]


class Schedules:
    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def of(self, service: str, resource: str | None = None) -> TimersView:
        """Of one resource, or of all. Raises: ValueError, Unavailable."""
        end = (await self._logs.extent(service)).last
        schedule = Schedule(await self._logs.checkpoints(service, resource))
        after = schedule.begins_after
        reading = self._logs.outcomes(service, after=after, resource=resource)
        async with aclosing(reading) as entries:
            async for entry in entries:
                schedule.add(entry)
        return TimersView(service, end, schedule.lines(resource), schedule.unread)
