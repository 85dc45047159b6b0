"""Log lines about strangers, who may come a thousand times a second: one a period, with how many there were."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

PERIOD_S: Final = 10.0


class Seldom:
    """The first of its kind is told immediately; later ones with their number when the period is over."""

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self._period_s = period_s
        self._untold: dict[str, tuple[int, dict[str, Any]]] = {}
        """By event: how many since the last line, and the latest one's keys. As many as there are events."""

    def warn(self, event: str, **keys: Any) -> None:
        if event in self._untold:
            self._untold[event] = (self._untold[event][0] + 1, keys)
        else:
            self._tell(event, 1, keys)

    def _tell(self, event: str, times: int, keys: dict[str, Any]) -> None:
        structlog.stdlib.get_logger("aegis_control").warning(event, times=times, **keys)
        self._untold[event] = (0, {})
        asyncio.get_running_loop().call_later(self._period_s, self._look_again, event)

    def _look_again(self, event: str) -> None:
        times, keys = self._untold.pop(event)
        if times:
            self._tell(event, times, keys)
