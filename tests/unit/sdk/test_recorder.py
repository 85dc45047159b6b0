"""What a process counts of itself."""

from __future__ import annotations

import asyncio
import timeit

import pytest
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.metrics import (
    BUCKETS_S,
    COMMIT_DURATION,
    DUPLICATES,
    FAMILIES,
    FENCED_COMMITS,
    HAND_INS_WAITING,
    OTHER,
    PROCESS_DURATION,
    REDELIVERIES,
    REQUEST_DURATION,
    REQUESTS,
    SERIES_MAX,
    STANDBY_LAG,
    Answer,
    Family,
)
from aegis_sdk.domain.recorder import Histogram, NoRecorder, Recorder
from aegis_sdk.errors import AegisError
from aegis_sdk.infrastructure.metrics import RecorderCollector, snapshot_of
from aegis_sdk.testing import Flow, MemoryBus, harness
from prometheus_client import CollectorRegistry, generate_latest

from tests.unit.sdk.support import (
    ADD,
    ECHO,
    SERVICE,
    Add,
    Runs,
    add_request,
    echo_request,
    ledger,
    until,
)

EXECUTED = Outcome(OutcomeKind.EXECUTED, b"1", instance_id="i-1")


def numbers(recorder: Recorder, family: Family) -> dict[tuple[str, ...], float]:
    return {labels: value for found, labels, value in recorder.numbers() if found is family}


def totals(recorder: Recorder, family: Family) -> dict[tuple[str, ...], int]:
    return {
        labels: histogram.total
        for found, labels, histogram in recorder.histograms()
        if found is family
    }


def serve(recorder: Recorder, request: Request, outcome: Outcome = EXECUTED) -> None:
    recorder.settled(request, outcome, wait_s=1.0, process_s=0.004, commit_s=0.001)


def test_a_value_on_a_bound_belongs_to_the_bucket_below_it() -> None:
    """As `le` says: less or equal."""
    histogram = Histogram(REQUEST_DURATION)
    for value in (0.0, BUCKETS_S[0], BUCKETS_S[0] * 1.01, BUCKETS_S[-1], BUCKETS_S[-1] * 2):
        histogram.observe(value)
    assert histogram.counts[:2] == [2, 1]
    assert histogram.counts[-2:] == [1, 1]
    assert histogram.sum == pytest.approx(sum((0.0005025, 10.0, 20.0)))


def test_served_methods_are_shown_at_zero_from_the_start() -> None:
    """A counter that appears with its first count hides that one from a rate."""
    recorder = Recorder()
    recorder.serves(SERVICE, [("add", True), ("echo", False)], lag_entries=lambda: 7)
    assert numbers(recorder, REQUESTS) == {
        (SERVICE, method, route, outcome): 0
        for method, route in (("add", "at"), ("echo", "any"))
        for outcome in ("executed", "rejected", "failed")
    }
    assert totals(recorder, PROCESS_DURATION) == {
        (SERVICE, "add", "at"): 0,
        (SERVICE, "echo", "any"): 0,
    }
    assert numbers(recorder, STANDBY_LAG) == {(SERVICE,): 7}
    assert numbers(recorder, HAND_INS_WAITING) == {(SERVICE,): 0}


def test_what_waits_to_be_handed_in_is_counted_over_all_instances_of_the_process() -> None:
    recorder = Recorder()
    recorder.serves(SERVICE, [], hand_ins=lambda: 3)
    recorder.serves(SERVICE, [], hand_ins=lambda: 4)
    assert numbers(recorder, HAND_INS_WAITING) == {(SERVICE,): 7}


def test_an_outcome_is_counted_by_the_process_that_wrote_it() -> None:
    """G2: one request, one outcome, one count, however many processes see it."""
    instance, caller = Recorder(), Recorder()
    instance.serves(SERVICE, [("add", True)])
    request = add_request("c.1", traceparent="t-1")
    serve(instance, request)
    caller.answered(request, EXECUTED, 0.002)
    assert numbers(instance, REQUESTS)[SERVICE, "add", "at", "executed"] == 1
    assert numbers(caller, REQUESTS) == {}
    assert totals(caller, REQUEST_DURATION) == {(SERVICE, "add", "at"): 1}
    others = Outcome(OutcomeKind.CANCELLED, b"", traceparent="t-1")
    caller.answered(request, others, 0.5)
    assert numbers(caller, REQUESTS) == {(SERVICE, "add", "at", "cancelled"): 1}
    caller.answered(add_request("c.1", traceparent="t-2"), others, 0.1)
    assert numbers(caller, REQUESTS) == {(SERVICE, "add", "at", "cancelled"): 1}


