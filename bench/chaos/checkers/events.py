"""Events (G1, G3, G7): each that was emitted has one effect at its subscriber, and those of a resource in its order.

By the state at the end: what a resource has told of is a count, and what was heard of it must be 1, 2, 3 and so on up to that. By the journal:
no event has two outcomes. Where a stream was lost, as was told, events are lost with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from bench.chaos.history import History, Violation, nested

WORKLOAD = "events"


def check(history: History) -> list[Violation]:
    lost = {loss.service for loss in history.losses}
    finals = [f for f in history.finals if f.workload == WORKLOAD and f.service not in lost]
    told = {f.resource: f.value["told"] for f in finals if "told" in f.value}
    heard = {by: numbers for f in finals for by, numbers in f.value.items() if by != "told"}
    found = [line for by, count in told.items() for line in _wrong(by, count, heard.get(by, []))]
    found += _twice(history)
    return [Violation("events", what, "G3") for what in found]


def _wrong(by: str, count: int, heard: Sequence[int]) -> Iterator[str]:
    missing = sorted(set(range(1, count + 1)) - set(heard))
    if missing:
        yield f"{len(missing)} events of {by} were never heard, {missing[0]} first, of {count}"
    if len(set(heard)) < len(heard):
        yield f"{len(heard) - len(set(heard))} events of {by} were heard twice"
    swapped = [(a, b) for a, b in itertools.pairwise(heard) if b < a]
    if swapped:
        before, after = swapped[0]
        yield f"event {after} of {by} was heard behind {before}"


def _twice(history: History) -> Iterator[str]:
    ours = {operation.op for operation in history.of(WORKLOAD)}
    for op, outcomes in history.outcomes_of().items():
        teller = op.removesuffix(nested(""))
        if teller != op and teller in ours and len(outcomes) > 1:
            yield f"the event of {teller} has {len(outcomes)} outcomes"
