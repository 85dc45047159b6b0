"""Epochs never overlap in effect (G5): along a resource's log they only rise."""

from __future__ import annotations

from collections import defaultdict

from bench.chaos.history import History, OutcomeEntry, Place, Violation


def check(history: History) -> list[Violation]:
    """Outcomes without an epoch are of callers that gave up."""
    places: dict[Place, list[OutcomeEntry]] = defaultdict(list)
    for entry in history.outcomes:
        if entry.epoch:
            places[entry.place].append(entry)
    return [violation for entries in places.values() for violation in _place(entries)]


def _place(entries: list[OutcomeEntry]) -> list[Violation]:
    found, newest = [], 0
    for entry in sorted(entries, key=lambda entry: entry.seq):
        if entry.epoch < newest:
            where = f"{'/'.join(entry.place)}: {entry.op} of epoch {entry.epoch}"
            problem = f"{where} is stored behind epoch {newest} (entry {entry.seq})"
            found.append(Violation("epochs", problem, "G5"))
        newest = max(newest, entry.epoch)
    return found
