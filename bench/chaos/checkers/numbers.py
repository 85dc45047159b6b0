"""A resource's outcomes are numbered 1, 2, 3, in the order of its log, whoever stored them (G2, G5).

A writer that was not shut out, or that judged by what it had not read, gives a number twice or leaves one out. Places whose
log was lost, as was told, and outcomes without a number are left out.
"""

from __future__ import annotations

from collections import defaultdict

from bench.chaos.history import History, OutcomeEntry, Place, Violation

TOLD_MAX = 3
"""Of one place: behind a number that is wrong, all may be."""


def check(history: History) -> list[Violation]:
    lost = {loss.service for loss in history.losses if loss.of_journal}
    places: dict[Place, list[OutcomeEntry]] = defaultdict(list)
    for entry in history.outcomes:
        if entry.number and entry.service not in lost:
            places[entry.place].append(entry)
    return [violation for entries in places.values() for violation in _place(entries)[:TOLD_MAX]]


def _place(entries: list[OutcomeEntry]) -> list[Violation]:
    found, last = [], 0
    for entry in sorted(entries, key=lambda entry: entry.seq):
        if entry.number != last + 1:
            where = f"{'/'.join(entry.place)}: {entry.op} (entry {entry.seq})"
            found.append(
                Violation("numbers", f"{where} has number {entry.number} behind {last}", "G5")
            )
        last = entry.number
    return found
