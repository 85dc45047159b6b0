"""Requests of a hot resource that are stored at once: all the promises, and as if each had been alone."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aegis_sdk import Rejected, ResourceContext, Service
from aegis_sdk.application import actor, batch, commit, resource_host
from aegis_sdk.application.batch import BATCH_MAX, DEADLINE_S
from aegis_sdk.application.ports import AlreadyStored, StoreUnreachable
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.domain.journal import EntryKind, Follow, ResourceJournal
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.testing import Fault, Faults, Flow, MemoryBus, Op
from aegis_sdk.testing.streams import outcome_key

from tests.unit.sdk.support import (
    ADD,
    SERVICE,
    Add,
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

CANCELLED = Outcome.error(OutcomeKind.CANCELLED, "cancelled")


@dataclass
class Ran:
    """What the pure handler did; `raises` are the requests at which it breaks."""

    tags: list[str] = field(default_factory=list)
    raises: set[str] = field(default_factory=set)


def pure_ledger(ran: Ran) -> Service:
    """`add` as a pure handler. A negative number is rejected, after the state was changed."""
    service = Service(SERVICE)

    @service.handles(ADD, pure=True)
    def add(ctx: ResourceContext, request: Add) -> int:
        ran.tags.append(request.tag)
        total: int = (ctx.state.get("total", int) or 0) + request.n
        ctx.state.set("total", total)
        ctx.state.set("tags", [*(ctx.state.get("tags", list) or []), request.tag])
        if request.tag in ran.raises:
            raise RuntimeError(request.tag)
        if request.n < 0:
            raise Rejected("negative")
        return total

    return service


class Pure(Hosted):
    """An instance whose handler is pure, on a journal where batches are worth it."""

    def __init__(self, bus: MemoryBus, name: str, **options: Any) -> None:
        self.ran = Ran()
        options = {"batches": True, **options}
        super().__init__(bus, name, service=pure_ledger(self.ran), **options)

    async def activate(self, epoch: int = 1, *, narrowed: bool = False) -> None:
        fence(self.bus, self, epoch)
        await until(lambda: self.actor().is_active)
        if narrowed:
            await until(lambda: self.actor().follow is Follow.FENCES)
        await settle()

    @property
    def values(self) -> dict[str, Any]:
        return self.actor().journal.values


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor, "FAILED_WAIT_S", 0.0)
    monkeypatch.setattr(resource_host, "GRANT_GATHER_S", 0.0)
    monkeypatch.setattr(commit, "WAIT_S_MAX", 0.001)
    monkeypatch.setattr(batch, "BATCH_RUN_S", 60.0)


@pytest.fixture
async def one(bus: MemoryBus) -> AsyncIterator[Pure]:
    hosted = Pure(bus, "i-1")
    await hosted.start()
    yield hosted
    await hosted.stop()


@pytest.fixture
async def two(bus: MemoryBus) -> AsyncIterator[Pure]:
    hosted = Pure(bus, "i-2")
    await hosted.start()
    yield hosted
    await hosted.stop()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch, one: Pure) -> list[list[str]]:
    """The request ids of each commit that i-1 tried, several in one for a batch."""
    return _watched(monkeypatch, one)


def _watched(monkeypatch: pytest.MonkeyPatch, hosted: Hosted) -> list[list[str]]:
    seen: list[list[str]] = []
    journal = hosted.link.journal
    single, together = journal.commit, journal.commit_together

    async def watch_single(request: Request, outcome: Outcome, *, fence_seq: int | None) -> int:
        seen.append([request.request_id])
        return await single(request, outcome, fence_seq=fence_seq)

    async def watch_together(pairs: Sequence[tuple[Request, Outcome]], *, fence_seq: int) -> int:
        seen.append([request.request_id for request, _ in pairs])
        return await together(pairs, fence_seq=fence_seq)

    monkeypatch.setattr(journal, "commit", watch_single)
    monkeypatch.setattr(journal, "commit_together", watch_together)
    return seen


def ids(first: int, last: int) -> list[str]:
    return [f"c.{n}" for n in range(first, last + 1)]


def send_all(bus: MemoryBus, first: int, last: int) -> None:
    """Each adds its number."""
    for n in range(first, last + 1):
        send(bus, add_request(f"c.{n}", n))


def cancel(bus: MemoryBus, request_id: str) -> None:
    """A caller's, which is first."""
    key = outcome_key(add_request(request_id))
    bus.journal(SERVICE).write(key, CANCELLED.payload(), CANCELLED.headers())


