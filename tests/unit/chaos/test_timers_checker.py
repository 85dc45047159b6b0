"""The timers checker: a right history passes, and each way to break it is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.chaos.checkers.timers import check
from bench.chaos.history import Fault, Final, History, OutcomeEntry, nested
from tests.unit.chaos.support import Story


def fired(op: str, at_s: float, *, number: int, seq: int) -> OutcomeEntry:
    return OutcomeEntry(
        seq=seq,
        service="chaos-timers",
        resource="r",
        op=nested(op),
        outcome="executed",
        reply=at_s,
        number=number,
        stored_s=at_s,
    )


def story() -> History:
    """One fires, one is dropped by a later one, which fires."""
    made = Story(workload="timers", service="chaos-timers")
    first = made.ask(
        "arm", result={"armed_s": 1.0, "dropped": False}, after_s=0.5, drops="", at_s=1.0
    )
    second = made.ask(
        "arm", result={"armed_s": 2.0, "dropped": False}, after_s=0.5, drops="", at_s=2.0
    )
    third = made.ask(
        "swap", result={"armed_s": 2.2, "dropped": True}, after_s=0.5, drops=second.op, at_s=2.2
    )
    for operation in (first, second, third):
        made.store(operation)
    history = made.history()
    outcomes = [*history.outcomes, fired(first.op, 1.51, number=4, seq=90)]
    outcomes.append(fired(third.op, 2.72, number=5, seq=91))
    final = Final(workload="timers", service="chaos-timers", resource="r", value=2)
    return replace(history, outcomes=outcomes, finals=[final])


def told(history: History) -> list[str]:
    return [violation.message for violation in check(history)]


def test_a_right_history_has_nothing() -> None:
    assert told(story()) == []


def test_one_that_never_fired_is_found() -> None:
    history = story()
    assert any(
        "never fired" in line for line in told(replace(history, outcomes=history.outcomes[:-1]))
    )


def test_one_that_fired_twice_is_found() -> None:
    history = story()
    again = replace(history.outcomes[-1], seq=99, number=6)
    assert any(
        "has 2 outcomes" in line
        for line in told(replace(history, outcomes=[*history.outcomes, again]))
    )


def test_one_that_fired_after_its_drop_is_found() -> None:
    history = story()
    second = history.operations[1].op
    late = fired(second, 2.6, number=6, seq=99)
    assert any(
        "had dropped it" in line
        for line in told(replace(history, outcomes=[*history.outcomes, late]))
    )


@pytest.mark.parametrize("by", ["reply", "stored_s"])
def test_one_that_fired_early_is_found_unless_a_clock_was_set(by: str) -> None:
    history = story()
    at_s: dict[str, Any] = {by: 2.5}
    early = replace(history.outcomes[-1], **at_s)
    wrong = replace(history, outcomes=[*history.outcomes[:-1], early])
    assert any("before its time" in line for line in told(wrong))
    jump = Fault(kind="jump_clock", target="instance-0", began_s=0.0, healed_s=9.0)
    assert told(replace(wrong, faults=[jump])) == []


def test_a_state_that_counts_otherwise_is_found() -> None:
    history = story()
    [final] = history.finals
    assert any(
        "counted 3" in line for line in told(replace(history, finals=[replace(final, value=3)]))
    )


def test_one_that_was_submitted_for_later_and_began_early_is_found() -> None:
    made = Story(workload="timers", service="chaos-timers")
    on_time = made.ask("later", result=2.01, after_s=1.0, at_s=1.0)
    early = made.ask("later", result=2.5, after_s=1.0, at_s=2.0)
    for operation in (on_time, early):
        made.store(operation)
    assert [line.split()[0] for line in told(made.history())] == [early.op]
