"""The gap of a failover: the longest wait of a caller whose call overlapped it."""

from __future__ import annotations

import pytest

from bench.failover.gap import Calls, Window, longest, percentile, steps_ms, summary_ms, wait_s
from bench.failover.trace import OVER, PROMOTED, REPLIED, Heard, steps_s

WINDOW = Window(10.0, 11.0)


def gap_of(*spans: tuple[float, float]) -> float | None:
    call = longest(Calls(spans).overlapping(WINDOW))
    return None if call is None else wait_s(call)


def test_the_longest_wait_counts_wherever_in_the_failover_it_began() -> None:
    assert gap_of((10.1, 10.2), (10.3, 10.9), (10.8, 10.9)) == pytest.approx(0.6)


def test_a_call_that_was_waiting_at_the_strike_counts_with_its_whole_wait() -> None:
    assert gap_of((9.5, 10.2), (10.3, 10.4)) == pytest.approx(0.7)


def test_a_call_that_is_answered_after_the_window_counts_with_its_whole_wait() -> None:
    assert gap_of((10.9, 13.9)) == pytest.approx(3.0)


def test_calls_before_and_after_the_failover_do_not_count() -> None:
    assert gap_of((3.0, 9.9), (11.1, 19.0)) is None
    assert gap_of((3.0, 9.9), (10.5, 10.6), (11.1, 19.0)) == pytest.approx(0.1)


def test_a_long_wait_over_the_whole_window_is_found_among_many_short_calls() -> None:
    short = [(n / 100, n / 100 + 0.001) for n in range(2000)]

    assert gap_of(*short, (2.0, 19.0)) == pytest.approx(17.0)


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]

    assert [percentile(values, wanted) for wanted in (50, 99, 100)] == [50.0, 99.0, 100.0]
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([7.0], 99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_the_summary_is_in_milliseconds() -> None:
    assert summary_ms([0.010, 0.020]) == {"p50": 10.0, "p90": 20.0, "p99": 20.0, "max": 20.0}
    assert summary_ms([]) == {}


def test_steps_come_in_the_order_in_which_they_happen() -> None:
    shown = steps_ms([{"late": 0.03, "early": 0.01}, {"early": 0.02, "late": 0.04}, {"late": 0.05}])

    assert list(shown) == ["early", "late"]
    assert (shown["early"]["seen"], shown["late"]["seen"]) == (2.0, 3.0)
    assert shown["late"]["p50"] == 40.0


def steps(*heard: Heard) -> dict[str, float]:
    waited = [(10.05, 10.45), (9.99, 10.5), (10.6, 10.7)]
    return steps_s(heard, WINDOW, struck="m1", promoted_s=10.4, waited=waited)


def test_of_each_step_the_last_message_counts_but_of_controls_decision_the_first() -> None:
    found = steps(
        Heard("begun", 10.1), Heard("begun", 10.15), Heard("gate", 10.2), Heard("gate", 10.3)
    )

    assert found["control decides"] == pytest.approx(0.1)
    assert found["the last gate is stored"] == pytest.approx(0.3)


def test_a_closed_connection_of_another_instance_is_not_the_strikes() -> None:
    step = "the server reports the closed connection"

    assert step not in steps(Heard("disconnect", 10.1, "aegis/accounts/m11/main"))
    found = steps(Heard("disconnect", 10.2, "aegis/accounts/m1/main"))
    assert found[step] == pytest.approx(0.2)


def test_messages_outside_the_window_are_another_failovers() -> None:
    assert "the last gate is stored" not in steps(Heard("gate", 9.9), Heard("gate", 11.2))


def test_replies_are_counted_from_the_new_actives_promotion() -> None:
    found = steps()

    assert found[PROMOTED] == pytest.approx(0.4)
    assert found[REPLIED] == pytest.approx(0.45)
    assert found[OVER] == pytest.approx(0.5)
