"""What all processes together have counted: never backwards, never twice, never the whole history at once."""

from __future__ import annotations

import pytest
from aegis_control.application.operators.gather import Gather
from aegis_control.application.operators.history import POINTS_MAX, SERVICES_MAX, STEP_S, Query
from aegis_control.domain.operators.fleet import SILENCE_S_MAX, Fleet, quantile_s
from aegis_sdk.contract.metrics import (
    BUCKETS_S,
    FENCED_COMMITS,
    REQUEST_DURATION,
    REQUESTS,
    Number,
    Observations,
    Snapshot,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.control.support import ManualClock

DONE = ("accounts", "book", "at", "executed")
LATENCY = ("accounts", "book", "at")


def snapshot(
    source: str, n: int, requests: int, *, counts: list[int] | None = None, final: bool = False
) -> Snapshot:
    """`requests` executed so far, and the callers' durations by bucket."""
    numbers = [Number(family=REQUESTS.name, labels=DONE, value=requests)]
    observed = counts or []
    histograms = [
        Observations(
            family=REQUEST_DURATION.name, labels=LATENCY, counts=observed, sum=float(sum(observed))
        )
    ]
    return Snapshot(source=source, n=n, final=final, numbers=numbers, histograms=histograms)


def shown(fleet: Fleet) -> float:
    return fleet.counted.numbers.get((REQUESTS.name, DONE), 0.0)


def take(fleet: Fleet, *told: Snapshot, counting: bool = True, now_s: float = 0.0) -> float:
    for one in told:
        fleet.take(one, now_s=now_s, counting=counting)
    return shown(fleet)


def test_processes_are_added_up() -> None:
    fleet = Fleet()
    take(fleet, snapshot("a", 1, 0), snapshot("b", 1, 0))
    assert take(fleet, snapshot("a", 2, 5, counts=[1, 4]), snapshot("b", 2, 7, counts=[7])) == 12
    buckets = fleet.counted.histograms[REQUEST_DURATION.name, LATENCY]
    assert (buckets.counts[:3], buckets.sum_s) == ([8, 4, 0], 12.0)


@pytest.mark.parametrize("number", [2**43, 2**44, 2**53])
def test_no_number_that_somebody_tells_makes_a_total_stand_still(number: int) -> None:
    """Neither one that is refused, nor a hundred of the greatest that are taken."""
    fleet = Fleet()
    take(fleet, snapshot("a", 1, 0, counts=[0]))
    before = take(fleet, *(snapshot(f"odd-{n}", 1, number, counts=[number]) for n in range(100)))
    assert take(fleet, snapshot("a", 2, 1, counts=[1])) - before == 1
    assert before in (0, 100 * number)


def test_a_restarted_process_begins_at_zero_and_the_total_does_not() -> None:
    fleet = Fleet()
    take(fleet, snapshot("a", 1, 0), snapshot("a", 2, 100))
    assert take(fleet, snapshot("a2", 1, 0)) == 100
    assert take(fleet, snapshot("a2", 2, 3)) == 103


def test_a_process_that_is_gone_stays_counted() -> None:
    fleet = Fleet()
    take(fleet, snapshot("a", 1, 0), snapshot("a", 2, 100))
    fleet.forget_silent(SILENCE_S_MAX + 1)
    assert (fleet.sources, shown(fleet)) == (0, 100)


def test_the_last_snapshot_of_a_process_that_ends_is_counted() -> None:
    fleet = Fleet()
    assert take(fleet, snapshot("a", 1, 0), snapshot("a", 2, 9, final=True)) == 9
    assert fleet.sources == 0


def test_one_that_was_silent_for_long_counts_on_from_what_it_says_then() -> None:
    """What it did meanwhile is lost to the total; its history is not counted a second time."""
    fleet = Fleet()
    take(fleet, snapshot("a", 1, 0), snapshot("a", 2, 100))
    fleet.forget_silent(SILENCE_S_MAX + 1)
    assert take(fleet, snapshot("a", 500, 900)) == 100
    assert take(fleet, snapshot("a", 501, 903)) == 103


def test_a_replica_that_starts_does_not_take_over_the_history() -> None:
    """Its counters begin low, as after any restart: what Prometheus adds then is what came since."""
    fleet = Fleet()
    assert take(fleet, snapshot("a", 1_000, 1_000_000, counts=[9])) == 0
    assert take(fleet, snapshot("a", 1_001, 1_000_007, counts=[9, 2])) == 7
    assert fleet.counted.histograms[REQUEST_DURATION.name, LATENCY].total == 2


def test_a_series_is_shown_at_zero_before_it_counts() -> None:
    """Otherwise a rate would miss its first counts."""
    fleet = Fleet()
    take(fleet, snapshot("a", 50, 1_000))
    assert fleet.counted.numbers == {(REQUESTS.name, DONE): 0.0}


def test_lost_and_late_snapshots_change_nothing_in_the_end() -> None:
    fleet = Fleet()
    take(fleet, snapshot("a", 1, 0), snapshot("a", 5, 50))
    assert take(fleet, snapshot("a", 4, 40)) == 50
    assert take(fleet, snapshot("a", 5, 50)) == 50
    assert take(fleet, snapshot("a", 9, 90)) == 90


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(0, 9),
            st.sampled_from(["tell", "tell", "tell", "lose", "restart", "leader"]),
        ),
        max_size=80,
    )
)
@settings(deadline=None)
def test_whatever_happens_totals_only_rise_and_replicas_add_up(
    steps: list[tuple[str, int, str]],
) -> None:
    """Two replicas hear all; one of them leads. No request is shown twice, none that was told is lost."""
    replicas = [Fleet(), Fleet()]
    leader = done = 0
    totals = dict.fromkeys("abc", 0)
    sent = dict.fromkeys("abc", 0)
    heard = dict.fromkeys("abc", 0)
    runs = dict.fromkeys("abc", 0)
    before = [0.0, 0.0]
    for name, requests, what in [(name, 0, "tell") for name in "abc"] + steps:
        if what == "leader":
            leader = 1 - leader
        elif what == "restart":
            runs[name] += 1
            totals[name] = heard[name] = sent[name] = 0
        totals[name] += requests
        sent[name] += 1
        if what != "lose" or sent[name] == 1:
            done += totals[name] - heard[name]
            heard[name] = totals[name]
            for n, fleet in enumerate(replicas):
                told = snapshot(f"{name}{runs[name]}", sent[name], totals[name])
                fleet.take(told, now_s=0.0, counting=n == leader)
        after = [shown(fleet) for fleet in replicas]
        assert all(now >= then for now, then in zip(after, before, strict=True))
        before = after
    assert sum(before) == done


