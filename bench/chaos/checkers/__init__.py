"""One module a promise; each has a pure `check(history)` that gives the violations it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.chaos.checkers import (
    announced,
    definite,
    enough,
    epochs,
    events,
    fold,
    gates,
    group,
    kept,
    linearizable,
    numbers,
    once,
    order,
    paused,
    recovery,
    stale,
    timers,
    totals,
)
from bench.chaos.history import History, Violation

Checker = Callable[[History], list[Violation]]

CHECKERS: dict[str, Checker] = {
    "announced": announced.check,
    "kept": kept.check,
    "once": once.check,
    "fold": fold.check,
    "linearizable": linearizable.check,
    "stale": stale.check,
    "order": order.check,
    "totals": totals.check,
    "timers": timers.check,
    "events": events.check,
    "group": group.check,
    "definite": definite.check,
    "epochs": epochs.check,
    "gates": gates.check,
    "paused": paused.check,
    "numbers": numbers.check,
    "recovery": recovery.check,
    "enough": enough.check,
}

AS_IT_WAS = (announced.check, gates.check, paused.check, recovery.check, enough.check)
"""They judge the history as it was: what is gone, and whether something was answered, whatever became of that."""


def check_all(history: History, checkers: Sequence[Checker] | None = None) -> list[Violation]:
    """What all checkers find, in their order."""
    chosen = CHECKERS.values() if checkers is None else checkers
    judged = announced.without_announced(history)
    return [
        violation
        for checker in chosen
        for violation in checker(history if checker in AS_IT_WAS else judged)
    ]
