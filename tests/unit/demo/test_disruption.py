"""Strikes are spread over the stream, and a caller's wait is counted where a failover could cause it."""

from __future__ import annotations

import pytest
from aegis_demo.disruption import Disruption, Strike, flowing_at, longest_wait_s, plan
from aegis_demo.events import Traded


def traded(started_s: float, booking_s: float) -> Traded:
    return Traded(
        order_id="O",
        request_id="a.1",
        outcome="executed",
        started_s=started_s,
        booking_s=booking_s,
    )


def test_without_strikes_nothing_is_planned() -> None:
    assert plan(1_000, kills=0, pauses=0) == []


def test_strikes_are_spread_evenly_kills_first() -> None:
    strikes = plan(1_000, kills=2, pauses=1)
    assert [each.strike for each in strikes] == [Strike.KILL, Strike.KILL, Strike.PAUSE]
    assert [each.after for each in strikes] == [250, 500, 750]


def test_it_grows_in_the_middle() -> None:
    strikes = plan(1_000, kills=2, pauses=1, grow=True)
    assert [each.strike for each in strikes] == ["kill", "grow", "kill", "pause"]
    assert [each.strike for each in plan(1_000, kills=0, pauses=0, grow=True)] == ["grow"]


@pytest.mark.parametrize("orders", [1, 2, 3, 10, 1_000])
@pytest.mark.parametrize("kills", [1, 3, 50])
def test_the_gateway_can_always_reach_the_place_of_a_strike(orders: int, kills: int) -> None:
    """A limit below the strike's place would be a deadlock; one of all orders would let them run out."""
    for strike in plan(orders, kills=kills, pauses=0):
        assert strike.after <= orders
        assert 1 <= strike.limit <= orders
        assert strike.after <= strike.limit


@pytest.mark.parametrize("orders", [1, 2, 3, 10, 1_000])
@pytest.mark.parametrize("kills", [1, 3, 5, 50])
def test_what_is_waited_for_before_a_strike_is_always_let_through(orders: int, kills: int) -> None:
    planned = plan(orders, kills=kills, pauses=0)
    next_limits = [each.limit for each in planned[1:]] + [orders]
    for strike, next_limit in zip(planned, next_limits, strict=True):
        for done in range(strike.after, strike.limit + 1):
            assert flowing_at(strike, next_limit=next_limit, done=done) <= next_limit


def test_a_late_strike_waits_until_orders_flow_again() -> None:
    (strike,) = plan(100, kills=1, pauses=0)
    assert flowing_at(strike, next_limit=100, done=strike.limit) == strike.limit + 1
    assert flowing_at(strike, next_limit=100, done=strike.after) == strike.after


def test_the_longest_wait_is_that_of_a_call_which_overlaps_the_failover() -> None:
    disruption = Disruption(Strike.KILL, "accounts-1", 1, 10, 100.0, "accounts-2", 100.2)
    trades = [
        traded(98.0, 1.9),  # answered before the kill
        traded(99.9, 0.15),
        traded(100.1, 0.3),
        traded(100.3, 5.0),  # began after the takeover
    ]
    assert longest_wait_s(disruption, trades) == 0.3


def test_without_a_call_through_it_a_failover_made_nobody_wait() -> None:
    disruption = Disruption(Strike.KILL, "accounts-1", 1, 10, 100.0, "accounts-2", 100.2)
    assert longest_wait_s(disruption, []) == 0.0
