"""Removing journal entries that nobody needs: past their retention, and covered by a checkpoint.

Entries have no age limit of their own, so that an outage of any length expires nothing. What holds a
trim up is a resource whose active did not write a checkpoint for so long, because it has none.
"""

from __future__ import annotations

from aegis_control.application.state import ControlState, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import JournalTrimHeldUp, JournalTrimmed

INTERVALS_A_RETENTION = 24
INTERVAL_S_MIN = 1.0


class Trim:
    """Every service's journal, one after the other; a wide purge costs the journal a moment, so seldom."""

    def __init__(self, state: ControlState, world: World) -> None:
        self._state = state
        self._world = world

    @property
    def interval_s(self) -> float:
        return max(INTERVAL_S_MIN, self._world.outcome_ttl_s / INTERVALS_A_RETENTION)

    async def __call__(self) -> None:
        """Raises: Unavailable; what is left is done the next time."""
        for table in list(self._state.services.values()):
            if not table.lost:
                await self._trim(table)

    async def _trim(self, table: ServiceTable) -> None:
        done = await self._world.journal.trim(
            table.name, list(table.resources()), keep_s=self._world.outcome_ttl_s
        )
        if done.removed:
            self._world.events.emit(JournalTrimmed(service=table.name, entries=done.removed))
        if done.held_up_by:
            self._world.events.emit(
                JournalTrimHeldUp(
                    service=table.name,
                    resource=done.held_up_by,
                    reason="it has entries past the retention and no checkpoint of them: start its instance",
                )
            )
