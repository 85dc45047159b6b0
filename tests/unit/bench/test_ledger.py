"""Loss accounting finds every loss and duplicate, also those that cancel out in the count."""

from __future__ import annotations

import json
from collections.abc import Iterable

from bench.ledger import ORDERS, Ledger, Tally, judge
from bench.model import make_fill


def ledger_of(ids: Iterable[int], account: str = "A") -> Ledger:
    ledger = Ledger()
    for n in ids:
        ledger.sent += 1
        ledger.ok += 1
        ledger.add_done(account, make_fill(n, account or "x", 1, 1))
    return ledger


def tally_of(ids: Iterable[int]) -> Tally:
    tally = Tally()
    for n in ids:
        tally.add(make_fill(n, "A", 1, 1))
    return tally


def test_effects_that_match_are_clean() -> None:
    verdict = judge(ledger_of([1, 2, 3]), {"A": tally_of([1, 2, 3]), ORDERS: Tally()})

    assert verdict.clean
    assert (verdict.sent, verdict.ok) == (3, 3)


def test_a_reply_without_its_effect_is_a_loss() -> None:
    verdict = judge(ledger_of([1, 2, 3]), {"A": tally_of([1, 3])})

    assert verdict.lost_effects == 1
    assert not verdict.clean


def test_an_effect_made_twice_is_a_duplicate() -> None:
    verdict = judge(ledger_of([1, 2]), {"A": tally_of([1, 2, 2])})

    assert verdict.duplicates == 1
    assert not verdict.clean


def test_a_loss_and_a_duplicate_with_the_right_count_and_sum_still_show() -> None:
    """Ids 1 and 4 are lost, 2 and 3 are doubled: count, sum of ids and quantity are all right."""
    verdict = judge(ledger_of([1, 2, 3, 4]), {"A": tally_of([2, 2, 3, 3])})

    assert (verdict.lost_effects, verdict.duplicates) == (0, 0)
    assert verdict.wrong == 1
    assert not verdict.clean


def test_an_effect_that_nobody_sent_is_a_duplicate() -> None:
    assert judge(Ledger(), {"B": tally_of([7])}).duplicates == 1


def test_a_request_without_an_outcome_fails_the_run_whether_it_took_effect_or_not() -> None:
    for executed in ([1], [1, 2]):
        ledger = ledger_of([1])
        ledger.sent += 1
        ledger.add_unknown("A")

        verdict = judge(ledger, {"A": tally_of(executed)})

        assert verdict.unknown == 1
        assert (verdict.lost_effects, verdict.duplicates) == (0, 0)
        assert not verdict.clean


def test_a_refused_request_is_clean_as_long_as_it_had_no_effect() -> None:
    ledger = ledger_of([1])
    ledger.sent += 1
    ledger.refused += 1

    assert judge(ledger, {"A": tally_of([1])}).clean
    assert not judge(ledger, {"A": tally_of([1, 2])}).clean


def test_a_call_that_the_suite_forgot_to_count_fails_the_run() -> None:
    ledger = ledger_of([1])
    ledger.sent += 1

    assert judge(ledger, {"A": tally_of([1])}).unaccounted == 1


def test_ledgers_of_several_callers_merge_and_travel_as_json() -> None:
    merged = ledger_of([1, 2])
    other = ledger_of([3])
    other.add_unknown("A")
    merged.merge(Ledger.from_dict(json.loads(json.dumps(other.as_dict()))))

    assert merged.done["A"] == tally_of([1, 2, 3])
    assert merged.unknown == {"A": 1}
    assert merged.sent == 3
