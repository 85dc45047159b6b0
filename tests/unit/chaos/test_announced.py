"""What control announced as lost is excused; whatever else is missing is a violation."""

from __future__ import annotations

from typing import Any

from bench.chaos.checkers import CHECKERS, check_all
from bench.chaos.history import History, Loss, Operation, OutcomeEntry, Status

LOSS = Loss(service="s", stream="AEGIS_JOURNAL_s", what="is gone", accepted_s=10.0)


def operation(op: str, invoked_s: float, **more: Any) -> Operation:
    known = {
        "process": "c",
        "workload": "register",
        "service": "s",
        "resource": "R",
        "kind": "read",
    }
    ended = {"status": Status.OK, "completed_s": invoked_s + 0.1, "result": 0}
    return Operation(op=op, invoked_s=invoked_s, **{**known, **ended, **more})


def kept(*operations: Operation, losses: list[Loss]) -> list[str]:
    history = History(
        operations=operations,
        losses=losses,
        outcomes=[
            OutcomeEntry(seq=1, service="s", resource="R", op="stored", outcome="executed", reply=0)
        ],
    )
    return [violation.message for violation in check_all(history, [CHECKERS["kept"]])]


def test_what_was_acknowledged_before_an_announced_loss_may_be_missing() -> None:
    assert kept(operation("gone", 5.0), operation("stored", 6.0), losses=[LOSS]) == []


def test_without_an_announcement_it_may_not() -> None:
    assert len(kept(operation("gone", 5.0), losses=[])) == 1


def test_what_came_after_the_loss_was_accepted_may_not_be_missing() -> None:
    assert len(kept(operation("gone", 11.0), losses=[LOSS])) == 1


def test_another_service_has_lost_nothing() -> None:
    assert len(kept(operation("gone", 5.0, service="other"), losses=[LOSS])) == 1