def test_what_has_no_outcome_is_refused_or_unknown() -> None:
    caller = Recorder()
    caller.unanswered(echo_request("c.1"), Answer.REFUSED, 0.001)
    caller.unanswered(echo_request("c.2"), Answer.UNKNOWN, 5.0)
    assert numbers(caller, REQUESTS) == {
        (SERVICE, "echo", "any", "refused"): 1,
        (SERVICE, "echo", "any", "unknown"): 1,
    }


def test_methods_that_a_peer_makes_up_share_one_label() -> None:
    recorder = Recorder()
    recorder.serves(SERVICE, [("add", True)])
    for n in range(50):
        request = add_request(f"c.{n}")
        made_up = type(request)(f"c.{n}", SERVICE, f"made-up-{n}", "A", b"")
        serve(recorder, made_up)
    assert totals(recorder, PROCESS_DURATION) == {
        (SERVICE, "add", "at"): 0,
        (SERVICE, OTHER, "at"): 50,
    }


def test_a_callers_series_are_bounded() -> None:
    recorder = Recorder()
    request = echo_request("c.1")
    for n in range(SERIES_MAX + 100):
        asked = type(request)(f"c.{n}", SERVICE, f"m{n}", None, b"")
        recorder.answered(asked, EXECUTED, 0.001)
    counts = totals(recorder, REQUEST_DURATION)
    assert len(counts) == SERIES_MAX + 1
    assert counts[OTHER, OTHER, "any"] == 100


def test_an_outcome_that_no_handler_made_has_no_durations() -> None:
    """An expired request, or one that is given up: it is counted alone."""
    recorder = Recorder()
    recorder.serves(SERVICE, [("add", True)])
    request = add_request("c.1")
    for wait_s in (None, 0.0, 0.5):
        recorder.settled(request, EXECUTED, wait_s=wait_s, process_s=0.1, commit_s=0.1)
    snapshot = snapshot_of(recorder, source="s", n=1)
    [wait] = [h for h in snapshot.histograms if h.family == "aegis_queue_wait_seconds"]
    assert (sum(wait.counts), wait.sum) == (2, 0.5)
    assert totals(recorder, PROCESS_DURATION) == {(SERVICE, "add", "at"): 2}
    assert numbers(recorder, REQUESTS)[SERVICE, "add", "at", "executed"] == 3


def test_a_snapshot_survives_the_wire() -> None:
    recorder = Recorder()
    recorder.serves(SERVICE, [("add", True)])
    serve(recorder, add_request("c.1"))
    recorder.loop_late(SERVICE, 0.3)
    sent = snapshot_of(recorder, source="s", n=3, final=True)
    read = type(sent).model_validate_json(sent.model_dump_json())
    assert (read.source, read.n, read.final) == ("s", 3, True)
    assert {number.family for number in read.numbers} <= set(FAMILIES)
    [process] = [h for h in read.histograms if h.family == PROCESS_DURATION.name]
    assert process.all_counts().index(1) == BUCKETS_S.index(0.005)
    assert len(process.all_counts()) == len(BUCKETS_S) + 1


def test_prometheus_is_shown_the_same_figures() -> None:
    recorder = Recorder()
    recorder.serves(SERVICE, [("add", True)])
    serve(recorder, add_request("c.1"))
    recorder.fenced(SERVICE)
    recorder.turn_stored(SERVICE, 3)
    recorder.gate("claimed")
    registry = CollectorRegistry()
    registry.register(RecorderCollector(recorder))
    text = generate_latest(registry).decode()
    for line in (
        'aegis_process_duration_seconds_bucket{le="0.0025",method="add",route="at",service="ledger"} 0.0',
        'aegis_process_duration_seconds_bucket{le="0.005",method="add",route="at",service="ledger"} 1.0',
        'aegis_process_duration_seconds_count{method="add",route="at",service="ledger"} 1.0',
        'aegis_fenced_commits_total{service="ledger"} 1.0',
        'aegis_turns_total{service="ledger"} 1.0',
        'aegis_turn_outcomes_bucket{le="2.0",service="ledger"} 0.0',
        'aegis_turn_outcomes_bucket{le="4.0",service="ledger"} 1.0',
        'aegis_gates_total{reason="claimed"} 1.0',
    ):
        assert line in text