def test_a_replica_that_does_not_lead_shows_what_it_counted_when_it_did() -> None:
    fleet = Fleet()
    take(fleet, snapshot("a", 1, 0), snapshot("a", 2, 10))
    assert take(fleet, snapshot("a", 3, 25), counting=False) == 10
    assert take(fleet, snapshot("a", 4, 26)) == 11


def test_what_this_version_does_not_know_is_left_out() -> None:
    fleet = Fleet()
    numbers = [
        Number(family="aegis_of_tomorrow_total", labels=("x",), value=1),
        Number(family=REQUESTS.name, labels=("too", "few"), value=1),
        Number(family=REQUEST_DURATION.name, labels=LATENCY, value=1),
        Number(family=FENCED_COMMITS.name, labels=("accounts",), value=1),
    ]
    take(fleet, Snapshot(source="a", n=1, numbers=numbers))
    assert fleet.counted.numbers == {(FENCED_COMMITS.name, ("accounts",)): 1.0}


def test_series_are_bounded_and_those_beyond_are_counted() -> None:
    fleet = Fleet(series_max=3)
    for n in range(10):
        numbers = [Number(family=FENCED_COMMITS.name, labels=(f"s{n}",), value=1)]
        take(fleet, Snapshot(source=f"s{n}", n=1, numbers=numbers))
    assert (len(fleet.counted), fleet.dropped) == (3, 7)


@pytest.mark.parametrize(
    ("counts", "q", "expected_s"),
    [
        ([], 0.5, None),
        ([0, 0, 4], 0.5, 0.00075),
        ([10] * 2, 0.5, BUCKETS_S[0]),
        ([0] * len(BUCKETS_S) + [3], 0.99, BUCKETS_S[-1]),
        ([99, 1], 0.99, BUCKETS_S[0]),
    ],
)
def test_quantiles_are_those_of_prometheus(
    counts: list[int], q: float, expected_s: float | None
) -> None:
    found = quantile_s(counts + [0] * (len(BUCKETS_S) + 1 - len(counts)), q)
    assert found == (None if expected_s is None else pytest.approx(expected_s))


# --- the last minutes -------------------------------------------------------------------------------------


def stepped(gather: Gather, clock: ManualClock, *told: Snapshot, counting: bool = True) -> None:
    for one in told:
        gather.heard(one, counting=counting)
    clock.now_s += STEP_S
    gather.step()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gather(clock: ManualClock) -> Gather:
    made = Gather(clock)
    made.step()
    return made


