"""A client never reads less than it has seen, whoever answers it: its reads of a register have versions that do not fall."""

from __future__ import annotations

from bench.chaos.history import History, Place, Status, Violation


def check(history: History) -> list[Violation]:
    newest: dict[tuple[str, Place], int] = {}
    found = []
    for look in sorted(history.looks, key=lambda each: each.invoked_s):
        if look.status is not Status.OK:
            continue
        key, version = (look.process, look.place), look.result["version"]
        seen = newest.get(key, 0)
        if version < seen:
            text = f"{look.kind} {look.op} of {look.resource} saw version {version} behind {seen}"
            found.append(Violation("stale", text, "G3"))
        newest[key] = max(seen, version)
    return found
