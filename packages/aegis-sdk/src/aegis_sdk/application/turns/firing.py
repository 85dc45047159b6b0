"""Fires timers for a writer: asks it when they are due, and has their requests accepted (domain/turns/timers.py decides the rest).

It asks when it expects one, by this machine's wall clock, and at each tick of the host. So a clock that is set makes none early, and
none late by more than a tick.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from pydantic_core import from_json

from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.turns.timers import Timer
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.domain.turns.work import Work
from aegis_sdk.domain.turns.writer import Writer
from aegis_sdk.telemetry import about, log

WAKES_S: Final = 1.5
"""What is due later is looked after by a tick of the host, which comes each second."""
AGAIN_S: Final = 0.001
"""Between two portions of what is due: others have their turn."""


class Firing:
    """Of one instance. `accept` takes a timer's request; `soon` has the host act, which calls `fire`."""

    def __init__(
        self,
        writer: Writer,
        *,
        instance_id: str,
        recorder: Recorder,
        accept: Callable[[Request, Timer], None],
        soon: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._instance_id = instance_id
        self._recorder = recorder
        self._accept = accept
        self._soon = soon
        self._loop = asyncio.get_running_loop()
        self._wakes: asyncio.TimerHandle | None = None
        self._wakes_s = math.inf
        """Unix time."""

    def fire(self, now_s: float) -> None:
        """What is due is accepted; `now_s` is Unix time."""
        next_s = self._writer.timers_next_s
        if next_s == math.inf:
            return
        if next_s <= now_s:
            for timer in self._writer.fire(now_s):
                self._fire(timer, now_s)
            next_s = max(self._writer.timers_next_s, now_s + AGAIN_S)
        if next_s < now_s + WAKES_S and next_s != self._wakes_s:
            self.stop()
            self._wakes_s = next_s
            self._wakes = self._loop.call_later(next_s - now_s, self._wake)

    def stop(self) -> None:
        if self._wakes is not None:
            self._wakes.cancel()

    def ended(self, work: Work, outcome: Outcome) -> None:
        """A timer's outcome is stored. Nobody waits for it who would be told how it ended."""
        if outcome.kind is OutcomeKind.EXECUTED:
            return
        log.warning(
            "timer_not_executed",
            **about(work.request),
            instance_id=self._instance_id,
            timer=work.timer,
            outcome=outcome.kind.value,
            error_code=from_json(outcome.body)["code"],
        )

    def _wake(self) -> None:
        self._wakes_s = math.inf
        self._soon()

    def _fire(self, timer: Timer, now_s: float) -> None:
        try:
            request = timer.request()
        except ValueError as error:  # it stays in the state, and can be dropped
            log.error(
                "timer_unreadable",
                instance_id=self._instance_id,
                timer=timer.name,
                error=str(error),
            )
            return
        late_s = now_s - timer.due_s
        self._recorder.timer_fired(request.service, late_s)
        log.debug("timer_fired", **about(request), timer=timer.name, late_s=round(late_s, 4))
        self._accept(request, timer)
