"""One module a promise; each has a pure `check(history)` that gives the violations it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.chaos.checkers import (
    definite,
    enough,
    epochs,
    fold,
    group,
    kept,
    linearizable,
    once,
    order,
    recovery,
    totals,
)
from bench.chaos.checkers.announced import without_announced
from bench.chaos.history import History, Violation

Checker = Callable[[History], list[Violation]]

CHECKERS: dict[str, Checker] = {
    "kept": kept.check,
    "once": once.check,
    "fold": fold.check,
    "linearizable": linearizable.check,
    "order": order.check,
    "totals": totals.check,
    "group": group.check,
    "definite": definite.check,
    "epochs": epochs.check,
    "recovery": recovery.check,
    "enough": enough.check,
}


def check_all(history: History, checkers: Sequence[Checker] | None = None) -> list[Violation]:
    """What all checkers find, in their order."""
    chosen = CHECKERS.values() if checkers is None else checkers
    judged = without_announced(history)
    return [violation for checker in chosen for violation in checker(judged)]
