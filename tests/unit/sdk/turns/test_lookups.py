"""Doubts that sessions leave open: all of one moment share one reading of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any

from aegis_sdk.application.ports import StoreUnreachable
from aegis_sdk.application.turns.lookups import Lookups
from aegis_sdk.contract.envelope import Outcome, OutcomeKind


class MemoryLog:
    """`away`: how many readings fail."""

    def __init__(self) -> None:
        self.outcomes = {
            f"c.{n}": Outcome(OutcomeKind.EXECUTED, b"%d" % n) for n in range(0, 3_000, 2)
        }
        self.readings: list[tuple[int, int]] = []
        self.away = 0
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_end.set()

    async def find_all(self, request_ids: Collection[str], *, to_seq: int) -> dict[str, Outcome]:
        self.readings.append((len(request_ids), to_seq))
        self.begun.set()
        await self.may_end.wait()
        if self.away:
            self.away -= 1
            raise StoreUnreachable("the log is away")
        return {each: self.outcomes[each] for each in request_ids if each in self.outcomes}


class Reader:
    def __init__(self) -> None:
        self.log = MemoryLog()
        self.position = 7
        self.tasks: set[asyncio.Task[None]] = set()
        self.lookups = Lookups(self.log, position=lambda: self.position, aside=self._aside)

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.add(asyncio.create_task(work))


async def test_thousands_of_doubts_are_one_reading() -> None:
    reader = Reader()
    found = await asyncio.gather(*(reader.lookups.find(f"c.{n}") for n in range(3_000)))
    assert reader.log.readings == [(3_000, 7)]
    assert [each is not None for each in found] == [n % 2 == 0 for n in range(3_000)]


async def test_what_is_asked_during_a_reading_is_in_the_next() -> None:
    """The first one may have passed the place already."""
    reader = Reader()
    reader.log.may_end.clear()
    first = asyncio.ensure_future(reader.lookups.find("c.2"))
    await reader.log.begun.wait()
    reader.position = 9
    second = asyncio.ensure_future(reader.lookups.find("c.2"))
    await asyncio.sleep(0)
    reader.log.may_end.set()
    assert await first == await second
    assert reader.log.readings == [(1, 7), (1, 9)]


async def test_a_log_that_is_away_is_asked_again() -> None:
    reader = Reader()
    reader.log.away = 2
    assert await reader.lookups.find("c.1") is None
    assert len(reader.log.readings) == 3


async def test_one_that_gives_up_takes_no_answer_from_another() -> None:
    reader = Reader()
    reader.log.may_end.clear()
    one, other = (asyncio.ensure_future(reader.lookups.find("c.4")) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    reader.log.may_end.set()
    assert await other is not None
