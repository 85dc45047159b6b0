"""A resource's actor: it serves what its own fence lets it serve, in order, and stores before it believes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from aegis_sdk import ResourceContext
from aegis_sdk.application import actor, resource_host
from aegis_sdk.application.ports import StoreForbidden
from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.checkpoint import Checkpoint
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request
from aegis_sdk.domain.journal import Entry, Follow
from aegis_sdk.domain.roles import InstanceRole
from aegis_sdk.testing import Fault, Flow, MemoryBus, Op

from tests.unit.sdk.support import (
    SERVICE,
    Hand,
    Hosted,
    add_request,
    fence,
    kinds,
    ledger,
    send,
    settle,
    stored,
    until,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor, "FAILED_WAIT_S", 0.0)
    monkeypatch.setattr(resource_host, "GRANT_GATHER_S", 0.0)


@pytest.fixture
async def one(bus: MemoryBus) -> AsyncIterator[Hosted]:
    """Instance i-1, which follows resource A."""
    hosted = Hosted(bus, "i-1")
    await hosted.start()
    yield hosted
    await hosted.stop()


@pytest.fixture
async def two(bus: MemoryBus) -> AsyncIterator[Hosted]:
    """Instance i-2, which follows resource A."""
    hosted = Hosted(bus, "i-2")
    await hosted.start()
    yield hosted
    await hosted.stop()


async def _active(hosted: Hosted, *, narrowed: bool = False, resource: str = "A") -> None:
    actor = hosted.actor(resource)
    await until(lambda: actor.is_active)
    if narrowed:
        await until(lambda: actor.follow is Follow.FENCES)
    await settle()


def _began_or_ended(bus: MemoryBus, hosted: Hosted) -> bool:
    return bool(hosted.runs.begun or len(kinds(bus)) == 2)


def _has_served(hosted: Hosted, seq: int) -> bool:
    return hosted.actor().journal.last_request_seq == seq


# --- becoming active --------------------------------------------------------------------------------------


@pytest.mark.plain
async def test_it_has_caught_up_when_it_has_read_what_the_journal_had(
    bus: MemoryBus, one: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: until then, reading would hold up what else it serves; but not for ever."""
    monkeypatch.setattr(resource_host, "LAG_ENTRIES_MAX", 0)
    fence(bus, one, 1)
    send(bus, add_request("c.1"))
    await until(lambda: kinds(bus))
    late = Hosted(bus, "i-2")
    late.link.hold(Flow.ENTRIES)
    await late.start()
    lag = late.host.lag_entries
    assert lag >= 2
    await late.host.caught_up(timeout_s=0.02)
    assert late.host.lag_entries == lag, "its time was over"
    catching_up = asyncio.create_task(late.host.caught_up(timeout_s=5.0))
    await settle()
    assert not catching_up.done()
    late.link.release(Flow.ENTRIES)
    await catching_up
    assert late.host.lag_entries == 0
    assert late.total() == one.total()
    await late.stop()


async def test_it_serves_nothing_before_it_has_read_its_own_fence(
    bus: MemoryBus, one: Hosted
) -> None:
    """G6."""
    one.link.hold(Flow.ENTRIES)
    fence(bus, one, 1)
    send(bus, add_request("c.1"))
    await settle()
    assert not one.actor().is_active
    assert one.runs.begun == []
    one.link.release(Flow.ENTRIES)
    await until(lambda: kinds(bus))
    assert one.actor().is_active


async def test_another_runs_fence_is_not_its_own(bus: MemoryBus, one: Hosted) -> None:
    """G5: a restarted process does not take the fence of the run before."""
    one.host.incarnation = "a later run"
    fence(bus, "i-1", 1)
    await until(lambda: one.actor().journal.fence)
    assert one.actor().role is InstanceRole.FOLLOWING