def folded(bus: MemoryBus) -> ResourceJournal:
    """What a standby that reads the journal from its beginning has."""
    fold = ResourceJournal("A")
    for _, entry in bus.journal(SERVICE).entries():
        fold.apply(entry)
    return fold


# --- what is stored at once -----------------------------------------------------------------------------------


async def test_what_waits_is_stored_at_once_and_in_order(
    bus: MemoryBus, one: Pure, commits: list[list[str]], narrowed: bool
) -> None:
    """G3, G7: each has its own outcome, computed on what those before it made of the state."""
    await one.activate(narrowed=narrowed)
    send_all(bus, 1, 5)
    await until(lambda: len(kinds(bus)) == 5)
    await settle()
    assert commits == [ids(1, 5)]
    outcomes = bus.outcomes(SERVICE)
    assert list(outcomes) == one.ran.tags == ids(1, 5)
    assert [int(outcome.body) for outcome in outcomes.values()] == [1, 3, 6, 10, 15]
    assert [outcome.request_seq for outcome in outcomes.values()] == [1, 2, 3, 4, 5]
    assert one.values == folded(bus).values == {"total": 15, "tags": ids(1, 5)}
    assert one.actor().journal.position == folded(bus).position
    assert one.actor().journal.changes == 5


async def test_a_request_alone_is_stored_alone(
    bus: MemoryBus, one: Pure, commits: list[list[str]]
) -> None:
    await one.activate()
    for n in range(1, 4):
        send(bus, add_request(f"c.{n}"))
        await until(lambda: len(kinds(bus)) == n)  # noqa: B023 - awaited at once
        await settle()
    assert commits == [["c.1"], ["c.2"], ["c.3"]]


