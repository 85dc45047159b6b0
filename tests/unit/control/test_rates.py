"""Rates from two looks at counters."""

from __future__ import annotations

from aegis_control.domain.operators.rates import Look, Rates, rates


def test_a_rate_is_the_rise_over_the_time_between() -> None:
    before = Look(10.0, {"a": 100}, {"a": 50})
    assert rates(before, Look(12.0, {"a": 200}, {"a": 51}), "a") == Rates(50.0, 0.5)


def test_without_a_look_before_there_is_no_rate() -> None:
    now = Look(12.0, {"a": 200}, {"a": 51})
    assert rates(None, now, "a") == Rates()
    assert rates(Look(10.0), now, "a") == Rates()
    assert rates(now, now, "a") == Rates()


def test_a_stream_that_was_made_anew_never_gives_a_negative_rate() -> None:
    before = Look(10.0, {"a": 1_000}, {"a": 1_000})
    assert rates(before, Look(11.0, {"a": 3}, {"a": 0}), "a") == Rates(3.0, 0.0)
