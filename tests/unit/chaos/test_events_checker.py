"""The events checker: a right history passes, and each way to break it is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.chaos.checkers.events import check
from bench.chaos.history import Final, History, OutcomeEntry, nested
from tests.unit.chaos.support import Story

SERVICE = "chaos-events"


def final(resource: str, **value: Any) -> Final:
    return Final(workload="events", service=SERVICE, resource=resource, value=value)


def story(*heard: int) -> History:
    """Three operations are told of at one resource, and heard at another one."""
    made = Story(workload="events", service=SERVICE)
    operations = [made.ask("tell", result=n) for n in (1, 2, 3)]
    for operation in operations:
        made.store(operation)
    history = made.history()
    events = [
        OutcomeEntry(
            seq=90 + n,
            service=SERVICE,
            resource="H-0",
            op=nested(operation.op),
            outcome="executed",
        )
        for n, operation in enumerate(operations)
    ]
    finals = [final("E-0", told=3), final("H-0", **{"E-0": list(heard)})]
    return replace(history, outcomes=[*history.outcomes, *events], finals=finals)


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ((1, 2, 3), []),
        ((1, 3), ["1 events of E-0 were never heard, 2 first, of 3"]),
        ((), ["3 events of E-0 were never heard, 1 first, of 3"]),
        ((1, 2, 2, 3), ["1 events of E-0 were heard twice"]),
        ((2, 1, 3), ["event 1 of E-0 was heard behind 2"]),
    ],
)
def test_what_is_missing_doubled_or_swapped_is_found(
    heard: tuple[int, ...], said: list[str]
) -> None:
    assert [violation.message for violation in check(story(*heard))] == said


def test_an_event_with_two_outcomes_is_found() -> None:
    history = story(1, 2, 3)
    again = replace(history.outcomes[-1], seq=99)
    wrong = replace(history, outcomes=[*history.outcomes, again])
    assert ["has 2 outcomes" in violation.message for violation in check(wrong)] == [True]
