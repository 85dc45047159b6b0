"""An active that is behind ends what nobody waits for any more side by side, and runs none of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aegis_sdk.application import actor
from aegis_sdk.application.ports import FenceRefused
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import keyed_id
from aegis_sdk.testing import Fault, MemoryBus, Op

from tests.unit.sdk.support import (
    SERVICE,
    Hand,
    Hosted,
    add_request,
    fence,
    kinds,
    send,
    settle,
    stored,
    until,
)

EXPIRED, CANCELLED = OutcomeKind.EXPIRED, OutcomeKind.CANCELLED


class SlowJournal:
    """The journal of `hosted`, where each commit takes a while. `most` of them were under way at once."""

    def __init__(self, hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = self.open = 0
        self.asked: list[str] = []
        self.refused: set[str] = set()
        self.broken: set[str] = set()
        self._commit = hosted.link.journal.commit
        monkeypatch.setattr(hosted.link.journal, "commit", self.commit)

    async def commit(self, request: Request, outcome: Outcome, *, fence_seq: int | None) -> int:
        self.asked.append(request.request_id)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await asyncio.sleep(0.02)
            if request.request_id in self.refused:
                raise FenceRefused("a newer one")
            if request.request_id in self.broken:
                self.broken.discard(request.request_id)
                raise RuntimeError("a bug")
            return await self._commit(request, outcome, fence_seq=fence_seq)
        finally:
            self.open -= 1


@pytest.fixture
async def one(bus: MemoryBus) -> AsyncIterator[Hosted]:
    hosted = Hosted(bus, "i-1", near_max=16)
    await hosted.start("A", "B")
    fence(bus, hosted, 1, size=2)
    fence(bus, hosted, 1, size=2, resource="B")
    await until(lambda: hosted.actor().is_active and hosted.actor("B").is_active)
    yield hosted
    await hosted.stop()


@pytest.fixture
def slow(one: Hosted, monkeypatch: pytest.MonkeyPatch) -> SlowJournal:
    return SlowJournal(one, monkeypatch)


def late(n: int, **more: Any) -> Request:
    return add_request(f"late.{n}", deadline_s=time.time() - 1.0, **more)


async def send_while_paused(bus: MemoryBus, hosted: Hosted, *requests: Request) -> None:
    """They are at the queue's head together."""
    hosted.actor().pause()
    for request in requests:
        send(bus, request)
    await settle()
    hosted.actor().resume()


def floor(bus: MemoryBus) -> int:
    return bus.requests(SERVICE).ack_floors["g-i-1-1"]


async def test_a_backlog_that_nobody_waits_for_is_ended_side_by_side(
    bus: MemoryBus, one: Hosted, slow: SlowJournal
) -> None:
    """G8: one by one, what comes in the meantime would be late too, for ever."""
    for n in range(40):
        send(bus, late(n))
    send(bus, add_request("it.live"))
    await until(lambda: stored(bus, "it.live"))
    assert slow.most > 10
    assert [kinds(bus)[f"late.{n}"] for n in range(40)] == [EXPIRED] * 40
    assert one.runs.tags == ["it.live"]
    await until(lambda: floor(bus) == 41)
    assert one.total() == 1


async def test_what_runs_begins_when_all_before_it_have_ended(
    bus: MemoryBus, one: Hosted, slow: SlowJournal
) -> None:
    """G7: and two that wait for their turn still take it one after the other."""
    for request in (late(1), late(2), add_request("it.a"), add_request("it.b"), late(3), late(4)):
        send(bus, request)
    release = one.runs.hold("it.a")
    await until(lambda: one.runs.tags)
    assert set(kinds(bus)) == {"late.1", "late.2"}
    release.set()
    await until(lambda: len(kinds(bus)) == 6)
    assert one.runs.tags == ["it.a", "it.b"]
    await until(lambda: one.actor().journal.last_request_seq == 6)


async def test_an_outcome_that_is_stored_stays(
    bus: MemoryBus, one: Hosted, slow: SlowJournal
) -> None:
    """G2: a caller's cancel, another use of an idempotency key."""
    cancelled = Outcome.error(CANCELLED, "cancelled", "")
    for n in range(1, 4):
        await one.link.journal.commit(late(n), cancelled, fence_seq=None)
    send(bus, late(1, attempt=2))
    send(bus, late(2))
    send(bus, late(3))
    send(bus, late(4))
    bus.requests(SERVICE).forget_ids()
    send(bus, late(4, attempt=2))
    await until(lambda: stored(bus, "late.4"))
    await settle()
    assert [kinds(bus)[f"late.{n}"] for n in range(1, 5)] == [CANCELLED] * 3 + [EXPIRED]
    await until(lambda: floor(bus) == bus.requests(SERVICE).last_seq)


