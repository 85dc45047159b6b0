"""Nothing of a writer that was sent before a gate of it stands behind that gate (G2, G5; the rules R1 and R3).

What slips past does no harm by itself: who reads the log leaves it out, or it is of the owner all the same. But its caller
was told. The suite knows the places of the gates that it stored; those of a log that lost something later are left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict

from bench.chaos.history import PUT_BACK, Gate, History, OutcomeEntry, Violation

TOLD_MAX = 3
"""Of one service."""


def check(history: History) -> list[Violation]:
    """Every outcome that names its writer's gate, beside the newest gate that stands before it."""
    gates: dict[tuple[str, str], list[int]] = defaultdict(list)
    for gate in history.gates:
        if not _may_be_gone(history, gate):
            gates[gate.service, gate.writer].append(gate.seq)
    for places in gates.values():
        places.sort()
    found: dict[str, list[Violation]] = defaultdict(list)
    for entry in history.outcomes:
        places = gates.get((entry.service, entry.writer), [])
        before = bisect_right(places, entry.seq)
        if entry.gate and before and places[before - 1] > entry.gate:
            found[entry.service].append(_violation(entry, places[before - 1]))
    return [violation for each in found.values() for violation in each[:TOLD_MAX]]


def _may_be_gone(history: History, gate: Gate) -> bool:
    """Another entry may stand in its place by now."""
    lost = any(
        loss.of_journal and loss.service == gate.service and gate.stored_s < loss.accepted_s
        for loss in history.losses
    )
    copied = (fault for fault in history.faults if fault.kind == PUT_BACK)
    return lost or any(gate.stored_s < fault.healed_s for fault in copied)


def _violation(entry: OutcomeEntry, gate: int) -> Violation:
    return Violation(
        "gates",
        f"{entry.op} on {'/'.join(entry.place)} (entry {entry.seq}) was stored under gate {entry.gate} of"
        f" {entry.writer}, behind its gate {gate}",
        "G5",
    )
