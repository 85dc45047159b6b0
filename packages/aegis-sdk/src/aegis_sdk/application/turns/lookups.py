"""Asks the log for outcomes that sessions don't tell: all that are in doubt at one moment by one reading.

A new owner may have thousands of doubts together: stored requests that have their outcomes, and whose callers have made more
calls since than a session remembers. One reading of the log's headers answers them all; one for each would take minutes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

from aegis_sdk.application.ports import StoreError
from aegis_sdk.contract.envelope import Outcome
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.telemetry import log


class Findable(Protocol):
    async def find_all(self, request_ids: Collection[str], *, to_seq: int) -> dict[str, Outcome]:
        """Those that have an outcome in the log up to the entry at `to_seq`. Raises: StoreError."""


class Lookups:
    """`position` tells up to where the log was read here; `aside` runs the readings."""

    def __init__(
        self,
        log_: Findable,
        *,
        position: Callable[[], int],
        aside: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._log = log_
        self._position = position
        self._aside = aside
        self._asked: dict[str, asyncio.Future[Outcome | None]] = {}
        self._is_reading = False

    async def find(self, request_id: str) -> Outcome | None:
        """In all that was read here so far; whatever comes later its reader knows."""
        answer = self._asked.get(request_id)
        if answer is None:
            answer = self._asked[request_id] = asyncio.get_running_loop().create_future()
        if not self._is_reading:
            self._is_reading = True
            self._aside(self._read())
        return await asyncio.shield(answer)

    async def _read(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                found = await self._until_answered(asked)
                for request_id, answer in asked.items():
                    answer.set_result(found.get(request_id))
        finally:
            self._is_reading = False

    async def _until_answered(self, asked: Collection[str]) -> dict[str, Outcome]:
        to_seq = self._position()
        for n in itertools.count(1):
            try:
                return await self._log.find_all(asked, to_seq=to_seq)
            except StoreError as error:
                log.debug("outcomes_not_looked_up", requests=len(asked), error=str(error))
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
        raise AssertionError("unreachable")
