"""Epochs never overlap in effect (G5): behind the fence of an epoch, the journal has no older one."""

from __future__ import annotations

from collections import defaultdict

from bench.chaos.history import FenceEntry, History, OutcomeEntry, Place, Violation


def check(history: History) -> list[Violation]:
    """Along a resource's journal, epochs only rise, and each is fenced before its first outcome.

    A fence that nobody saw (the stream keeps the last one alone) is no violation by itself. An owner that has
    connected anew stores the fence of its epoch once more.
    """
    places: dict[Place, list[FenceEntry | OutcomeEntry]] = defaultdict(list)
    entries: list[FenceEntry | OutcomeEntry] = [*history.fences, *history.outcomes]
    for entry in entries:
        places[entry.place].append(entry)
    return [violation for of_place in places.values() for violation in _place(of_place)]


def _place(entries: list[FenceEntry | OutcomeEntry]) -> list[Violation]:
    found = []
    newest, owner = 0, ""
    for entry in sorted(entries, key=lambda entry: entry.seq):
        problem = _problem(entry, newest, owner)
        if problem:
            found.append(Violation("epochs", f"{'/'.join(entry.place)}: {problem}", "G5"))
        newest = max(newest, entry.epoch)
        if isinstance(entry, FenceEntry):
            owner = entry.owner
    return found


def _problem(entry: FenceEntry | OutcomeEntry, newest: int, owner: str) -> str:
    if isinstance(entry, FenceEntry):
        if entry.epoch > newest or (entry.epoch, entry.owner) == (newest, owner):
            return ""
        return f"the fence of epoch {entry.epoch} is behind epoch {newest} (entry {entry.seq})"
    if not entry.epoch or entry.epoch >= newest:
        return ""
    return f"{entry.op} of epoch {entry.epoch} is stored behind epoch {newest} (entry {entry.seq})"
