"""Nothing is lost (G1): what a client was told took effect is in the journal and in the final value.

The value of a set or a list is the list of its elements; other workloads have their own checkers.
"""

from __future__ import annotations

from bench.chaos.history import History, Operation, OutcomeEntry, Status, Violation

COLLECTIONS = {"set": "add", "list": "append", "hot": "hit", "deadlines": "work"}
"""Workloads whose value lists the `element` of each operation of that kind."""


def check(history: History) -> list[Violation]:
    """An acknowledged operation has its outcome stored, with the reply that the client saw."""
    outcomes = history.outcomes_of()
    acknowledged = [op for op in history.operations if op.status is Status.OK]
    found = [
        _violation(operation, problem)
        for operation in acknowledged
        if (problem := _problem(operation, outcomes.get(operation.op, [])))
    ]
    return found + _open_requests(history, set(outcomes)) + _missing_elements(history)


def _open_requests(history: History, ended: set[str]) -> list[Violation]:
    """Once everything has settled, every accepted request has its outcome."""
    return [
        Violation("kept", f"{entry.op} was accepted by {entry.service}, but has no outcome", "G1")
        for entry in history.accepted
        if entry.op not in ended
    ]


def _problem(operation: Operation, stored: list[OutcomeEntry]) -> str:
    executed = [entry for entry in stored if entry.executed]
    if not stored:
        return "has no outcome in the journal"
    if not executed:
        return f"was acknowledged, but its outcome is {stored[0].outcome}"
    if executed[0].place != operation.place:
        return f"was asked of {operation.place}, but is stored at {executed[0].place}"
    if all(entry.reply != operation.result for entry in executed):
        return f"was answered {operation.result!r}, but {executed[0].reply!r} is stored"
    return ""


def _missing_elements(history: History) -> list[Violation]:
    values = {(final.workload, final.place): final.value for final in history.finals}
    found = []
    for operation in history.operations:
        if operation.status is not Status.OK or not is_element(operation):
            continue
        value = values.get((operation.workload, operation.place))
        if value is None:
            found.append(_violation(operation, "changed a resource whose final value is missing"))
        elif operation.args["element"] not in value:
            found.append(_violation(operation, "has left no element in the final value"))
    return found


def is_element(operation: Operation) -> bool:
    """Whether it adds an element to a collection."""
    return COLLECTIONS.get(operation.workload) == operation.kind


def _violation(operation: Operation, problem: str) -> Violation:
    return Violation("kept", f"{operation.kind} {operation.op} {problem}", "G1")
