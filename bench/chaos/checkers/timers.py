"""Timers (G2, G3): each fires once, not before its time, not after it was dropped, and none is lost.

An operation that took effect has armed a timer, whose request is called after it. Its reply says when that was, by the machine's monotonic
clock, and whether it dropped the timer of an earlier one. A timer that was dropped has no outcome. One that was not has one, by the end.

What is submitted for later (`later`) is begun so late, too: the other checkers know it as any request.

Where a process's wall clock was set, a timer may be early by that: it follows that clock. Where a journal was lost, as was told,
timers are lost with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.chaos.checkers.announced import last_losses
from bench.chaos.history import History, Operation, OutcomeEntry, Violation, nested
from bench.chaos.nemesis import Kind

WORKLOAD = "timers"
EARLY_S = 0.01
"""Two clocks of one machine that are read one after the other."""


def check(history: History) -> list[Violation]:
    """By the journal, and by the state at the end."""
    operations = {op.op: op for op in history.of(WORKLOAD)}
    outcomes = history.outcomes_of()
    until_s = last_losses(history, of_journal=True)
    clocks_set = any(fault.kind == Kind.JUMP_CLOCK for fault in history.faults)
    dropped = {
        each.args["drops"]: each for each in operations.values() if _has_dropped(each, outcomes)
    }
    found: list[str] = []
    for op, operation in operations.items():
        armed = _executed(outcomes.get(op, []))
        if operation.kind == "later":
            found += _begun_early(operation, armed) if armed and not clocks_set else []
            continue
        fired = outcomes.get(nested(op), [])
        if len(fired) > 1:
            found.append(f"the timer of {op} has {len(fired)} outcomes")
        if armed is None or operation.invoked_s <= until_s(operation.service):
            continue
        if op in dropped and fired:
            found.append(f"the timer of {op} fired, and {dropped[op].op} had dropped it")
        if op not in dropped and not fired:
            found.append(f"the timer of {op} never fired")
        if not clocks_set:
            found += _early(operation, armed, fired)
    found += _totals(history, outcomes)
    return [Violation("timers", what, "G3") for what in found]


def _executed(entries: list[OutcomeEntry]) -> OutcomeEntry | None:
    return next((entry for entry in entries if entry.executed), None)


def _has_dropped(operation: Operation, outcomes: dict[str, list[OutcomeEntry]]) -> bool:
    entry = _executed(outcomes.get(operation.op, [])) if operation.args.get("drops") else None
    return entry is not None and bool(entry.reply["dropped"])


def _begun_early(operation: Operation, entry: OutcomeEntry) -> Iterator[str]:
    due_s = operation.invoked_s + operation.args["after_s"] - EARLY_S
    if entry.reply < due_s:
        yield f"{operation.op} was submitted for later, and begun {due_s - entry.reply:.3f} s early"


def _early(operation: Operation, armed: OutcomeEntry, fired: list[OutcomeEntry]) -> Iterator[str]:
    due_s = armed.reply["armed_s"] + operation.args["after_s"] - EARLY_S
    for entry in fired:
        if entry.executed and (entry.reply < due_s or entry.stored_s < due_s):
            early_s = due_s - min(entry.reply, entry.stored_s)
            yield f"the timer of {operation.op} fired {early_s:.3f} s before its time"


def _totals(history: History, outcomes: dict[str, list[OutcomeEntry]]) -> Iterator[str]:
    """What the state counted is what the journal has."""
    finals = [final for final in history.finals if final.workload == WORKLOAD]
    later = {op.op for op in history.of(WORKLOAD) if op.kind == "later"}
    lost = {loss.service for loss in history.losses if loss.of_journal}
    for final in finals:
        counted = sum(
            entry.executed and (op.endswith(nested("")) or op in later)
            for op, entries in outcomes.items()
            for entry in entries
            if entry.place == final.place
        )
        if final.value != counted and final.service not in lost:
            yield f"{final.resource} counted {final.value} that fired, the journal has {counted}"
