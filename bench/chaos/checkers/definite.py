"""Answers are definite (G4): what a client was told has no effect has none, then or ever."""

from __future__ import annotations

from bench.chaos.checkers.kept import is_element
from bench.chaos.history import History, Operation, Status, Violation


def check(history: History) -> list[Violation]:
    """No effect after a refusal, a cancel or an expiry; no change in an outcome that isn't executed."""
    executed = {entry.op for entry in history.outcomes if entry.executed}
    refused = [op for op in history.operations if op.status is Status.FAIL]
    found = [
        _violation(f"{op.kind} {op.op} was answered {op.error}, but is stored as executed")
        for op in refused
        if op.op in executed
    ]
    found += [
        _violation(f"{entry.op} is {entry.outcome}, but changed the state of {entry.resource}")
        for entry in history.outcomes
        if entry.changed and not entry.executed
    ]
    return found + _elements(history, refused)


def _elements(history: History, refused: list[Operation]) -> list[Violation]:
    values = {(final.workload, final.place): final.value for final in history.finals}
    return [
        _violation(f"{op.kind} {op.op} was answered {op.error}, but its element is there")
        for op in refused
        if is_element(op) and op.args["element"] in values.get((op.workload, op.place), ())
    ]


def _violation(message: str) -> Violation:
    return Violation("definite", message, "G4")
