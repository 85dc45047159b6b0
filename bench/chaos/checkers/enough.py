"""A run in which too little succeeded proves nothing, so it fails. Unknown is not success."""

from __future__ import annotations

from collections import defaultdict

from bench.chaos.history import History, Operation, Violation

MEANT_TO_FAIL = {"deadlines", "hot"}
"""Workloads whose deadlines, or some of them, are drawn to be missed: only their number of answers counts."""
TOLD = {"LogLost", "Overloaded", "Paused"}
"""Refused at once, and rightly: until an operator says so, while a stream is full, while traffic is paused. The quicker the
machine, the more of them."""


def check(history: History) -> list[Violation]:
    """Every workload has enough answers, and a fair share of its operations was answered."""
    workloads: dict[str, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        if operation.error not in TOLD:
            workloads[operation.workload].append(operation)
    if not workloads:
        return [Violation("enough", "the history has no operations")]
    return [
        Violation("enough", f"{workload}: {problem}")
        for workload, operations in workloads.items()
        if (problem := _problem(history, workload, operations))
    ]


def _problem(history: History, workload: str, operations: list[Operation]) -> str:
    answered = sum(operation.answered for operation in operations)
    of_all = f"{answered} of {len(operations)} operations were answered"
    if answered < history.run.ok_per_workload_min:
        return f"{of_all}, at least {history.run.ok_per_workload_min} must be"
    if workload not in MEANT_TO_FAIL and answered < history.run.ok_ratio_min * len(operations):
        return f"{of_all}, at least {history.run.ok_ratio_min:.0%} must be"
    return ""