def test_a_step_tells_throughput_and_the_latency_of_that_step(
    gather: Gather, clock: ManualClock
) -> None:
    stepped(gather, clock, snapshot("a", 1, 0), snapshot("a", 2, 10, counts=[0, 0, 10]))
    stepped(gather, clock, snapshot("a", 3, 14, counts=[0, 0, 10, 0, 4]))
    stepped(gather, clock)
    found = gather.history.find(Query())["accounts"]
    told = [(p.requests_per_s, p.failures_per_s, p.p50_ms, p.p99_ms) for p in found]
    assert told == [(5.0, 0.0, 0.75, 0.995), (2.0, 0.0, 3.75, 4.975), (0.0, 0.0, None, None)]
    assert [p.time_s for p in found] == [1002.0, 1004.0, 1006.0]


def test_a_replica_that_does_not_lead_has_the_history_too(
    gather: Gather, clock: ManualClock
) -> None:
    stepped(gather, clock, snapshot("a", 1, 0), snapshot("a", 2, 10), counting=False)
    assert gather.history.find(Query("accounts"))["accounts"][0].requests_per_s == 5.0


def test_points_are_asked_for_by_service_and_time(gather: Gather, clock: ManualClock) -> None:
    stepped(gather, clock, snapshot("a", 1, 2))
    stepped(gather, clock, snapshot("a", 2, 4))
    assert gather.history.find(Query("nobody")) == {"nobody": []}
    later = gather.history.find(Query("accounts", after_s=1002.0))["accounts"]
    assert [p.time_s for p in later] == [1004.0]


def test_the_history_is_bounded(gather: Gather, clock: ManualClock) -> None:
    for n in range(1, POINTS_MAX + 50):
        stepped(gather, clock, snapshot("a", n, n))
    assert len(gather.history.find(Query())["accounts"]) == POINTS_MAX
    for n in range(SERVICES_MAX + 5):
        labels = (f"s{n}", "m", "any", "executed")
        numbers = [Number(family=REQUESTS.name, labels=labels, value=1)]
        gather.heard(Snapshot(source=f"s{n}", n=1, numbers=numbers), counting=True)
    stepped(gather, clock)
    assert len(gather.history.find(Query())) == SERVICES_MAX


def test_a_service_in_which_nothing_happens_any_more_makes_room(
    gather: Gather, clock: ManualClock
) -> None:
    stepped(gather, clock, snapshot("a", 1, 1))
    for _ in range(POINTS_MAX):
        stepped(gather, clock)
    assert gather.history.find(Query()) == {}


ODD_VALUES = [float("inf"), float("nan"), -1.0, -float("inf"), 1e300, 2.0**54]


@pytest.mark.parametrize("value", ODD_VALUES)
def test_what_is_no_count_is_left_out_and_the_rest_is_counted(value: float) -> None:
    fleet = Fleet()
    take(fleet, snapshot("a", 1, 0))
    odd = snapshot("a", 2, 5, counts=[1])
    odd.numbers.append(Number(family=FENCED_COMMITS.name, labels=("accounts",), value=value))
    odd.histograms[0].sum = value
    assert take(fleet, odd) == 5
    assert take(fleet, snapshot("a", 3, 7)) == 7
    assert fleet.counted.numbers.get((FENCED_COMMITS.name, ("accounts",)), 0.0) == 0.0
    assert all(buckets.sum_s < 10 for buckets in fleet.counted.histograms.values())


def test_infinity_as_json_writes_it_costs_nobody_anything() -> None:
    data = b'{"source":"x","n":1,"numbers":[{"family":"aegis_fenced_commits_total","labels":["s"],"value":Infinity}]}'
    fleet = Fleet()
    fleet.take(Snapshot.model_validate_json(data), now_s=0.0, counting=True)
    assert not len(fleet.counted)


@given(
    values=st.lists(st.floats() | st.integers(), max_size=5),
    counts=st.lists(st.integers(), max_size=16),
)
def test_totals_stay_numbers_whatever_is_told(values: list[float], counts: list[int]) -> None:
    fleet = Fleet()
    before = 0.0
    for n, value in enumerate(values, 1):
        told = Snapshot.model_construct(
            source="a",
            n=n,
            final=False,
            numbers=[Number.model_construct(family=REQUESTS.name, labels=DONE, value=value)],
            histograms=[
                Observations.model_construct(
                    family=REQUEST_DURATION.name, labels=LATENCY, counts=counts, sum=value
                )
            ],
        )
        now = take(fleet, told)
        assert before <= now <= 2**56
        before = now