async def test_on_a_journal_of_one_copy_each_is_stored_alone(
    bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted = Pure(bus, "i-1", batches=False)
    commits = _watched(monkeypatch, hosted)
    await hosted.start()
    await hosted.activate()
    send_all(bus, 1, 4)
    await until(lambda: len(kinds(bus)) == 4)
    assert commits == [[request_id] for request_id in ids(1, 4)]
    await hosted.stop()


@pytest.mark.plain
async def test_a_batch_is_bounded_in_number_time_and_bytes(
    bus: MemoryBus, one: Pure, commits: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: the first one's answer does not wait for all that wait behind it."""
    await one.activate()
    send_all(bus, 1, BATCH_MAX + 3)
    await until(lambda: len(kinds(bus)) == BATCH_MAX + 3)
    assert [len(each) for each in commits] == [BATCH_MAX, 3]
    commits.clear()
    monkeypatch.setattr(batch, "BATCH_RUN_S", 0.0)
    send_all(bus, 101, 103)
    await until(lambda: stored(bus, "c.103"))
    assert commits == [["c.101"], ["c.102"], ["c.103"]]
    commits.clear()
    monkeypatch.setattr(batch, "BATCH_RUN_S", 60.0)
    monkeypatch.setattr(batch, "BATCH_BYTES_MAX", 500)
    send_all(bus, 201, 203)
    await until(lambda: stored(bus, "c.203"))
    assert [len(each) for each in commits] == [2, 1]


async def test_rejected_and_failed_ones_leave_no_trace_in_a_batch(
    bus: MemoryBus, one: Pure, commits: list[list[str]], narrowed: bool
) -> None:
    """G3, G4: the ones behind them see nothing of what they had changed."""
    await one.activate(narrowed=narrowed)
    one.ran.raises.add("c.3")
    send(bus, add_request("c.1", 1))
    send(bus, add_request("c.2", -7))
    send(bus, add_request("c.3", 7))
    send(bus, add_request("c.5", 5))
    await until(lambda: len(kinds(bus)) == 4)
    await settle()
    executed, rejected = OutcomeKind.EXECUTED, OutcomeKind.REJECTED
    assert list(kinds(bus).values()) == [executed, rejected, OutcomeKind.FAILED, executed]
    assert commits == [["c.1", "c.2", "c.3", "c.5"]]
    assert one.values == folded(bus).values == {"total": 6, "tags": ["c.1", "c.5"]}


async def test_a_deleted_key_is_gone_for_those_behind(bus: MemoryBus) -> None:
    service, seen = Service(SERVICE), []

    @service.handles(ADD, pure=True)
    def add(ctx: ResourceContext, request: Add) -> int:
        seen.append(ctx.state.keys())
        if request.n:
            ctx.state.set(f"k{request.n}", request.n)
        else:
            ctx.state.delete("k1")
        return 0

    hosted = Hosted(bus, "i-1", service=service, batches=True)
    await hosted.start()
    fence(bus, hosted, 1)
    await until(lambda: hosted.actor().is_active)
    await settle()
    for n, number in enumerate([1, 2, 0, 3, 1], 1):
        send(bus, add_request(f"c.{n}", number))
    await until(lambda: len(kinds(bus)) == 5)
    await settle()
    assert seen == [[], ["k1"], ["k1", "k2"], ["k2"], ["k2", "k3"]]
    assert hosted.actor().journal.values == folded(bus).values == {"k1": 1, "k2": 2, "k3": 3}
    await hosted.stop()


async def test_each_is_acknowledged_and_counted(bus: MemoryBus) -> None:
    recorder = Recorder()
    recorder.serves(SERVICE, [("add", True)])
    hosted = Pure(bus, "i-1", recorder=recorder)
    await hosted.start()
    fence(bus, hosted, 1, grant="g", start_seq=100)
    await until(lambda: hosted.actor().is_active)
    hands = [Hand() for _ in range(3)]
    for n, hand in enumerate(hands, 1):
        hosted.actor().take(hand.delivery(add_request(f"c.{n}"), 100 + n, grant="g"))
    await until(lambda: len(kinds(bus)) == 3)
    await settle()
    assert [hand.acked for hand in hands] == [1, 1, 1]
    counted = {family.name: value for family, _, value in recorder.numbers() if value}
    assert counted["aegis_batched_outcomes_total"] == 3
    assert counted["aegis_requests_total"] == 3
    totals = {family.name: histogram.total for family, _, histogram in recorder.histograms()}
    assert totals["aegis_process_duration_seconds"] == totals["aegis_commit_duration_seconds"] == 3
    await hosted.stop()


# --- who may not be among others ------------------------------------------------------------------------------


async def test_what_has_to_be_looked_up_is_served_alone(
    bus: MemoryBus, one: Pure, commits: list[list[str]]
) -> None:
    """G3: sent again by its caller, or a key that anyone may have used."""
    await one.activate()
    send_all(bus, 1, 2)
    send(bus, add_request("c.3", attempt=2))
    send(bus, add_request("key-svc.k"))
    send_all(bus, 5, 6)
    await until(lambda: len(kinds(bus)) == 6)
    assert commits == [ids(1, 2), ["c.3"], ["key-svc.k"], ids(5, 6)]


async def test_what_is_nearly_or_quite_past_its_deadline_keeps_nobody_out(
    bus: MemoryBus, one: Pure, commits: list[list[str]]
) -> None:
    """G4: its caller's `cancelled` is on its way."""
    await one.activate()
    send_all(bus, 1, 2)
    send(bus, add_request("c.3", 3, deadline_s=time.time() + DEADLINE_S / 2))
    send(bus, add_request("c.4", 4, deadline_s=1.0))
    send(bus, add_request("c.5", 5, deadline_s=time.time() + 60.0))
    send_all(bus, 6, 7)
    await until(lambda: len(kinds(bus)) == 7)
    assert commits == [ids(1, 2), ["c.3"], ["c.4"], ids(5, 7)]
    assert kinds(bus)["c.4"] is OutcomeKind.EXPIRED


async def test_a_second_copy_of_one_in_the_batch_is_not_in_it(
    bus: MemoryBus, one: Pure, commits: list[list[str]]
) -> None:
    """G3: a reader that starts again delivers what is queued once more."""
    fence(bus, one, 1, grant="g", start_seq=100)
    await until(lambda: one.actor().is_active)
    for n in (1, 2, 1, 2, 3):
        one.actor().take(Hand().delivery(add_request(f"c.{n}", n), 100 + n, grant="g"))
    await until(lambda: len(kinds(bus)) == 3)
    await settle()
    assert commits == [ids(1, 2), ["c.3"]]
    assert one.values["tags"] == ids(1, 3)


async def test_what_a_process_may_have_died_of_does_not_take_others_along(
    bus: MemoryBus, one: Pure, commits: list[list[str]]
) -> None:
    """ADR 0006: after a promotion the first ones go one by one; each death brings the killer nearer."""
    send_all(bus, 1, BATCH_MAX + 4)
    await one.activate()
    await until(lambda: len(kinds(bus)) == BATCH_MAX + 4)
    assert commits == [
        *([request_id] for request_id in ids(1, BATCH_MAX)),
        ids(BATCH_MAX + 1, BATCH_MAX + 4),
    ]


async def test_nothing_runs_beside_a_suspect_that_runs_alone(bus: MemoryBus, one: Pure) -> None:
    """ADR 0006: nor does what waits hold the suspect up."""
    await one.activate()
    async with one.isolation.alone("k.1"):
        send_all(bus, 1, 3)
        await settle()
        assert one.ran.tags == []
    await until(lambda: one.actor().journal.last_request_seq == 3)
    assert one.values["tags"] == ids(1, 3)


# --- refused, fenced, unknown ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [1, 3, 5])
async def test_a_cancel_in_the_middle_undoes_what_was_computed_on_it(
    bus: MemoryBus, one: Pure, narrowed: bool, cancelled: int
) -> None:
    """G2, G4: those in front of it stay as computed, those behind it run again, without its change."""
    await one.activate(narrowed=narrowed)
    send_all(bus, 1, 5)
    await until(lambda: one.ran.tags)
    cancel(bus, f"c.{cancelled}")
    await until(lambda: one.actor().journal.last_request_seq == 5)
    await settle()
    assert stored(bus, f"c.{cancelled}") == CANCELLED
    rest = [request_id for request_id in ids(1, 5) if request_id != f"c.{cancelled}"]
    assert one.values == folded(bus).values == {"total": 15 - cancelled, "tags": rest}
    assert one.ran.tags == ids(1, 5) + ids(cancelled + 1, 5)


async def test_a_fence_between_run_and_commit_refuses_all_of_it(
    bus: MemoryBus, one: Pure, two: Pure, narrowed: bool
) -> None:
    """G5, G6: nothing of the batch is stored, and the new active serves it."""
    await one.activate(narrowed=narrowed)
    one.link.hold(Flow.ENTRIES)
    send_all(bus, 1, 5)
    await until(lambda: one.ran.tags)
    fence(bus, two, 2)
    await until(lambda: not one.actor().is_active)
    assert one.host.commits_fenced == 1
    assert one.values == {}
    one.link.release(Flow.ENTRIES)
    await until(lambda: len(kinds(bus)) == 5)
    assert {outcome.epoch for outcome in bus.outcomes(SERVICE).values()} == {2}
    await until(lambda: one.values == two.values == {"total": 15, "tags": ids(1, 5)})


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.LOST_ANSWER])
@pytest.mark.parametrize("singles_too", [False, True])
async def test_an_unknown_result_is_resolved_before_anything_else(
    bus: MemoryBus, one: Pure, narrowed: bool, fault: Fault, singles_too: bool
) -> None:
    """G3, G7: stored or not, each takes effect once, in order, and no handler runs again."""
    await one.activate(narrowed=narrowed)
    bus.faults.once(Op.COMMITS, fault)
    if singles_too:
        bus.faults.once(Op.COMMIT, Fault.LOST_ANSWER, times=3)
    send_all(bus, 1, 5)
    await until(lambda: len(one.actor().journal.values.get("tags", [])) == 5)
    send(bus, add_request("c.6", 6))
    await until(lambda: stored(bus, "c.6"))
    await settle()
    assert one.ran.tags == ids(1, 6)
    assert list(kinds(bus)) == ids(1, 6)
    assert one.values == folded(bus).values == {"total": 21, "tags": ids(1, 6)}
    assert one.actor().journal.last_request_seq == 6
    assert one.actor().journal.changes == 6


