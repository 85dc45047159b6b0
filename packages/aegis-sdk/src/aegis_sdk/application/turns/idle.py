"""Gives up what came on demand and nobody asks for any more: its state stays in the log, its memory is free.

A resource is used when it has a new outcome. What was not for `idle_s` is removed like any other, with its checkpoint stored;
control notes that nobody is missing for it. Reads do not count: who is asked for nothing else is read from the log again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container
from itertools import islice
from typing import Final

from aegis_sdk.application.turns.offering import Offering
from aegis_sdk.application.turns.serving import TurnServing
from aegis_sdk.errors import AegisError
from aegis_sdk.telemetry import log

LOOK_S_MAX: Final = 10.0
AT_A_TIME: Final = 1_000
"""Each has its checkpoint stored first; meanwhile nothing of them begins."""


class Idle:
    """Of one instance; `on_demand` holds what it may give up."""

    def __init__(
        self,
        idle_s: float,
        on_demand: Container[str],
        serving: Callable[[], TurnServing],
        offering: Offering,
    ) -> None:
        self._idle_s = idle_s
        self._on_demand = on_demand
        self._serving = serving
        self._offering = offering
        self._since: dict[str, tuple[int, float]] = {}
        """resource: the number of its last outcome, and since when that is the last one (monotonic)."""

    async def keep_resting(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK_S_MAX, self._idle_s / 4))
            names = list(islice(self.find(time.monotonic()), AT_A_TIME))
            if not names:
                continue
            try:
                await self._offering.go(names, rests=True)
            except AegisError as error:  # they are in use again, or control is away
                log.debug("not_rested", resources=len(names), error_code=error.code)

    def find(self, now_s: float) -> list[str]:
        """What was not used for long enough."""
        idle = {n: k for n, k in self._serving().idle().items() if n in self._on_demand}
        before = self._since
        self._since = {
            name: before[name] if before.get(name, (-1,))[0] == number else (number, now_s)
            for name, number in idle.items()
        }
        return [n for n, (_, since_s) in self._since.items() if now_s - since_s >= self._idle_s]