async def test_a_standbys_state_is_the_actives_when_it_takes_over(
    bus: MemoryBus, one: Hosted, two: Hosted, narrowed: bool
) -> None:
    """G6: nothing that was committed is missing, and nothing is in it that was not."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    for n in range(1, 6):
        send(bus, add_request(f"c.{n}", n if n != 3 else -100))
    await until(lambda: one.total() == 12)
    fence(bus, two, 2, start_seq=6)
    send(bus, add_request("c.6", 10))
    await until(lambda: stored(bus, "c.6"))
    await settle()
    assert two.total() == 22
    assert two.actor().journal.values["tags"] == ["c.1", "c.2", "c.4", "c.5", "c.6"]
    outcome = stored(bus, "c.6")
    assert outcome is not None
    assert (outcome.epoch, outcome.instance_id, outcome.request_seq) == (2, "i-2", 6)


async def test_a_request_that_comes_before_its_grants_fence_is_held(
    bus: MemoryBus, one: Hosted
) -> None:
    """G1, G6: neither served nor acknowledged until it can be judged."""
    hand = Hand()
    accepted = send(bus, add_request("c.1"))
    one.actor().take(hand.delivery(add_request("c.1"), accepted.seq, grant="g-next"))
    await settle()
    assert (one.runs.begun, hand.acked) == ([], 0)
    fence(bus, "i-2", 1)
    await settle()
    assert (one.runs.begun, hand.acked) == ([], 0)
    fence(bus, one, 2, grant="g-next")
    await until(lambda: hand.acked)
    assert kinds(bus) == {"c.1": OutcomeKind.EXECUTED}


# --- serving ----------------------------------------------------------------------------------------------


async def test_requests_take_effect_one_at_a_time_in_their_order(
    bus: MemoryBus, one: Hosted
) -> None:
    """G7."""
    release = one.runs.hold("c.1")
    fence(bus, one, 1)
    for n in range(1, 6):
        send(bus, add_request(f"c.{n}"))
    await until(lambda: one.runs.begun)
    await settle()
    assert one.runs.tags == ["c.1"]
    assert kinds(bus) == {}
    release.set()
    await until(lambda: len(kinds(bus)) == 5)
    assert list(kinds(bus)) == one.runs.tags == [f"c.{n}" for n in range(1, 6)]


async def test_the_next_request_waits_for_the_commit_of_the_one_before(
    bus: MemoryBus, one: Hosted
) -> None:
    """G7: on a cluster a second check of the same fence in flight would be refused."""
    bus.faults.once(Op.COMMIT, Fault.LOST, times=2)
    fence(bus, one, 1)
    send(bus, add_request("c.1"))
    send(bus, add_request("c.2"))
    await until(lambda: one.runs.begun)
    await settle()
    assert one.runs.tags == ["c.1"]
    await until(lambda: len(kinds(bus)) == 2)


async def test_resources_do_not_wait_for_each_other(bus: MemoryBus) -> None:
    hosted = Hosted(bus)
    await hosted.start("A", "B")
    release = hosted.runs.hold("c.1")
    for resource in "AB":
        fence(bus, hosted, 1, resource=resource, grant=f"g-{resource}")
    send(bus, add_request("c.1", resource="A"))
    send(bus, add_request("c.2", resource="B"))
    await until(lambda: stored(bus, "c.2"))
    assert stored(bus, "c.1") is None
    release.set()
    await until(lambda: stored(bus, "c.1"))
    await hosted.stop()


async def test_memory_changes_only_when_the_change_is_stored(
    bus: MemoryBus, one: Hosted, narrowed: bool
) -> None:
    """G5."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    bus.faults.once(Op.COMMIT, Fault.LOST, times=3)
    send(bus, add_request("c.1", 7))
    await until(lambda: one.runs.begun)
    await settle()
    assert one.total() == 0
    await until(lambda: one.total() == 7)
    assert stored(bus, "c.1") is not None


async def test_a_rejection_is_an_outcome_without_effect(
    bus: MemoryBus, one: Hosted, narrowed: bool
) -> None:
    """G3."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    send(bus, add_request("c.1", -5))
    send(bus, add_request("c.2", 1))
    await until(lambda: len(kinds(bus)) == 2)
    await settle()
    assert kinds(bus) == {"c.1": OutcomeKind.REJECTED, "c.2": OutcomeKind.EXECUTED}
    assert one.total() == 1
    assert one.actor().journal.last_request_seq == 2


async def test_a_commit_of_its_own_whose_answer_was_lost_counts_once(
    bus: MemoryBus, one: Hosted, narrowed: bool
) -> None:
    """G3."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    for n in range(1, 4):
        bus.faults.once(Op.COMMIT, Fault.LOST_ANSWER)
        send(bus, add_request(f"c.{n}", n))
        await until(partial(_has_served, one, n))
        await settle()
        assert one.total() == sum(range(n + 1))
    assert len(one.runs.begun) == 3
    assert one.actor().journal.changes == 3


async def test_a_cancel_that_was_first_is_the_outcome_and_changes_nothing(
    bus: MemoryBus, one: Hosted, narrowed: bool
) -> None:
    """G2, G4."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    release = one.runs.hold("c.1")
    send(bus, add_request("c.1", 5))
    send(bus, add_request("c.2", 1))
    await until(lambda: one.runs.begun)
    cancelled = Outcome.error(OutcomeKind.CANCELLED, "cancelled")
    await bus.link().journal.commit(add_request("c.1"), cancelled, fence_seq=None)
    release.set()
    await until(lambda: stored(bus, "c.2"))
    await settle()
    assert stored(bus, "c.1") == cancelled
    assert one.total() == 1


# --- duplicates -------------------------------------------------------------------------------------------


async def test_a_request_that_was_served_before_is_skipped(
    bus: MemoryBus, one: Hosted, two: Hosted
) -> None:
    """G3: a new grant starts early, at worst from the beginning."""
    fence(bus, one, 1)
    for n in range(1, 6):
        send(bus, add_request(f"c.{n}"))
    await until(lambda: len(kinds(bus)) == 5)
    fence(bus, two, 2, start_seq=1)
    send(bus, add_request("c.6"))
    await until(lambda: stored(bus, "c.6"))
    assert two.runs.tags == ["c.6"]
    assert two.host.duplicates_suppressed == 5
    await until(lambda: two.total() == 6)


async def test_what_is_skipped_is_acknowledged(bus: MemoryBus, one: Hosted) -> None:
    """G3: or it would be delivered for ever."""
    fence(bus, one, 1, grant="g")
    send(bus, add_request("c.1"))
    await until(lambda: kinds(bus))
    hand = Hand()
    one.actor().take(hand.delivery(add_request("c.1"), 1, grant="g"))
    await until(lambda: hand.acked)
    assert len(one.runs.begun) == 1


@pytest.mark.parametrize(
    "second",
    [add_request("c.1", attempt=2), add_request("key-svc.k")],
    ids=["sent again", "a key"],
)
async def test_a_second_copy_in_the_stream_is_looked_up_before_it_runs(
    bus: MemoryBus, one: Hosted, second: Request
) -> None:
    """G3: the dedup window had forgotten the first."""
    fence(bus, one, 1)
    send(bus, add_request(second.request_id))
    await until(lambda: kinds(bus))
    bus.requests(SERVICE).forget_ids()
    bus.faults.once(Op.READ, Fault.LOST)
    send(bus, second)
    send(bus, add_request("c.2"))
    await until(lambda: stored(bus, "c.2"))
    await settle()
    assert one.runs.tags[-1] == "c.2"
    assert len(one.runs.begun) == 2
    assert one.total() == 2


async def test_a_second_copy_that_runs_all_the_same_has_no_effect(
    bus: MemoryBus, one: Hosted, narrowed: bool
) -> None:
    """G3: an old publish that comes after the new one; the create-only commit is the last word."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    send(bus, add_request("c.1", 5))
    await until(lambda: kinds(bus))
    bus.requests(SERVICE).forget_ids()
    send(bus, add_request("c.1", 5))
    send(bus, add_request("c.2", 1))
    await until(lambda: stored(bus, "c.2"))
    await settle()
    assert len(one.runs.begun) == 3
    assert one.total() == 6