@pytest.mark.parametrize("singles_first", range(5))
@pytest.mark.parametrize("cancelled", [0, 1, 3])
async def test_a_batch_that_is_stored_late_is_all_there_is_or_nothing(
    bus: MemoryBus,
    one: Pure,
    monkeypatch: pytest.MonkeyPatch,
    narrowed: bool,
    singles_first: int,
    cancelled: int,
) -> None:
    """G2, G3: a publish that timed out can arrive at any moment after it; `cancelled` is by a caller."""
    await one.activate(narrowed=narrowed)
    journal = one.link.journal
    single, together = journal.commit, journal.commit_together
    on_its_way: list[tuple[Sequence[tuple[Request, Outcome]], int]] = []
    singles = 0

    async def arrive() -> None:
        pairs, fence_seq = on_its_way.pop()
        with contextlib.suppress(AlreadyStored):  # nobody hears what it says
            await together(pairs, fence_seq=fence_seq)

    async def lose(pairs: Sequence[tuple[Request, Outcome]], *, fence_seq: int) -> int:
        on_its_way.append((pairs, fence_seq))
        if cancelled:
            await bus.link().journal.commit(pairs[cancelled - 1][0], CANCELLED, fence_seq=None)
        monkeypatch.setattr(journal, "commit_together", together)
        raise StoreUnreachable("no answer in time")

    async def slow(request: Request, outcome: Outcome, *, fence_seq: int | None) -> int:
        nonlocal singles
        if singles == singles_first and on_its_way:
            await arrive()
        singles += 1
        return await single(request, outcome, fence_seq=fence_seq)

    monkeypatch.setattr(journal, "commit_together", lose)
    monkeypatch.setattr(journal, "commit", slow)
    send_all(bus, 1, 5)
    await until(lambda: len(kinds(bus)) == 5 and one.actor().journal.last_request_seq == 5)
    await settle()
    rest = [n for n in range(1, 6) if n != cancelled]
    expected = {"total": sum(rest), "tags": [f"c.{n}" for n in rest]}
    assert one.values == folded(bus).values == expected