async def test_a_newer_fence_ends_it(bus: MemoryBus, one: Hosted, slow: SlowJournal) -> None:
    """G5: what is refused is the next active's, is not acknowledged, and holds no other resource up."""
    slow.refused = {f"late.{n}" for n in range(16)}
    await send_while_paused(bus, one, *(late(n) for n in range(16)))
    await until(lambda: one.host.commits_fenced)
    assert not one.actor().is_active
    assert one.host.commits_fenced == 1
    assert not kinds(bus)
    assert floor(bus) == 0
    for n in range(20):  # more than all keep together
        send(bus, add_request(f"b.{n}", resource="B"))
    await until(lambda: stored(bus, "b.19"))


async def test_what_is_another_active_s_is_left_to_it(
    bus: MemoryBus, one: Hosted, slow: SlowJournal
) -> None:
    """G5: the fence that this one knows last would let its commits through."""
    one.actor().pause()
    for n in range(4):
        send(bus, late(n))
    await settle()
    fence(bus, "i-9", 2)
    await until(lambda: not one.actor().is_active)
    await settle()
    assert not slow.asked
    assert floor(bus) == 4


async def test_what_ended_before_is_not_asked_for_again(
    one: Hosted, slow: SlowJournal, bus: MemoryBus
) -> None:
    """A reader that begins again delivers what is not acknowledged once more."""
    send(bus, late(1))
    send(bus, late(2))
    await until(lambda: one.actor().journal.last_request_seq == 2)
    slow.asked.clear()
    hands = [Hand(), Hand()]
    one.actor().pause()
    for n, hand in enumerate(hands, 1):
        one.actor().take(hand.delivery(late(n), n, grant="g-i-1-1"))
    one.actor().resume()
    await until(lambda: all(hand.acked for hand in hands))
    assert not slow.asked
    assert one.host.duplicates_suppressed == 2


async def test_a_key_that_was_used_elsewhere_gets_no_second_outcome(
    bus: MemoryBus, one: Hosted, slow: SlowJournal
) -> None:
    """G2: its first use has one, at another resource."""
    key = keyed_id(SERVICE, "k")
    send(bus, add_request(key, resource="B"))
    await until(lambda: stored(bus, key))
    slow.asked.clear()
    bus.requests(SERVICE).forget_ids()
    used_again = add_request(key, deadline_s=time.time() - 1.0)
    await send_while_paused(bus, one, used_again, late(1))
    await until(lambda: floor(bus) == bus.requests(SERVICE).last_seq)
    assert slow.asked == ["late.1"]


async def test_one_that_fails_is_done_again_with_all_behind_it(
    bus: MemoryBus, one: Hosted, slow: SlowJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G1: a bug of ours loses none, though those behind it have their outcome already."""
    monkeypatch.setattr(actor, "FAILED_WAIT_S", 0.01)
    slow.broken = {"late.3"}
    for n in range(9):
        send(bus, late(n))
    await until(lambda: len(kinds(bus)) == 9)
    await until(lambda: floor(bus) == 9)
    assert set(kinds(bus).values()) == {EXPIRED}
    assert not one.runs.tags


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.LOST_ANSWER])
async def test_a_lost_commit_is_sent_again(bus: MemoryBus, one: Hosted, fault: Fault) -> None:
    bus.faults.once(Op.COMMIT, fault)
    for n in range(5):
        send(bus, late(n))
    await until(lambda: len(kinds(bus)) == 5)
    await until(lambda: floor(bus) == 5)
    assert set(kinds(bus).values()) == {EXPIRED}


async def test_a_death_in_the_middle_leaves_none_without_an_outcome(
    bus: MemoryBus, one: Hosted, slow: SlowJournal
) -> None:
    """G1: what is stored out of turn must not say that all before it have ended (ADR 0005)."""
    slow.refused = {"late.2"}
    for n in range(6):
        send(bus, late(n))
    await until(lambda: len(kinds(bus)) == 5)
    await one.stop()
    two = Hosted(bus, "i-2")
    await two.start()
    fence(bus, two, 2)
    await until(lambda: len(kinds(bus)) == 6)
    assert set(kinds(bus).values()) == {EXPIRED}
    await two.stop()


async def test_those_that_failed_keep_their_order(
    bus: MemoryBus, one: Hosted, slow: SlowJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G7: their turn may come when a clock that was wrong is right again, and they run."""
    monkeypatch.setattr(actor, "FAILED_WAIT_S", 0.01)
    slow.broken = {"it.0"}
    requests = [add_request(f"it.{n}", deadline_s=time.time() + 1800.0) for n in range(4)]
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 3600.0)
    await send_while_paused(bus, one, *requests)
    await until(lambda: not slow.broken)
    slow.asked.clear()
    monkeypatch.setattr(time, "time", right)
    await until(lambda: floor(bus) == 4)
    assert slow.asked == [f"it.{n}" for n in range(4)]