async def test_a_reader_that_starts_again_neither_doubles_nor_turns_requests(
    bus: MemoryBus, one: Hosted
) -> None:
    """G3, G7: what was not begun is forgotten, for it comes again in order."""
    release = one.runs.hold("c.2")
    fence(bus, one, 1)
    for n in range(1, 6):
        send(bus, add_request(f"c.{n}"))
    await until(lambda: len(one.runs.begun) == 2)
    one.link.cut()
    one.link.restore()
    await settle()
    release.set()
    await until(lambda: len(kinds(bus)) == 5)
    await settle()
    assert list(kinds(bus)) == [f"c.{n}" for n in range(1, 6)]
    assert one.runs.tags == [f"c.{n}" for n in range(1, 6)]
    assert one.total() == 5
    assert one.host.duplicates_suppressed == 1, "only the one that was running came twice"


# --- no longer active -------------------------------------------------------------------------------------


async def test_a_refused_commit_leaves_the_state_as_it_was_and_demotes(
    bus: MemoryBus, one: Hosted, two: Hosted, narrowed: bool
) -> None:
    """G5: a zombie that has not read the new fence learns it from the server."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    release = one.runs.hold("c.1")
    send(bus, add_request("c.1", 5))
    await until(lambda: one.runs.begun)
    one.link.hold(Flow.ENTRIES)
    fence(bus, two, 2)
    await until(lambda: stored(bus, "c.1"))
    release.set()
    await until(lambda: not one.actor().is_active)
    assert one.total() == 0
    assert one.host.commits_fenced == 1
    assert one.host.active == 0
    one.link.release(Flow.ENTRIES)
    await until(lambda: one.total() == 5)
    assert one.actor().role is InstanceRole.FOLLOWING
    assert one.actor().follow is Follow.WHOLE
    outcome = stored(bus, "c.1")
    assert outcome is not None
    assert outcome.instance_id == "i-2"


async def test_a_fence_that_is_read_while_a_handler_runs_ends_its_right_to_commit(
    bus: MemoryBus, one: Hosted, two: Hosted, narrowed: bool
) -> None:
    """G5: it must not commit under a fence that is another's."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    release = one.runs.hold("c.1")
    send(bus, add_request("c.1", 5))
    await until(lambda: one.runs.begun)
    two.link.hold(Flow.DELIVERIES)
    fence(bus, two, 2)
    await until(lambda: not one.actor().is_active)
    release.set()
    await until(lambda: one.host.commits_fenced)
    assert kinds(bus) == {}
    assert one.total() == 0
    two.link.release(Flow.DELIVERIES)
    await until(lambda: stored(bus, "c.1"))
    assert [outcome.epoch for outcome in bus.outcomes(SERVICE).values()] == [2]


async def test_a_run_under_an_old_grant_never_commits_under_the_new_one(
    bus: MemoryBus, one: Hosted, two: Hosted, narrowed: bool
) -> None:
    """G5, G6: the resource went away and came back while the handler ran: it runs again."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    release = one.runs.hold("c.1")
    send(bus, add_request("c.1", 1))
    await until(lambda: one.runs.begun)
    two.link.hold(Flow.DELIVERIES)
    fence(bus, two, 2)
    await _active(two)
    fence(bus, one, 3)
    await until(lambda: one.actor().is_active and one.actor().grant == "g-i-1-3")
    del one.runs.holds["c.1"]
    release.set()
    await until(lambda: stored(bus, "c.1"))
    await until(lambda: one.total() == 1)
    outcome = stored(bus, "c.1")
    assert outcome is not None
    assert (outcome.epoch, outcome.body) == (3, b"1")
    assert one.runs.epochs == [1, 3]
    assert one.host.commits_fenced == 1


async def test_a_new_grant_to_the_same_active_is_served_after_the_old_run_was_refused(
    bus: MemoryBus, one: Hosted, narrowed: bool
) -> None:
    """G5, G8: the refusal is the old fence's; the new one is known and holds."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    release = one.runs.hold("c.1")
    send(bus, add_request("c.1", 1))
    await until(lambda: one.runs.begun)
    fence(bus, one, 2)
    await until(lambda: one.actor().grant == "g-i-1-2" and one.actor().is_active)
    await settle()
    del one.runs.holds["c.1"]
    release.set()
    await until(lambda: stored(bus, "c.1"))
    await settle()
    assert one.actor().is_active
    assert one.runs.epochs == [1, 2]
    assert one.total() == 1