async def test_no_checkpoint_hides_what_is_stored_and_not_known(
    bus: MemoryBus, narrowed: bool
) -> None:
    """G6: one of the state before the end of a batch that is stored would take its standby back."""
    hosted = Pure(bus, "i-1", checkpoint_changes=1)
    standby = Pure(bus, "i-2")
    await hosted.start()
    await standby.start()
    await hosted.activate(narrowed=narrowed)
    bus.faults.once(Op.COMMITS, Fault.LOST_ANSWER)
    send_all(bus, 1, 5)
    await until(lambda: one_commit(hosted))
    hosted.actor().checkpoint_soon()
    await until(lambda: any(key[1] is EntryKind.CHECKPOINT for key, _ in _entries(bus)))
    await until(lambda: standby.actor().journal.last_request_seq == 5)
    await settle()
    assert standby.values == folded(bus).values == {"total": 15, "tags": ids(1, 5)}
    await hosted.stop()
    await standby.stop()


def one_commit(hosted: Pure) -> bool:
    return hosted.actor().journal.last_request_seq > 0


def _entries(bus: MemoryBus) -> list[tuple[Any, Any]]:
    return list(bus.journal(SERVICE).entries())


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.LOST_ANSWER])
async def test_a_reader_that_starts_again_while_a_batch_is_in_doubt_changes_nothing(
    bus: MemoryBus, one: Pure, narrowed: bool, fault: Fault
) -> None:
    """G3, G7: the connection is lost, so all that is in hand is delivered once more."""
    await one.activate(narrowed=narrowed)
    bus.faults.once(Op.COMMITS, fault)
    send_all(bus, 1, 5)
    await until(lambda: one.ran.tags)
    await asyncio.sleep(0)
    one.link.cut()
    await settle()
    send_all(bus, 6, 8)
    one.link.restore()
    await until(lambda: one.actor().journal.last_request_seq == 8)
    await settle()
    assert one.values == folded(bus).values == {"total": 36, "tags": ids(1, 8)}
    assert one.ran.tags == ids(1, 8)


async def test_an_outcome_too_large_fails_alone(bus: MemoryBus, one: Pure) -> None:
    """G3: those behind it were computed on a change that is not stored, so they run again."""
    await one.activate()
    send(bus, add_request("c.1", 1))
    send(bus, Request("c.2", SERVICE, "add", "A", ADD.request.encode(Add(n=2, tag="x" * 600))))
    send(bus, add_request("c.3", 3))
    bus.limits.payload_bytes_max = 500
    await until(lambda: len(kinds(bus)) == 3)
    await settle()
    assert list(kinds(bus).values()) == [
        *(OutcomeKind.EXECUTED, OutcomeKind.FAILED, OutcomeKind.EXECUTED)
    ]
    assert one.values == folded(bus).values == {"total": 4, "tags": ["c.1", "c.3"]}


