"""Hearing what every process has counted; each replica of control does, whether it leads or not."""

from __future__ import annotations

from aegis_sdk.contract.metrics import Snapshot

from aegis_control.application.operators.history import History
from aegis_control.application.ports import Clock
from aegis_control.domain.operators.fleet import Fleet


class Gather:
    """Hears snapshots and turns them into totals and history."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.fleet = Fleet()
        self.history = History()
        self._stepped_at_s: float | None = None

    def heard(self, snapshot: Snapshot, *, counting: bool) -> None:
        """`counting`: this replica leads, so that the figures are its to show."""
        self.fleet.take(snapshot, now_s=self._clock.monotonic(), counting=counting)

    def step(self) -> None:
        """The end of a step."""
        now_s, wall_s = self._clock.monotonic(), self._clock.wall()
        before_s, self._stepped_at_s = self._stepped_at_s, now_s
        recent = self.fleet.drain()
        if before_s is not None and now_s > before_s:
            self.history.step(recent, time_s=wall_s, elapsed_s=now_s - before_s)
        self.fleet.forget_silent(now_s)
