"""Order is kept (G7): the log, the lists and the clients all agree on it."""

from __future__ import annotations

from collections import defaultdict

from bench.chaos.history import Final, History, Operation, OutcomeEntry, Place, Status, Violation


def check(history: History) -> list[Violation]:
    """Effects follow real time, and each client's own sequence."""
    executed: dict[Place, list[OutcomeEntry]] = defaultdict(list)
    for entry in history.outcomes:
        if entry.executed and entry.resource:  # group requests have no order
            executed[entry.place].append(entry)
    by_id = {operation.op: operation for operation in history.operations}
    found: list[Violation] = []
    for entries in executed.values():
        found += _real_time(entries, by_id)
    for final in history.finals:
        if final.workload == "list":
            found += _list(final, executed[final.place], by_id)
    return found


def _real_time(entries: list[OutcomeEntry], by_id: dict[str, Operation]) -> list[Violation]:
    """What was acknowledged before another was asked took effect before it.

    Walks the journal with the latest invocation so far: an effect that comes later in the journal
    must not have been acknowledged before that. It also keeps each client's own sequence, for a
    client asks again only after it has an answer.
    """
    found = []
    latest: Operation | None = None
    for entry in entries:
        operation = by_id.get(entry.op)
        if operation is None:
            continue
        if latest is not None and _ended_before(operation, latest):
            found.append(
                _violation(
                    f"{operation.op} was answered before {latest.op} was asked, "
                    "but took effect after it"
                )
            )
        if latest is None or operation.invoked_s > latest.invoked_s:
            latest = operation
    return found


def _ended_before(operation: Operation, other: Operation) -> bool:
    ended = operation.completed_s
    return operation.status is Status.OK and ended is not None and ended < other.invoked_s


def _list(
    final: Final, entries: list[OutcomeEntry], by_id: dict[str, Operation]
) -> list[Violation]:
    """The list is the journal's order, element for element."""
    appended = [
        by_id[entry.op].args["element"]
        for entry in entries
        if entry.op in by_id and by_id[entry.op].kind == "append"
    ]
    if appended == list(final.value):
        return []
    at = next(
        (
            position
            for position, (one, other) in enumerate(zip(appended, final.value, strict=False))
            if one != other
        ),
        min(len(appended), len(final.value)),
    )
    return [
        _violation(
            f"{final.service}/{final.resource} differs from its journal at element {at} "
            f"({len(final.value)} elements, {len(appended)} in the journal)"
        )
    ]


def _violation(message: str) -> Violation:
    return Violation("order", message, "G7")