async def test_requests_of_a_grant_that_was_left_are_acknowledged_and_dropped(
    bus: MemoryBus, one: Hosted, two: Hosted
) -> None:
    """G3: the new active's reader has them too."""
    fence(bus, one, 1, grant="g-old")
    await _active(one)
    fence(bus, two, 2)
    await until(lambda: not one.actor().is_active)
    hand = Hand()
    accepted = send(bus, add_request("c.1"))
    one.actor().take(hand.delivery(add_request("c.1"), accepted.seq, grant="g-old"))
    await until(lambda: hand.acked)
    await until(lambda: stored(bus, "c.1"))
    assert (one.runs.begun, len(two.runs.begun)) == ([], 1)


async def test_a_resource_that_went_and_came_back_often_knows_the_requests_of_the_first_grant(
    bus: MemoryBus, one: Hosted
) -> None:
    """G8: one that was held would hold up all behind it."""

    def serves_by(grant: str) -> bool:
        return one.actor().grant == grant

    for epoch in range(1, 41):
        fence(bus, one, epoch, grant=f"g-{epoch}")
        await until(partial(serves_by, f"g-{epoch}"))
    old = Hand()
    one.actor().take(old.delivery(add_request("c.1"), 1, grant="g-1"))
    await until(lambda: old.acked)
    assert stored(bus, "c.1") is None


async def test_what_waits_behind_a_refused_commit_is_left_to_the_new_active(
    bus: MemoryBus, one: Hosted, two: Hosted
) -> None:
    """G3, G7."""
    fence(bus, one, 1)
    await _active(one)
    release = one.runs.hold("c.1")
    for n in range(1, 5):
        send(bus, add_request(f"c.{n}"))
    await until(lambda: one.runs.begun)
    fence(bus, two, 2)
    release.set()
    await until(lambda: len(kinds(bus)) == 4)
    await settle()
    assert one.runs.tags == ["c.1"]
    assert list(kinds(bus)) == two.runs.tags == [f"c.{n}" for n in range(1, 5)]


async def test_after_a_refused_commit_nothing_more_is_begun(
    bus: MemoryBus, one: Hosted, two: Hosted, narrowed: bool
) -> None:
    """G5: even while the newer fence itself has not been read."""
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    release = one.runs.hold("c.1")
    for n in range(1, 5):
        send(bus, add_request(f"c.{n}"))
    await until(lambda: one.runs.begun)
    one.link.hold(Flow.ENTRIES)
    fence(bus, two, 2)
    release.set()
    await until(lambda: one.host.commits_fenced)
    await settle()
    assert one.runs.tags == ["c.1"]
    assert one.host.commits_fenced == 1
    one.link.release(Flow.ENTRIES)
    await until(lambda: one.total() == two.total() == 4)


