"""A group request has one outcome and one effect (G2, G3), whichever members ran it.

Its handler appends it to a list by a nested request. Executed: it is in its list once, at the place
that the caller was told. Otherwise (cancelled, expired, failed): at most once, for a nested request
commits by itself.

The nested one may be lost with its journal, as was told, before its member has seen it there: the answer stands alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.chaos.checkers.announced import last_losses
from bench.chaos.history import History, Operation, Violation, nested

WORKLOAD = "group"


def check(history: History) -> list[Violation]:
    """Every list against the operations, and every operation against its list."""
    lists = {final.resource: final.value for final in history.finals if final.workload == WORKLOAD}
    operations = {operation.op: operation for operation in history.of(WORKLOAD)}
    found = _elements(lists, operations)
    until_s = last_losses(history, of_journal=True)
    whole = {op: each for op, each in operations.items() if each.invoked_s > until_s(each.service)}
    for entry in history.outcomes:
        operation = whole.get(entry.op)
        if operation is None or not entry.executed:
            continue
        elements = lists.get(operation.args["to"])
        if problem := _problem(elements, operation, entry.reply):
            found.append(Violation("group", f"{operation.op} {problem}", "G3"))
    return found + _effects(history, whole)


def _problem(elements: Sequence[str] | None, operation: Operation, reply: Any) -> str:
    if elements is None:
        return f"was executed, but the list {operation.args['to']} could not be read"
    element = operation.args["element"]
    if element not in elements:
        return "was executed, but its list does not have it"
    if elements.index(element) != reply:
        return f"was answered {reply!r}, but is number {elements.index(element)} of its list"
    return ""


def _elements(lists: dict[str, Sequence[str]], operations: dict[str, Operation]) -> list[Violation]:
    """Nothing twice, nothing that nobody asked for, nothing in another's list."""
    asked = {(op.args["element"], op.args["to"]) for op in operations.values()}
    found = []
    for resource, elements in lists.items():
        for element, count in Counter(elements).items():
            if count > 1:
                found.append(f"{element} took effect {count} times on {resource}")
            if (element, resource) not in asked:
                found.append(f"{element} is on {resource}, where nobody asked for it")
    return [Violation("group", problem, "G3") for problem in found]


def _effects(history: History, operations: dict[str, Operation]) -> list[Violation]:
    """An executed group request without an executed nested one was answered from nothing."""
    executed = {entry.op for entry in history.outcomes if entry.executed}
    return [
        Violation("group", f"{op} was executed, but its nested request was not", "G3")
        for op in operations
        if op in executed and nested(op) not in executed
    ]
