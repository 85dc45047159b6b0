"""Group requests: any instance may run one, again and again until one outcome is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from aegis_sdk.application.group_host import GroupHost
from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.ports import StoreForbidden
from aegis_sdk.application.threads import Threads
from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.testing import Fault, Flow, ManualClock, MemoryBus, Op
from aegis_sdk.testing.harness import make_requester

from tests.unit.sdk.support import (
    SERVICE,
    Hand,
    Runs,
    echo_request,
    kinds,
    ledger,
    send,
    settle,
    stored,
    until,
)

ACK_WAIT_S = 1.0


class Member:
    """One instance's share of the group."""

    def __init__(
        self, bus: MemoryBus, name: str, *, ack_wait_s: float = 60.0, credit: int = 16
    ) -> None:
        self.link = bus.link(name)
        service, self.runs = ledger(Runs())
        self.threads = Threads("test", at_work_max=1)
        self.requester = make_requester(self.link, caller=name)
        self.isolation = Isolation()
        self.host = GroupHost(
            SERVICE,
            runner=Runner(service, instance_id=name, asks=self.requester, threads=self.threads),
            isolation=self.isolation,
            journal=self.link.journal,
            deliveries=self.link.deliveries,
            ack_wait_s=ack_wait_s,
            credit=credit,
        )

    async def stop(self) -> None:
        await self.host.stop()
        await self.requester.close()
        self.link.close()
        self.threads.close()


def _began_or_ended(bus: MemoryBus, member: Member) -> bool:
    return bool(member.runs.begun or kinds(bus))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus(clock: ManualClock) -> MemoryBus:
    """Nothing is dealt again before a test moves the clock on."""
    made = MemoryBus(clock=clock, ack_wait_s=ACK_WAIT_S)
    made.provision(SERVICE)
    return made


@pytest.fixture
async def one(bus: MemoryBus) -> AsyncIterator[Member]:
    member = Member(bus, "i-1")
    await member.host.start()
    yield member
    await member.stop()


@pytest.fixture
async def two(bus: MemoryBus) -> AsyncIterator[Member]:
    member = Member(bus, "i-2")
    yield member
    await member.stop()


