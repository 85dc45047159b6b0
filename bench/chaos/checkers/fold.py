"""Every reply follows from the journal before it (G3, G6): a replay of each place, entry by entry.

A state that lost or doubled a change shows here at the next reply, also when a later failover folded
it right again. Places whose workload is not known are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.chaos.checkers.group import WORKLOAD as GROUP
from bench.chaos.checkers.kept import COLLECTIONS
from bench.chaos.history import History, OutcomeEntry, Place, Violation, nested

TOLD_MAX = 3
"""Of one place: when one state is wrong, all after it may be."""

Step = Callable[[Any, str, Mapping[str, Any]], tuple[Any, Any]]
"""(value, kind, arguments) to (value after, reply)."""


@dataclass(frozen=True, slots=True)
class _Asked:
    workload: str
    kind: str
    args: Mapping[str, Any]


def check(history: History) -> list[Violation]:
    """Replay the executed outcomes of every place and compare the replies."""
    asked = _asked(history)
    values: dict[Place, Any] = {}
    wrong: dict[Place, list[Violation]] = {}
    for entry in sorted(history.outcomes, key=lambda entry: entry.seq):
        known = asked.get(entry.op)
        if not entry.executed or known is None:
            continue
        step = _STEPS[known.workload]
        value, reply = step(values.get(entry.place, 0), known.kind, known.args)
        values[entry.place] = value
        if reply != entry.reply:
            wrong.setdefault(entry.place, []).append(_violation(entry, reply))
    return [violation for found in wrong.values() for violation in found[:TOLD_MAX]]


def _asked(history: History) -> dict[str, _Asked]:
    """The clients' operations, and what their handlers ask for."""
    asked: dict[str, _Asked] = {}
    for operation in history.operations:
        if operation.workload not in _STEPS:
            continue
        if operation.kind == "deal":
            asked[nested(operation.op)] = _Asked(operation.workload, "append", operation.args)
            continue
        asked[operation.op] = _Asked(operation.workload, operation.kind, operation.args)
        if operation.kind == "transfer":
            asked[nested(operation.op)] = _Asked(operation.workload, "credit", operation.args)
    return asked


def _collection(count: Any, kind: str, args: Mapping[str, Any]) -> tuple[Any, Any]:
    """An addition's reply is its position."""
    return count + 1, count


def _register(value: Any, kind: str, args: Mapping[str, Any]) -> tuple[Any, Any]:
    match kind:
        case "write":
            return args["value"], args["value"]
        case "cas":
            did = value == args["old"]
            return (args["new"] if did else value), did
    return value, value


def _account(balance: Any, kind: str, args: Mapping[str, Any]) -> tuple[Any, Any]:
    """Every reply is the balance after."""
    after = balance - args["amount"] if kind == "transfer" else balance + args["amount"]
    return after, after


_STEPS: dict[str, Step] = {
    **dict.fromkeys((*COLLECTIONS, GROUP), _collection),
    "register": _register,
    "transfers": _account,
}


def _violation(entry: OutcomeEntry, reply: Any) -> Violation:
    return Violation(
        "fold",
        f"{entry.op} on {'/'.join(entry.place)} was answered {entry.reply!r} (entry {entry.seq}), "
        f"but the journal before it makes {reply!r}",
        "G6",
    )
