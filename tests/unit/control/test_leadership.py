"""A replica's way to leadership and out of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from aegis_control.application.leading.leadership import LEADER_KEY, Leadership, Pace

from tests.unit.control.support import ManualClock, MemoryBucket, MemoryEvents

PACE = Pace(renewal_s=0.005, timeout_s=1.0)
DEADLINE_S = 10.0


class Terms:
    """Counts terms; each one lasts until it is cancelled."""

    def __init__(self) -> None:
        self.began = 0
        self.begins = asyncio.Event()
        self.ends = asyncio.Event()

    async def __call__(self) -> None:
        self.began += 1
        self.begins.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ends.set()


def replica(
    me: str,
    bucket: MemoryBucket,
    clock: ManualClock,
    term: Callable[[], Awaitable[None]],
    events: MemoryEvents | None = None,
) -> Leadership:
    return Leadership(
        me, bucket=bucket, clock=clock, events=events or MemoryEvents(), pace=PACE, term=term
    )


def record(bucket: MemoryBucket) -> dict[str, object]:
    value = bucket.entries[LEADER_KEY].value
    assert value is not None
    found: dict[str, object] = json.loads(value)
    return found


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await event.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the fake has no events
            await asyncio.sleep(0)


async def test_a_fresh_bucket_is_taken_at_once_and_released_at_the_end() -> None:
    bucket, terms = MemoryBucket(), Terms()
    one = replica("one", bucket, ManualClock(), terms)
    running = asyncio.create_task(one.run())
    await soon(terms.begins)
    assert (one.leading, one.leader, record(bucket)["released"]) == (True, "one", False)
    one.stop()
    await running
    assert terms.ends.is_set()
    assert (one.leading, record(bucket)["released"]) == (False, True)


async def test_a_released_leadership_is_taken_without_waiting() -> None:
    bucket, clock, terms = MemoryBucket(), ManualClock(), Terms()
    bucket.put(LEADER_KEY, b'{"id": "old", "n": 7, "released": true}')
    two = replica("two", bucket, clock, terms)
    running = asyncio.create_task(two.run())
    await soon(terms.begins)
    two.stop()
    await running


async def test_a_leader_that_was_replaced_steps_down_and_does_not_release() -> None:
    bucket, terms, events = MemoryBucket(), Terms(), MemoryEvents()
    one = replica("one", bucket, ManualClock(), terms, events)
    running = asyncio.create_task(one.run())
    await soon(terms.begins)
    bucket.put(LEADER_KEY, b'{"id": "two", "n": 1}')
    await soon(terms.ends)
    assert record(bucket)["id"] == "two"
    one.stop()
    await running
    assert record(bucket) == {"id": "two", "n": 1}
    assert events.names() == ["leader_elected", "leader_stepped_down"]


async def test_a_leader_that_slept_and_was_not_replaced_goes_on() -> None:
    """The write that succeeds proves that nobody took over."""
    bucket, clock, terms = MemoryBucket(), ManualClock(), Terms()
    one = replica("one", bucket, clock, terms)
    running = asyncio.create_task(one.run())
    await soon(terms.begins)
    clock.now_s += 100.0
    before = bucket.revision
    await until(lambda: bucket.revision >= before + 3)
    assert (terms.began, one.leading) == (1, True)
    one.stop()
    await running


async def test_a_leader_that_is_cut_off_steps_down_and_comes_back() -> None:
    bucket, clock, terms = MemoryBucket(), ManualClock(), Terms()
    one = replica("one", bucket, clock, terms)
    running = asyncio.create_task(one.run())
    await soon(terms.begins)
    bucket.away = True
    clock.now_s += 2.0
    await soon(terms.ends)
    terms.begins.clear()
    bucket.away = False
    await soon(terms.begins)
    assert terms.began == 2
    one.stop()
    await running


async def test_a_renewal_whose_answer_was_lost_costs_nothing() -> None:
    bucket, terms = MemoryBucket(), Terms()
    one = replica("one", bucket, ManualClock(), terms)
    running = asyncio.create_task(one.run())
    await soon(terms.begins)
    bucket.lose_acks = 1
    before = bucket.revision
    await until(lambda: bucket.revision >= before + 3)
    assert (terms.began, one.leading) == (1, True)
    one.stop()
    await running


async def test_a_term_that_breaks_frees_the_leadership_for_another() -> None:
    bucket, events = MemoryBucket(), MemoryEvents()
    broken = asyncio.Event()

    async def term() -> None:
        broken.set()
        raise RuntimeError("broken")

    one = replica("one", bucket, ManualClock(), term, events)
    running = asyncio.create_task(one.run())
    await soon(broken)
    await until(lambda: bool(record(bucket)["released"]))
    assert events.last("leader_stepped_down")["reason"] == "broken"
    one.stop()
    await running
