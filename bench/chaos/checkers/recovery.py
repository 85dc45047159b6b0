"""Healthy again within the stated time: after a fault, every place answers soon.

Faults that overlap, or strike before the last one is recovered from, count as one: it is over when
the last of them has healed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from bench.chaos.history import Fault, History, Operation, Place, Violation


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long a place took to answer again after a fault; None: it never did."""

    fault: Fault
    place: Place
    recovery_s: float | None


def check(history: History) -> list[Violation]:
    """Every recovery is within the run's limit."""
    limit_s = history.run.recovery_limit_s
    return [
        Violation(
            "recovery",
            f"{'/'.join(found.place)} {_took(found)} after {found.fault.kind} of "
            f"{found.fault.target} at {found.fault.began_s:.1f} s (limit {limit_s:.1f} s)",
            "G8",
        )
        for found in recoveries(history)
        if found.recovery_s is None or found.recovery_s > limit_s
    ]


def recovery_s_max(history: History) -> float:
    """The longest recovery of the run; infinite when a place never answered again."""
    times = [found.recovery_s for found in recoveries(history)]
    return max((float("inf") if time is None else time for time in times), default=0.0)


def recoveries(history: History) -> list[Recovery]:
    """One for each place and group of faults: from the last heal to the first answer to a later request, less the time
    in which nobody asked. A place that nobody asked after the fault is left out.
    """
    requests: dict[Place, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        requests[operation.place].append(operation)
    faults = sorted(history.faults, key=lambda fault: fault.began_s)
    return [
        recovery
        for place, operations in requests.items()
        for recovery in _recoveries_of(place, operations, faults)
    ]


def _recoveries_of(
    place: Place, operations: list[Operation], faults: list[Fault]
) -> Iterator[Recovery]:
    waiting = list(faults)
    while waiting:
        fault = waiting.pop(0)
        healed_s = fault.healed_s
        answer_s = _answer_s(operations, healed_s)
        while waiting and (answer_s is None or waiting[0].began_s <= max(answer_s, healed_s)):
            fault = waiting.pop(0)
            healed_s = max(healed_s, fault.healed_s)
            answer_s = _answer_s(operations, healed_s)
        asked_s = min((o.invoked_s for o in operations if o.invoked_s >= healed_s), default=None)
        if asked_s is not None:
            yield Recovery(fault, place, None if answer_s is None else answer_s - asked_s)


def _answer_s(operations: list[Operation], after_s: float) -> float | None:
    """When the first request asked after `after_s` was answered."""
    answers = (
        operation.completed_s
        for operation in operations
        if operation.answered and operation.invoked_s >= after_s
    )
    return min((answer for answer in answers if answer is not None), default=None)


def _took(found: Recovery) -> str:
    if found.recovery_s is None:
        return "never answered again"
    return f"answered only {found.recovery_s:.1f} s"