def test_a_loop_that_is_on_time_is_no_activity_and_one_that_is_late_is() -> None:
    """A process that only tells that its loop runs has no news for control."""
    recorder = Recorder()
    recorder.serves(SERVICE, [("add", True)])
    before = recorder.activity()
    recorder.loop_late(SERVICE, 0.0002)
    recorder.loop_late(SERVICE, 0.02)
    assert recorder.activity() == before
    recorder.loop_late(SERVICE, 0.03)
    late = recorder.activity()
    assert late != before
    recorder.suppressed(SERVICE)
    assert recorder.activity() != late


def test_without_metrics_nothing_is_counted() -> None:
    """Every way to count is a way to count nothing: a new one can't be forgotten."""
    counting = {
        name
        for name in vars(Recorder)
        if not name.startswith("_") and name not in ("numbers", "histograms", "activity", "runs")
    }
    assert counting == {name for name in vars(NoRecorder) if not name.startswith("_")}


def test_an_observation_costs_less_than_four_microseconds() -> None:
    """The least of several tries: a busy machine makes single ones slow. One that is its own needs a third of that."""
    recorder = Recorder()
    recorder.serves(SERVICE, [("add", True)])
    request = add_request("c.1")
    ways = {
        "answered": lambda: recorder.answered(request, EXECUTED, 0.0012),
        "served, three at once": lambda: serve(recorder, request),
    }
    for name, way in ways.items():
        seconds = min(timeit.repeat(way, number=200, repeat=150)) / 200
        assert seconds < 4e-6, f"{name}: {seconds * 1e6:.2f} us"
        print(f"\n{name}: {seconds * 1e6:.2f} us")  # noqa: T201


async def test_each_way_to_end_is_counted_once_and_in_one_place() -> None:
    runs = Runs()
    bus = MemoryBus()
    async with harness(ledger(runs)[0], resources={"A"}, bus=bus) as aegis:
        await until(lambda: aegis.instances[0].active_resources)
        release = runs.hold("held")
        await aegis.request(ADD, Add(n=1), resource="A")
        await aegis.request(ECHO, "hi")
        calls = (
            aegis.request(ADD, Add(n=-1), resource="A"),
            aegis.request(ADD, Add(n=1), resource="nobody's"),
            aegis.request(ADD, Add(tag="held"), resource="A", timeout_s=0.05),
        )
        for call in calls:
            with pytest.raises(AegisError):
                await call
        release.set()
        await until(lambda: totals(aegis.recorder, COMMIT_DURATION)[SERVICE, "add", "at"] == 2)
        counted = numbers(aegis.recorder, REQUESTS)
        assert {labels[1:]: count for labels, count in counted.items() if count} == {
            ("add", "at", "executed"): 1,
            ("echo", "any", "executed"): 1,
            ("add", "at", "rejected"): 1,
            ("add", "at", "refused"): 1,
            ("add", "at", "cancelled"): 1,
        }
        assert totals(aegis.recorder, REQUEST_DURATION) == {
            (SERVICE, "add", "at"): 3,
            (SERVICE, "echo", "any"): 1,
        }


async def test_a_commit_that_is_fenced_is_counted() -> None:
    """G5: so that an operator sees that an old active was stopped."""
    runs = Runs()
    async with harness(ledger(runs)[0], resources={"A"}) as aegis:
        two = await aegis.serve(ledger()[0], resources={"A"})
        one = aegis.instances[0]
        await until(lambda: one.active_resources)
        release = runs.hold("held")
        asked = asyncio.create_task(aegis.request(ADD, Add(tag="held"), resource="A"))
        await until(lambda: runs.begun)
        one.link.hold(Flow.ENTRIES)
        aegis.bus.control.grant(SERVICE, "A", two.id)
        assert await asked == 1
        release.set()
        one.link.release(Flow.ENTRIES)
        await until(lambda: numbers(aegis.recorder, FENCED_COMMITS).get((SERVICE,)) == 1)
        assert numbers(aegis.recorder, REQUESTS)[SERVICE, "add", "at", "executed"] == 1


async def test_a_second_delivery_and_its_suppression_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """G3: so that an operator sees what was kept from running twice."""
    bus = MemoryBus(ack_wait_s=0.05)
    async with harness(ledger()[0], bus=bus) as aegis:
        lost: list[int] = []
        group = bus.group(SERVICE)
        acknowledge = group.ack

        def lose_first(seq: int) -> None:
            if lost:
                acknowledge(seq)
            lost.append(seq)

        monkeypatch.setattr(group, "ack", lose_first)
        ticket = await aegis.submit(ECHO, "hi")
        assert await aegis.attach(ticket.id, ECHO) == "hi"
        await until(lambda: numbers(aegis.recorder, DUPLICATES) == {(SERVICE,): 1})
        assert numbers(aegis.recorder, REDELIVERIES) == {(SERVICE,): 1}