async def test_a_full_journal_loses_nothing(bus: MemoryBus, one: Pure) -> None:
    """G1: what can't be stored now is stored when there is room."""
    await one.activate()
    bus.limits.journal_max = 4  # the marker, the fence, and two more
    send_all(bus, 1, 5)
    await until(lambda: len(kinds(bus)) == 2)
    await settle()
    bus.limits.journal_max = None
    await until(lambda: len(kinds(bus)) == 5)
    await until(lambda: one.values == folded(bus).values == {"total": 15, "tags": ids(1, 5)})


@pytest.mark.plain
async def test_a_bug_of_ours_neither_loses_nor_turns_requests(
    bus: MemoryBus, one: Pure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G1, G7: all of the batch are done again, each in its place."""
    await one.activate()
    compute, runs = one.host.runner.compute, 0

    def broken(request: Request, **more: Any) -> Outcome:
        nonlocal runs
        runs += 1
        if runs == 3:
            raise KeyError("ours")
        return compute(request, **more)

    monkeypatch.setattr(one.host.runner, "compute", broken)
    send_all(bus, 1, 5)
    await until(lambda: len(kinds(bus)) == 5)
    await settle()
    assert one.values == folded(bus).values == {"total": 15, "tags": ids(1, 5)}


async def test_a_pause_waits_for_the_batch_and_begins_no_other(bus: MemoryBus, one: Pure) -> None:
    """G8: a handover leaves nothing half done."""
    await one.activate()
    send_all(bus, 1, BATCH_MAX + 5)
    await until(lambda: one.ran.tags)
    assert await one.host.pause(["A"], timeout_s=5.0)
    await settle()
    assert list(kinds(bus)) == one.ran.tags == ids(1, BATCH_MAX)
    one.host.resume(["A"])
    await until(lambda: len(kinds(bus)) == BATCH_MAX + 5)


# --- by chance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
async def test_under_faults_by_chance_each_takes_effect_once_in_order(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G2, G3, G5, G6, G7: two instances in turn, lost and late answers, cancels, readers that start again."""
    monkeypatch.setattr(resource_host, "REFOLLOW_WAIT_S", 0.002)
    dice = random.Random(seed)
    faults = Faults(seed=seed, lost=0.05, lost_answers=0.15, delay_s_max=0.002)
    bus = MemoryBus(faults=faults)
    bus.provision(SERVICE)
    near_max = 3 if seed % 2 else 1000  # every other time, most of what waits is read again
    pair = [Pure(bus, f"i-{n}", checkpoint_changes=7, near_max=near_max) for n in (1, 2)]
    for hosted in pair:
        await hosted.start()
    commits = [_watched(monkeypatch, hosted) for hosted in pair]
    sent = 0
    for epoch in range(1, 5):
        active = pair[dice.randrange(2)]
        fence(bus, active, epoch)
        for _ in range(dice.randrange(2, 6)):
            for _ in range(dice.randrange(1, 25)):
                sent += 1
                send(bus, add_request(f"c.{sent}", sent))
            if dice.random() < 0.7:
                with contextlib.suppress(AlreadyStored):
                    cancel(bus, f"c.{dice.randrange(max(1, sent - 9), sent + 1)}")
            if dice.random() < 0.2:
                active.link.cut()
                await asyncio.sleep(0.001)
                active.link.restore()
            await asyncio.sleep(dice.random() * 0.008)
    await until(lambda: len(kinds(bus)) == sent)
    outcomes = bus.outcomes(SERVICE)
    effects = [name for name in ids(1, sent) if outcomes[name].kind is OutcomeKind.EXECUTED]
    totals = [int(outcomes[name].body) for name in effects]
    numbers = [int(name.removeprefix("c.")) for name in effects]
    assert totals == [sum(numbers[: n + 1]) for n in range(len(numbers))]
    await until(lambda: all(h.values == {"total": sum(numbers), "tags": effects} for h in pair))
    for hosted in pair:
        await hosted.stop()
    assert any(len(each) > 1 for seen in commits for each in seen)