async def test_a_group_that_may_not_be_joined_yet_is_joined_once_it_may(
    bus: MemoryBus, two: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: rights come and go with the server's configuration."""
    open_group, refusals = two.link.deliveries.open_group, [StoreForbidden("not this consumer")] * 2

    async def forbidden(service: str, **more: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await open_group(service, **more)

    monkeypatch.setattr(two.link.deliveries, "open_group", forbidden)
    await two.host.start()
    send(bus, echo_request("c.1", "hi"))
    await until(lambda: kinds(bus))


async def test_a_request_is_run_stored_and_acknowledged(
    bus: MemoryBus, clock: ManualClock, one: Member
) -> None:
    send(bus, echo_request("c.1", "hi"))
    await until(lambda: kinds(bus))
    await settle()
    clock.advance(10 * ACK_WAIT_S)
    await settle()
    outcome = stored(bus, "c.1")
    assert outcome is not None
    assert (outcome.kind, outcome.body) == (OutcomeKind.EXECUTED, b'"hi"')
    assert (outcome.request_seq, outcome.epoch, outcome.instance_id) == (1, 0, "i-1")
    assert one.runs.begun == [("c.1", 1)]


async def test_requests_run_side_by_side_up_to_the_credit(bus: MemoryBus) -> None:
    member = Member(bus, "i-1", credit=3)
    release = member.runs.hold("x")
    for n in range(1, 6):
        send(bus, echo_request(f"c.{n}", "x"))
    await member.host.start()
    await until(lambda: len(member.runs.begun) == 3)
    await settle()
    assert len(member.runs.begun) == 3
    release.set()
    await until(lambda: len(kinds(bus)) == 5)
    await member.stop()


async def test_what_a_killed_instance_had_in_hand_is_run_by_another(
    bus: MemoryBus, clock: ManualClock, one: Member, two: Member
) -> None:
    """G1, G8: after ack_wait."""
    one.runs.hold("x")
    send(bus, echo_request("c.1", "x"))
    await until(lambda: one.runs.begun)
    await one.host.stop()
    await two.host.start()
    clock.advance(ACK_WAIT_S)
    await until(lambda: kinds(bus))
    assert two.runs.begun == [("c.1", 2)]


async def test_a_second_delivery_of_an_answered_request_is_not_run(
    bus: MemoryBus, one: Member
) -> None:
    """G3: the outcome was stored and the process died before it acknowledged."""
    await bus.link().journal.commit(
        echo_request("c.1"), Outcome(OutcomeKind.EXECUTED, b'"first"'), fence_seq=None
    )
    hand = Hand()
    one.host._take(hand.delivery(echo_request("c.1"), 1, delivered=2))
    await until(lambda: hand.acked)
    assert one.runs.begun == []
    assert stored(bus, "c.1") == Outcome(OutcomeKind.EXECUTED, b'"first"')


@pytest.mark.parametrize(
    "again",
    [echo_request("c.1", attempt=2), echo_request("key-svc.k")],
    ids=["sent again", "a key"],
)
async def test_a_request_that_may_have_been_sent_before_is_looked_up(
    bus: MemoryBus, one: Member, again: Request
) -> None:
    """G3: the server lost its dedup map, so the journal tells."""
    send(bus, echo_request(again.request_id))
    await until(lambda: kinds(bus))
    bus.requests(SERVICE).forget_ids()
    send(bus, again)
    send(bus, echo_request("c.9"))
    await until(lambda: stored(bus, "c.9"))
    await settle()
    assert [request_id for request_id, _ in one.runs.begun] == [again.request_id, "c.9"]


async def test_two_runs_of_one_request_are_one_outcome(
    bus: MemoryBus, clock: ManualClock, one: Member, two: Member
) -> None:
    """G2, G3: a paused instance wakes up; the first commit stands for both."""
    release = one.runs.hold("x")
    send(bus, echo_request("c.1", "x"))
    await until(lambda: one.runs.begun)
    one.link.hold(Flow.DELIVERIES)
    await two.host.start()
    clock.advance(ACK_WAIT_S)
    await until(lambda: kinds(bus))
    first = stored(bus, "c.1")
    release.set()
    await settle()
    assert stored(bus, "c.1") == first
    assert first is not None
    assert first.instance_id == "i-2"
    clock.advance(10 * ACK_WAIT_S)
    await settle()
    assert len(one.runs.begun) == len(two.runs.begun) == 1


async def test_a_delivery_that_cannot_be_looked_up_is_left_to_be_delivered_again(
    bus: MemoryBus, clock: ManualClock, one: Member
) -> None:
    """G3: not run without knowing."""
    bus.faults.once(Op.READ, Fault.LOST)
    send(bus, echo_request("c.1", attempt=2))
    await settle()
    assert one.runs.begun == []
    clock.advance(ACK_WAIT_S)
    await until(lambda: kinds(bus))


async def test_a_long_handler_keeps_its_request(bus: MemoryBus) -> None:
    """It is extended while it runs, and no longer."""
    member = Member(bus, "i-1", ack_wait_s=0.03)
    await member.host.start()
    release = member.runs.hold("x")
    hand = Hand()
    member.host._take(hand.delivery(echo_request("c.1", "x"), 1))
    await until(lambda: hand.extended >= 3)
    assert hand.acked == 0
    release.set()
    await until(lambda: hand.acked)
    extended = hand.extended
    other, release = Hand(), member.runs.hold("y")
    member.host._take(other.delivery(echo_request("c.2", "y"), 2))
    await until(lambda: other.extended >= 3)
    assert hand.extended == extended
    release.set()
    await member.stop()


# --- requests that kill their process ---------------------------------------------------------------------


async def test_a_request_that_kills_every_instance_is_given_up(
    bus: MemoryBus, clock: ManualClock
) -> None:
    """Begun three times, each time the process dies: then it has failed, and is kept aside."""
    begun = []
    send(bus, echo_request("c.1", "x"))
    for n in range(1, 5):
        member = Member(bus, f"i-{n}")
        member.runs.hold("x")
        await member.host.start()
        await until(partial(_began_or_ended, bus, member))
        begun += member.runs.begun
        await member.stop()
        clock.advance(ACK_WAIT_S)
    assert begun == [("c.1", 1), ("c.1", 2), ("c.1", 3)]
    outcome = stored(bus, "c.1")
    assert outcome is not None
    assert ErrorBody.model_validate_json(outcome.body).code == "gave_up"
    assert list(bus.dead_letters) == ["c.1"]


async def test_the_last_try_runs_alone(bus: MemoryBus, one: Member) -> None:
    """So that the one which kills its process is known, and the others beside it are not blamed."""
    release, suspect = one.runs.hold("x"), one.runs.hold("suspect")
    send(bus, echo_request("c.1", "x"))
    await until(lambda: one.runs.begun)
    await bus.link().journal.note_attempt(echo_request("c.2"), 1, fence_seq=None)
    hand = Hand()
    one.host._take(hand.delivery(echo_request("c.2", "suspect"), 2, delivered=3))
    await settle()
    send(bus, echo_request("c.3"))
    await settle()
    assert one.runs.tags == ["x"]
    release.set()
    await until(lambda: len(one.runs.tags) == 2)
    await settle()
    assert one.runs.begun == [("c.1", 1), ("c.2", 3)]
    suspect.set()
    await until(lambda: len(kinds(bus)) == 3)


async def test_the_second_begin_is_noted_before_the_handler_runs(
    bus: MemoryBus, one: Member
) -> None:
    one.runs.hold("x")
    bus.faults.once(Op.ATTEMPT, Fault.LOST)
    hand = Hand()
    one.host._take(hand.delivery(echo_request("c.1", "x"), 1, delivered=2))
    await until(lambda: one.runs.begun)
    assert await bus.link().journal.attempts(echo_request("c.1")) == 1
    assert one.runs.begun == [("c.1", 2)]


# --- draining ---------------------------------------------------------------------------------------------


async def test_draining_ends_what_runs_and_takes_nothing_new(
    bus: MemoryBus, one: Member, two: Member
) -> None:
    """G8: what came too late for it is another's, at once."""
    release = one.runs.hold("x")
    send(bus, echo_request("c.1", "x"))
    await until(lambda: one.runs.begun)
    draining = asyncio.create_task(one.host.drain(timeout_s=5.0))
    await settle()
    send(bus, echo_request("c.2"))
    await settle()
    assert not draining.done()
    release.set()
    await draining
    assert kinds(bus) == {"c.1": OutcomeKind.EXECUTED}
    await two.host.start()
    await until(lambda: stored(bus, "c.2"))
    assert len(one.runs.begun) == 1


async def test_what_comes_while_draining_is_served(one: Member) -> None:
    """G8: handed back, it would wait, and might come to the same member again."""
    one.runs.hold("x")
    first, late = Hand(), Hand()
    one.host._take(first.delivery(echo_request("c.1", "x"), 1))
    await until(lambda: one.runs.begun)
    draining = asyncio.create_task(one.host.drain(timeout_s=0.1))
    await settle()
    one.host._take(late.delivery(echo_request("c.2"), 2))
    await until(lambda: late.acked)
    await draining
    assert late.handed_back == 0
    assert (first.acked, first.handed_back) == (0, 1), "its time was over: another runs it at once"


async def test_a_drain_ends_in_time_whatever_runs(
    bus: MemoryBus, clock: ManualClock, one: Member, two: Member
) -> None:
    """G1: what was not finished is run elsewhere."""
    one.runs.hold("x")
    send(bus, echo_request("c.1", "x"))
    await until(lambda: one.runs.begun)
    await one.host.drain(timeout_s=0.01)
    assert kinds(bus) == {}
    await two.host.start()
    clock.advance(ACK_WAIT_S)
    await until(lambda: kinds(bus))
