"""What to do with a delivered request, as tables; when to try again."""

from __future__ import annotations

import itertools

import pytest
from aegis_sdk.domain.delivery import (
    ATTEMPTS_MAX,
    Arrival,
    Verdict,
    backoff_s,
    could_be_second,
    judge,
)
from aegis_sdk.domain.retries import Retries


@pytest.mark.parametrize(
    ("second", "noted", "verdict"),
    [
        (False, 0, Verdict.RUN),
        (True, 0, Verdict.RUN_NOTED),
        (True, 1, Verdict.RUN_ALONE),
        (True, 2, Verdict.GIVE_UP),
        (True, 3, Verdict.GIVE_UP),
        # A note says that it was begun twice, whatever the broker says of this delivery.
        (False, 1, Verdict.RUN_ALONE),
        (False, 2, Verdict.GIVE_UP),
    ],
)
def test_a_request_that_kills_its_process_is_given_up_in_the_end(
    second: bool, noted: int, verdict: Verdict
) -> None:
    assert judge(second=second, noted=noted) is verdict


def test_the_number_of_begins_is_bounded() -> None:
    """Begun, noted and begun, noted and begun alone; not a fourth time."""
    begins = 0
    for n in itertools.count():
        if judge(second=n > 0, noted=max(0, n - 1)) is Verdict.GIVE_UP:
            break
        begins += 1
    assert begins == ATTEMPTS_MAX


def test_only_an_earlier_reader_makes_a_begin_possible() -> None:
    assert not could_be_second(Arrival(5, 1, suspect=False))
    assert could_be_second(Arrival(5, 1, suspect=True))
    assert could_be_second(Arrival(5, 2, suspect=False))


def test_without_retries_an_exception_is_the_answer() -> None:
    assert Retries().wait_before(2) is None


def test_retries_wait_longer_each_time_up_to_a_bound() -> None:
    retries = Retries(attempts=6, wait_s=0.1, wait_s_max=0.5)
    assert [retries.wait_before(n) for n in range(2, 8)] == [0.1, 0.2, 0.4, 0.5, 0.5, None]


def test_a_backoff_never_overflows() -> None:
    assert backoff_s(1, first_s=0.01, max_s=2.0) == 0.01
    assert backoff_s(10**6, first_s=0.01, max_s=2.0) == 2.0