async def test_an_active_that_followed_fences_alone_reads_what_it_missed(
    bus: MemoryBus, one: Hosted, two: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G6: several epochs passed it by; it folds all of them before it serves again."""
    monkeypatch.setattr(resource_host, "REFOLLOW_WAIT_S", 0.0)
    fence(bus, one, 1)
    await _active(one, narrowed=True)
    one.link.hold(Flow.ENTRIES)
    fence(bus, two, 2)
    send(bus, add_request("c.1", 1))
    await until(lambda: stored(bus, "c.1"))
    fence(bus, two, 3, start_seq=2)
    send(bus, add_request("c.2", 10))
    await until(lambda: stored(bus, "c.2"))
    fence(bus, one, 4, start_seq=3)
    send(bus, add_request("c.3", 100))
    await settle()
    assert stored(bus, "c.3") is None
    one.link.release(Flow.ENTRIES)
    await until(lambda: stored(bus, "c.3"))
    await until(lambda: one.total() == 111)
    assert one.actor().journal.values["tags"] == ["c.1", "c.2", "c.3"]


@pytest.mark.plain
async def test_a_resource_that_is_behind_loses_nothing_when_another_changes_what_is_followed(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G6: what it has not read yet is not counted as read because another resource was further on."""
    monkeypatch.setattr(resource_host, "REFOLLOW_WAIT_S", 0.0)
    one, two = Hosted(bus, "i-1"), Hosted(bus, "i-2")
    await one.start("A", "B")
    await two.start("A", "B")
    for resource in "AB":
        fence(bus, one, 1, resource=resource, grant=f"g-{resource}-1")
        await _active(one, narrowed=True, resource=resource)
    # A moves away and is served there; the old active goes on with B, and then B moves too.
    one.link.hold(Flow.ENTRIES)
    assert await one.host.pause(["A"], timeout_s=1.0)
    fence(bus, two, 2, grant="g-A-2")
    for n in range(1, 4):
        send(bus, add_request(f"c.{n}"))
    await until(lambda: len(kinds(bus)) == 3)
    last = fence(bus, two, 3, grant="g-A-3", start_seq=4)
    send(bus, add_request("c.8", resource="B"))
    await until(lambda: one.total("B") == 1)
    release_b = one.runs.hold("c.9")
    send(bus, add_request("c.9", resource="B"))
    await until(lambda: "c.9" in one.runs.tags)
    fence(bus, two, 2, resource="B", grant="g-B-2", start_seq=5)
    # The old active of both reads A's newest fence, and no more for the moment.
    read = one.actor("A").read

    def read_and_pause(entry: Entry) -> None:
        read(entry)
        one.link.hold(Flow.ENTRIES)

    monkeypatch.setattr(one.actor("A"), "read", read_and_pause)
    one.link.release(Flow.ENTRIES)
    await until(lambda: not one.actor("A").is_active)
    await settle()
    monkeypatch.setattr(one.actor("A"), "read", read)
    # Before it has read what it missed of A, it learns by a refused commit that B is gone too.
    release_b.set()
    await until(lambda: one.host.commits_fenced)
    await settle()
    one.link.release(Flow.ENTRIES)
    await until(lambda: one.total("B") == 2)
    await settle()
    assert one.actor("A").journal.position == last
    assert one.total("A") == 3
    await one.stop()
    await two.stop()


# --- requests that kill their process ---------------------------------------------------------------------


async def test_only_what_an_earlier_active_may_have_begun_is_noted(
    bus: MemoryBus, one: Hosted, two: Hosted
) -> None:
    """The first request after a promotion, if it was stored before; those behind it can't have been."""
    send(bus, add_request("c.1"))
    send(bus, add_request("c.2"))
    fence(bus, one, 1)
    await until(lambda: len(kinds(bus)) == 2)
    send(bus, add_request("c.3"))
    await until(lambda: stored(bus, "c.3"))
    assert one.runs.begun == [("c.1", 2), ("c.2", 1), ("c.3", 1)]


async def test_a_request_that_kills_every_active_is_given_up(bus: MemoryBus) -> None:
    """G8: the requests behind it are served."""
    send(bus, add_request("c.1"))
    send(bus, add_request("c.2"))
    begins = []
    for epoch in range(1, 4):
        hosted = Hosted(bus, f"i-{epoch}")
        hosted.runs.hold("c.1")
        await hosted.start()
        fence(bus, hosted, epoch)
        await until(partial(_began_or_ended, bus, hosted))
        begins += hosted.runs.begun[:1]
        if not kinds(bus):
            await hosted.stop()
    await until(lambda: len(kinds(bus)) == 2)
    # The first instance could not know that nobody was before it.
    assert begins == [("c.1", 2), ("c.1", 3), ("c.2", 1)]
    assert kinds(bus) == {"c.1": OutcomeKind.FAILED, "c.2": OutcomeKind.EXECUTED}
    outcome = stored(bus, "c.1")
    assert outcome is not None
    assert ErrorBody.model_validate_json(outcome.body).code == "gave_up"
    assert (outcome.request_seq, outcome.epoch) == (1, 3)
    assert list(bus.dead_letters) == ["c.1"]
    await hosted.stop()


async def test_a_suspect_runs_alone_on_its_instance(bus: MemoryBus) -> None:
    for epoch in (1, 2):
        first = Hosted(bus, f"i-{epoch}")
        first.runs.hold("c.1")
        await first.start("A", "B")
        if epoch == 1:
            send(bus, add_request("c.1"))
        else:
            fence(bus, first, 1, resource="B", grant="g-B")
            release_b = first.runs.hold("c.2")
            send(bus, add_request("c.2", resource="B"))
            await until(partial(_began_or_ended, bus, first))
        fence(bus, first, epoch)
        if epoch == 1:
            await until(partial(_began_or_ended, bus, first))
            await first.stop()
    await settle()
    assert first.runs.tags == ["c.2"]
    release_b.set()
    await until(lambda: "c.1" in first.runs.tags)
    send(bus, add_request("c.3", resource="B"))
    await settle()
    assert first.runs.tags == ["c.2", "c.1"]
    first.runs.holds["c.1"].set()
    await until(lambda: len(kinds(bus)) == 3)
    assert first.runs.begun[1] == ("c.1", 3)
    await first.stop()


# --- trouble ----------------------------------------------------------------------------------------------


@pytest.mark.plain
async def test_a_bug_in_serving_neither_loses_nor_skips_a_request(
    bus: MemoryBus, one: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G1, G7."""
    failures = iter([RuntimeError("a bug"), OSError("another")])
    run = one.host.runner.run

    async def fail_first(*arguments: object, **more: object) -> Outcome:
        for error in failures:
            raise error
        return await run(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(one.host.runner, "run", fail_first)
    fence(bus, one, 1)
    send(bus, add_request("c.1"))
    send(bus, add_request("c.2"))
    await until(lambda: len(kinds(bus)) == 2)
    assert list(kinds(bus)) == ["c.1", "c.2"]


async def test_a_handlers_own_cancellation_does_not_lose_its_request(bus: MemoryBus) -> None:
    """G1, G7: the request behind it must not make it look as if it were served."""
    service, runs = ledger()

    async def give_up_on_a_task(ctx: ResourceContext, request: object) -> int:
        if ctx.request_id == "c.1":
            raise asyncio.CancelledError
        return 1

    handler = service.handlers["add"]
    object.__setattr__(handler, "function", give_up_on_a_task)
    hosted = Hosted(bus, service=service, runs=runs)
    await hosted.start()
    fence(bus, hosted, 1)
    send(bus, add_request("c.1"))
    send(bus, add_request("c.2"))
    await until(lambda: stored(bus, "c.2") or hosted.actor().is_idle)
    send(bus, add_request("c.3"))
    await until(lambda: stored(bus, "c.3"))
    assert list(kinds(bus)) == ["c.1", "c.2", "c.3"]
    await hosted.stop()


async def test_following_starts_when_the_journal_can_be_read(bus: MemoryBus) -> None:
    hosted = Hosted(bus)
    bus.faults.once(Op.READ, Fault.LOST, times=2)
    fence(bus, hosted, 1)
    send(bus, add_request("c.1"))
    await hosted.host.start(["A"])
    await until(lambda: kinds(bus))
    await hosted.stop()


# --- pause and stop ---------------------------------------------------------------------------------------


async def test_a_pause_ends_what_runs_and_begins_nothing(bus: MemoryBus, one: Hosted) -> None:
    release = one.runs.hold("c.1")
    fence(bus, one, 1)
    send(bus, add_request("c.1"))
    send(bus, add_request("c.2"))
    await until(lambda: one.runs.begun)
    assert not await one.host.pause(["A"], timeout_s=0.01)
    pausing = asyncio.create_task(one.host.pause(["A", "not here"], timeout_s=5.0))
    await settle()
    release.set()
    assert await pausing
    await settle()
    assert list(kinds(bus)) == ["c.1"]
    one.host.resume(["A"])
    await until(lambda: stored(bus, "c.2"))


async def test_a_pause_without_a_handover_ends_by_itself(bus: MemoryBus, one: Hosted) -> None:
    """G8: whoever asked for it may be gone."""
    fence(bus, one, 1)
    await _active(one)
    assert await one.host.pause(["A"], timeout_s=1.0, lease_s=60.0)
    assert await one.host.pause(["A"], timeout_s=1.0, lease_s=0.01)
    assert one.host.paused == 1
    send(bus, add_request("c.1"))
    await until(lambda: stored(bus, "c.1"))
    assert one.host.paused == 0


async def test_a_later_pause_outlasts_the_lease_of_an_earlier_one(
    bus: MemoryBus, one: Hosted
) -> None:
    fence(bus, one, 1)
    await _active(one)
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, over.set)
    assert await one.host.pause(["A"], timeout_s=1.0, lease_s=0.01)
    assert await one.host.pause(["A"], timeout_s=1.0, lease_s=60.0)
    await over.wait()
    send(bus, add_request("c.1"))
    await settle()
    assert not kinds(bus)


async def test_one_that_leaves_is_not_resumed(bus: MemoryBus, one: Hosted) -> None:
    fence(bus, one, 1)
    await _active(one)
    assert await one.host.pause(["A"], timeout_s=1.0, lease_s=0.01)
    assert await one.host.pause(None, timeout_s=1.0)
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, over.set)
    await over.wait()
    one.host.resume()
    send(bus, add_request("c.1"))
    await settle()
    assert not kinds(bus)


async def test_what_waits_in_a_paused_instance_is_served_by_the_next(
    bus: MemoryBus, one: Hosted, two: Hosted
) -> None:
    """G7: a handover."""
    fence(bus, one, 1)
    await _active(one)
    assert await one.host.pause(None, timeout_s=1.0)
    for n in range(1, 4):
        send(bus, add_request(f"c.{n}"))
    await settle()
    fence(bus, two, 2)
    await until(lambda: len(kinds(bus)) == 3)
    one.host.resume()
    await settle()
    assert one.runs.begun == []
    assert list(kinds(bus)) == ["c.1", "c.2", "c.3"]


@pytest.mark.parametrize("leaves", [True, False])
async def test_one_that_leaves_does_not_read_what_its_successor_does(
    bus: MemoryBus, one: Hosted, two: Hosted, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made while its successor begins, its reader would hold up that one's commits."""
    monkeypatch.setattr(resource_host, "REFOLLOW_WAIT_S", 0.0)
    fence(bus, one, 1)
    await _active(one, narrowed=True)
    assert await one.host.pause(None if leaves else ["A"], timeout_s=1.0)
    reader = one.host._following._live.source
    fence(bus, two, 2)
    await until(lambda: not one.actor().is_active)
    if not leaves:
        await until(lambda: one.host._following._live.source is not reader)
    await settle()
    assert (one.host._following._live.source is reader) is leaves


async def test_what_had_begun_when_it_stopped_is_begun_by_the_next(
    bus: MemoryBus, one: Hosted, two: Hosted
) -> None:
    """G1."""
    one.runs.hold("c.1")
    fence(bus, one, 1)
    send(bus, add_request("c.1"))
    await until(lambda: one.runs.begun)
    await one.host.stop()
    assert kinds(bus) == {}
    fence(bus, two, 2)
    await until(lambda: two.total() == 1)


# --- callbacks --------------------------------------------------------------------------------------------


async def test_users_are_told_when_a_resource_comes_and_goes(bus: MemoryBus) -> None:
    service, runs = ledger()
    told: list[str] = []
    service.on_promoted(lambda resource: told.append(f"+{resource}"))

    @service.on_demoted
    async def demoted(resource: str) -> None:
        told.append(f"-{resource}")

    hosted = Hosted(bus, service=service, runs=runs)
    await hosted.start()
    fence(bus, hosted, 1)
    await _active(hosted)
    assert (told, hosted.host.active) == (["+A"], 1)
    fence(bus, "i-9", 2)
    await until(lambda: len(told) == 2)
    assert (told, hosted.host.active) == (["+A", "-A"], 0)
    await hosted.stop()


async def test_a_renewed_grant_is_no_second_promotion(bus: MemoryBus) -> None:
    service, runs = ledger()
    told: list[str] = []
    service.on_promoted(told.append)
    hosted = Hosted(bus, service=service, runs=runs)
    await hosted.start()
    fence(bus, hosted, 1)
    await _active(hosted)
    fence(bus, hosted, 2)
    send(bus, add_request("c.1"))
    await until(lambda: kinds(bus))
    assert (told, hosted.host.active) == (["A"], 1)
    await hosted.stop()


# --- grants -----------------------------------------------------------------------------------------------


async def test_one_reader_serves_all_resources_of_a_grant(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted = Hosted(bus)
    opened: list[list[str]] = []
    open_grant = hosted.link.deliveries.open_grant

    async def counting(service: str, grant: str, resources: list[str], **more: object) -> object:
        opened.append(resources)
        return await open_grant(service, grant, resources, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(hosted.link.deliveries, "open_grant", counting)
    names = [f"R{n}" for n in range(20)]
    await hosted.start(*names)
    for n, name in enumerate(names, start=1):
        fence(bus, hosted, 1, resource=name, grant="g", size=20)
        send(bus, add_request(f"c.{n}", resource=name))
    await until(lambda: len(kinds(bus)) == 20)
    assert opened == [sorted(names)]
    await hosted.stop()


async def test_a_fence_that_comes_late_is_served_with_its_grant(bus: MemoryBus) -> None:
    """G1: the reader is made again, from the grant's start."""
    hosted = Hosted(bus)
    await hosted.start("A", "B")
    send(bus, add_request("c.1", resource="A"))
    send(bus, add_request("c.2", resource="B"))
    fence(bus, hosted, 1, resource="A", grant="g", size=0)
    await until(lambda: stored(bus, "c.1"))
    fence(bus, hosted, 1, resource="B", grant="g", size=0)
    await until(lambda: stored(bus, "c.2"))
    send(bus, add_request("c.3", resource="A"))
    await until(lambda: stored(bus, "c.3"))
    assert sorted(hosted.runs.tags) == ["c.1", "c.2", "c.3"]
    await hosted.stop()


async def test_a_grant_that_is_left_while_its_reader_is_made_is_not_read(
    bus: MemoryBus, one: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer of a grant that is another's would hold its requests for an hour."""
    made, go = asyncio.Event(), asyncio.Event()
    open_grant = one.link.deliveries.open_grant

    async def slow(*arguments: object, **more: object) -> object:
        made.set()
        await go.wait()
        return await open_grant(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(one.link.deliveries, "open_grant", slow)
    fence(bus, one, 1)
    await made.wait()
    fence(bus, "i-9", 2)
    await until(lambda: not one.actor().is_active)
    go.set()
    await settle()
    stream = bus.requests(SERVICE)
    assert not [
        listener
        for listener in stream.listeners
        if type(getattr(listener, "__self__", None)).__name__ == "GrantReader"
    ]


async def test_a_past_that_may_not_be_read_yet_is_read_once_it_may(
    bus: MemoryBus, one: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G6: rights come and go with the server's configuration."""
    fence(bus, one, 1)
    send(bus, add_request("c.1", 7))
    await until(lambda: stored(bus, "c.1"))
    late = Hosted(bus, "i-2")
    follow, refusals = late.link.journal.follow, [StoreForbidden("not this consumer")] * 2

    async def forbidden(service: str, **more: Any) -> Any:
        if more["from_seq"] is not None and refusals:
            raise refusals.pop()
        return await follow(service, **more)

    monkeypatch.setattr(late.link.journal, "follow", forbidden)
    await late.start()
    await until(lambda: late.total() == 7)
    assert refusals == []
    await late.stop()


async def test_an_instance_that_stops_leaves_no_reader_half_made(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = asyncio.all_tasks()
    hosted, made = Hosted(bus), asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        made.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(hosted.link.deliveries, "open_grant", never)
    await hosted.start()
    fence(bus, hosted, 1)
    await made.wait()
    await hosted.stop()
    await settle()
    assert not asyncio.all_tasks() - before


async def test_a_bound_of_requests_is_kept_whole_and_of_the_others_their_places(
    bus: MemoryBus,
) -> None:
    """G7: they are read again when their turn comes, in their order."""
    hosted = Hosted(bus, near_max=4)
    await hosted.start()
    release = hosted.runs.hold("c.1")
    fence(bus, hosted, 1)
    for n in range(1, 21):
        send(bus, add_request(f"c.{n}"))
    await until(lambda: hosted.runs.begun)
    await settle()
    assert (len(hosted.actor()._queue), len(hosted.actor()._far)) == (3, 16)
    release.set()
    await until(lambda: len(kinds(bus)) == 20)
    assert hosted.runs.tags == [f"c.{n}" for n in range(1, 21)]
    await until(lambda: hosted.host._near == 0)
    await hosted.stop()


# --- checkpoints ------------------------------------------------------------------------------------------


async def _served(bus: MemoryBus, hosted: Hosted, first: int, last: int) -> None:
    for n in range(first, last + 1):
        send(bus, add_request(f"c.{n}"))
    await until(lambda: len(kinds(bus)) == last and hosted.actor().is_idle)


async def test_a_standby_that_starts_at_a_checkpoint_has_the_same_state(
    bus: MemoryBus, narrowed: bool
) -> None:
    """G6."""
    one = Hosted(bus, "i-1", checkpoint_changes=5)
    await one.start()
    fence(bus, one, 1)
    await _active(one, narrowed=narrowed)
    await _served(bus, one, 1, 13)
    starts = await bus.link().journal.start_of(SERVICE, ["A"])
    assert starts["A"] > 5
    late = Hosted(bus, "i-2")
    await late.start()
    fence(bus, late, 2)
    send(bus, add_request("c.14"))
    await until(lambda: stored(bus, "c.14"))
    await settle()
    assert late.total() == 14
    assert late.runs.tags == ["c.14"]
    await one.stop()
    await late.stop()


async def test_between_two_checkpoints_there_is_a_rest_however_many_changes_come(
    bus: MemoryBus,
) -> None:
    one = Hosted(bus, checkpoint_changes=2, checkpoint_rest_s=60.0)
    await one.start()
    fence(bus, one, 1)
    await _served(bus, one, 1, 2)
    first = await bus.link().journal.start_of(SERVICE, ["A"])
    await _served(bus, one, 3, 20)
    assert await bus.link().journal.start_of(SERVICE, ["A"]) == first
    assert one.actor().journal.changes == 18
    one.actor()._no_checkpoint_until_s = 0.0  # the rest is over
    await _served(bus, one, 21, 21)
    assert (await bus.link().journal.start_of(SERVICE, ["A"]))["A"] > first["A"]
    assert one.actor().journal.changes == 0
    await one.stop()


async def test_a_state_over_half_a_message_is_checkpointed_in_parts(bus: MemoryBus) -> None:
    """G6."""
    bus.limits.payload_bytes_max = 300
    one = Hosted(bus, "i-1", checkpoint_changes=1)
    await one.start()
    fence(bus, one, 1)
    await _served(bus, one, 1, 15)
    late = Hosted(bus, "i-2")
    await late.start()
    assert late.actor().complete_to > 1
    await until(lambda: late.total() == 15)
    assert late.actor().journal.values == one.actor().journal.values
    await one.stop()
    await late.stop()


async def _read_anew(bus: MemoryBus, last: int) -> dict[str, object]:
    """The state as a standby has it that comes now and reads up to the request `last`."""
    late = Hosted(bus, "i-2")
    await late.start()
    await until(lambda: late.actor().journal.last_request_seq == last)
    await late.stop()
    return late.actor().journal.values


async def test_parts_go_when_another_checkpoint_replaced_them_and_not_before(
    bus: MemoryBus, narrowed: bool
) -> None:
    """G6: an active that still follows everything reads its own checkpoint while it stores it."""
    bus.limits.payload_bytes_max = 300
    one = Hosted(bus, "i-1", checkpoint_changes=5)
    await one.start()
    fence(bus, one, 1)
    for first in range(1, 41, 5):
        await _served(bus, one, first, first + 4)
        await settle()
        assert await _read_anew(bus, first + 4) == one.actor().journal.values
    ids = {
        key[2].partition(".")[0] for key, _ in bus.journal(SERVICE).entries() if key[1] == "part"
    }
    assert len(ids) == 1
    await one.stop()


async def test_what_no_checkpoint_covers_is_stored_within_an_age(bus: MemoryBus) -> None:
    """However few the changes are: what is older can be trimmed."""
    one = Hosted(bus, "i-1", checkpoint_age_s=0.02)
    await one.start()
    fence(bus, one, 1)
    await _served(bus, one, 1, 2)
    await until(lambda: one.actor().journal.is_covered)
    before = await bus.link().journal.start_of(SERVICE, ["A"])
    await asyncio.sleep(0.1)
    assert await bus.link().journal.start_of(SERVICE, ["A"]) == before  # nothing new to say
    late = Hosted(bus, "i-2")
    await late.start()
    await until(lambda: late.total() == 2)
    assert late.actor().journal.last_request_seq == 2
    await one.stop()
    await late.stop()


async def test_a_checkpoint_that_is_due_while_the_last_request_runs_follows_it(
    bus: MemoryBus, one: Hosted
) -> None:
    """Else it would wait for the next request, or for another age."""
    fence(bus, one, 1)
    await _served(bus, one, 1, 2)
    release = one.runs.hold("c.3")
    send(bus, add_request("c.3"))
    await until(lambda: len(one.runs.begun) == 3)
    one.actor().checkpoint_soon()
    release.set()
    await until(lambda: one.actor().journal.last_request_seq == 3)
    await until(lambda: one.actor().journal.is_covered)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.LOST_ANSWER])
async def test_a_checkpoint_that_fails_holds_nothing_up(bus: MemoryBus, fault: Fault) -> None:
    one = Hosted(bus, checkpoint_changes=2)
    await one.start()
    bus.faults.once(Op.CHECKPOINT, fault)
    fence(bus, one, 1)
    await _served(bus, one, 1, 4)
    assert one.actor().journal.changes < 2
    assert one.total() == 4
    await one.stop()


async def test_a_refused_checkpoint_ends_being_active(
    bus: MemoryBus, two: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G5: a zombie's checkpoint would hide what the new active committed."""
    one = Hosted(bus, "i-1", checkpoint_changes=2)
    await one.start()
    fence(bus, one, 1)
    await _served(bus, one, 1, 1)
    one.link.hold(Flow.ENTRIES)
    store = one.link.journal.store_checkpoint

    async def after_a_fence(*arguments: object, **more: object) -> tuple[int, Checkpoint]:
        fence(bus, two, 2)
        return await store(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(one.link.journal, "store_checkpoint", after_a_fence)
    send(bus, add_request("c.2"))
    await until(lambda: one.host.commits_fenced)
    assert not one.actor().is_active
    assert not await bus.link().journal.start_of(SERVICE, ["A"])
    await until(lambda: two.total() == 2)
    await one.stop()


async def test_change_is_what_a_follower_needs_and_nothing_else(
    bus: MemoryBus, one: Hosted
) -> None:
    """G3: the reply and the change are one message."""
    fence(bus, one, 1)
    send(bus, add_request("c.1", 3))
    await until(lambda: kinds(bus))
    outcome = stored(bus, "c.1")
    assert outcome is not None
    assert outcome.body == b"3"
    assert Change.decode(outcome.change) == Change({"total": 3, "tags": ["c.1"]})
