"""Nothing is doubled (G2, G3): one outcome a request, one effect an outcome, no effect without one."""

from __future__ import annotations

from collections import Counter

from bench.chaos.checkers.kept import COLLECTIONS, is_element
from bench.chaos.history import Final, History, OutcomeEntry, Violation


def check(history: History) -> list[Violation]:
    """Outcomes are unique, and collections hold each executed element once and no other."""
    return _outcomes(history) + [
        violation
        for final in history.finals
        if final.workload in COLLECTIONS
        for violation in _elements(history, final)
    ]


def _outcomes(history: History) -> list[Violation]:
    return [
        Violation("once", f"request {op} has {len(stored)} outcomes: {_kinds(stored)}", "G2")
        for op, stored in history.outcomes_of().items()
        if len(stored) > 1
    ]


def _kinds(stored: list[OutcomeEntry]) -> str:
    return ", ".join(entry.outcome for entry in stored)


def _elements(history: History, final: Final) -> list[Violation]:
    executed = {entry.op for entry in history.outcomes if entry.executed}
    mine = [op for op in history.of(final.workload) if op.place == final.place and is_element(op)]
    allowed = {op.args["element"] for op in mine if op.op in executed}
    counted = Counter(final.value)
    doubled = [element for element, count in counted.items() if count > 1]
    unasked = [element for element in counted if element not in allowed]
    where = f"{final.service}/{final.resource}"
    return [
        Violation("once", f"element {element!r} is in {where} {counted[element]} times", "G3")
        for element in doubled
    ] + [
        Violation("once", f"element {element!r} is in {where} without an executed outcome", "G3")
        for element in unasked
    ]
