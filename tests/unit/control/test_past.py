"""The state of a resource at an earlier moment, from what a log has after its first outcomes were removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from aegis_control.domain.operators.past import LogEntry, Past, Range, TrimmedAway
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import Record
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json


@dataclass(frozen=True)
class Done:
    key: str
    value: int | None
    """None deletes it."""


def entry(number: int, done: Done) -> LogEntry:
    """The `number`-th outcome stands at position ten times that."""
    change = Change({}, (done.key,)) if done.value is None else Change({done.key: done.value})
    outcome = Outcome(OutcomeKind.EXECUTED, b"1", change.encode(), number=number)
    record = Record(f"K.{number}", "R", "put", b"1", outcome)
    other = Record(f"L.{number}", "S", "put", b"1", outcome)
    return LogEntry(number * 10, float(number), (other, record), ("L", "K"))


def states(all_done: list[Done]) -> list[dict[str, int]]:
    """After none, after the first, after the second, ..."""
    found: list[dict[str, int]] = [{}]
    for done in all_done:
        after = {k: v for k, v in found[-1].items() if k != done.key}
        found.append(after if done.value is None else after | {done.key: done.value})
    return found


def past(all_done: list[Done], *, saved: int, removed: int, unread: int = 0) -> Past:
    """With a checkpoint of the first `saved`, without the entries of the first `removed` and of the `unread`-th."""
    checkpoint = None
    if saved:
        values: Any = states(all_done)[saved]
        checkpoint = Checkpoint("w", "R", read=saved * 10, number=saved, values=to_json(values))
    made = Past("R", checkpoint, first=(removed + 1) * 10 if removed < len(all_done) else 0)
    for number, done in enumerate(all_done, 1):
        if number == unread:
            made.add(
                LogEntry(number * 10, float(number), (), (f"K.{number}",), "another version's")
            )
        elif number > removed:
            made.add(entry(number, done))
    return made


@st.composite
def pasts(draw: st.DrawFn) -> tuple[list[Done], int, int]:
    one = st.builds(Done, st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 3)))
    all_done = draw(st.lists(one, max_size=8))
    saved = draw(st.integers(0, len(all_done)))
    return all_done, saved, draw(st.integers(0, saved))


@given(pasts())
def test_no_value_is_told_that_the_state_did_not_have(of: tuple[list[Done], int, int]) -> None:
    """At each position: what is told is right, what is not known is named, and it is told where nothing is known."""
    all_done, saved, removed = of
    truth = states(all_done)
    made = past(all_done, saved=saved, removed=removed)
    for number in range(len(all_done) + 1):
        try:
            told = made.at(number * 10)
        except TrimmedAway:
            assert number <= removed
            assert number < saved
            assert removed > 0
            continue
        assert not told.missing
        known = {key: v for key, v in truth[number].items() if key not in told.unknown}
        assert told.values == known
        if removed == 0 or number >= saved:
            assert told.unknown == []
            assert told.number == number


def test_a_key_whose_earlier_value_was_removed_is_named_and_others_are_told() -> None:
    all_done = [Done("a", 1), Done("b", 1), Done("c", 1), Done("a", 2), Done("b", 3)]
    told = past(all_done, saved=5, removed=2).at(30)
    assert (told.values, told.unknown) == ({"c": 1}, ["a", "b"])


@pytest.mark.parametrize("unread", [1, 2, 4])
def test_outcomes_that_can_not_be_read_are_told(unread: int) -> None:
    all_done = [Done("a", 1), Done("b", 2), Done("c", 3), Done("d", 4), Done("d", 5)]
    made = past(all_done, saved=0, removed=0, unread=unread)
    assert made.at(50).missing == [Range(unread, unread)]
    assert made.unread[0].position == unread * 10
    assert past(all_done, saved=4, removed=0, unread=unread).at(50).missing == []  # it is saved


def test_around_a_request_is_its_own_change_alone() -> None:
    all_done = [Done("a", 1), Done("a", 2), Done("a", None)]
    made = past(all_done, saved=0, removed=0)
    before, after = made.around(made.steps[1])
    assert (before.values, after.values) == ({"a": 1}, {"a": 2})
    before, after = made.around(made.steps[2])
    assert (before.values, after.values) == ({"a": 2}, {})
