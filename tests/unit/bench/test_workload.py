"""Traffic has a trading day's shape and hot accounts, and comes again from the same seed."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from bench.model import Op
from bench.workload import MIXES, Traffic, account_names, arrivals, day_intensity, zipf_weights


def traffic(seed: int, *, spread: str = "zipf", mix: str = "mix", caller_index: int = 0) -> Traffic:
    return Traffic(
        random.Random(seed),
        account_names(100),
        MIXES[mix],
        spread=spread,
        caller_index=caller_index,
        first_id=0,
    )


def test_the_same_seed_gives_the_same_traffic() -> None:
    one, two = traffic(7), traffic(7)

    assert [one.next() for _ in range(200)] == [two.next() for _ in range(200)]


def test_ids_of_two_callers_never_meet() -> None:
    one, two = traffic(7), traffic(7, caller_index=1)

    assert not {one.next()[1].id for _ in range(500)} & {two.next()[1].id for _ in range(500)}


def test_a_few_accounts_take_most_of_the_traffic() -> None:
    made = traffic(3, mix="targeted")
    accounts = Counter(made.next()[1].account for _ in range(5000))

    assert sum(count for _, count in accounts.most_common(10)) > 0.5 * 5000
    assert len(accounts) > 80


def test_even_traffic_goes_round_all_accounts() -> None:
    made = traffic(3, spread="even", mix="targeted")
    accounts = Counter(made.next()[1].account for _ in range(1000))

    assert set(accounts.values()) == {10}


def test_the_trading_mix_has_fills_orders_and_queries() -> None:
    made = traffic(5)
    ops = Counter(made.next()[0] for _ in range(2000))

    assert ops[Op.FILL] > ops[Op.ORDER] > ops[Op.QUERY] > 200


@pytest.mark.parametrize("shape", ["flat", "day"])
def test_arrivals_keep_the_mean_rate_and_their_order(shape: str) -> None:
    times = arrivals(random.Random(11), rate_per_s=1000, duration_s=10, shape=shape)

    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert all(before <= after for before, after in pairwise(times))
    assert 0 <= times[0] < times[-1] < 10


def test_open_and_close_are_busier_than_noon() -> None:
    assert day_intensity(0.0) > 3 * day_intensity(0.5)
    assert day_intensity(1.0) > 3 * day_intensity(0.5)


def test_a_days_intensity_has_a_mean_of_one() -> None:
    assert sum(day_intensity((n + 0.5) / 500) for n in range(500)) / 500 == pytest.approx(
        1, rel=0.01
    )


def test_zipf_weights_rise_and_favour_the_first() -> None:
    weights = zipf_weights(10)

    assert weights[0] == 1.0
    assert weights[0] > weights[1] - weights[0] > weights[9] - weights[8] > 0
