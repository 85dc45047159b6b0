"""What control announced as lost is no broken promise: the history without it.

An acknowledged operation may be missing in the journal only if control told of a loss of its service's streams
that was accepted after the client had its answer. Then it is left out, as if it had never been: all that
came after must agree with that, too.
"""

from __future__ import annotations

from dataclasses import replace

from bench.chaos.history import History, Operation, nested


def without_announced(history: History) -> History:
    """The history that is left when what was announced as lost is gone."""
    accepted_s: dict[str, float] = {}
    for loss in history.losses:
        accepted_s[loss.service] = max(loss.accepted_s, accepted_s.get(loss.service, 0.0))
    stored = {entry.op for entry in history.outcomes}

    def is_lost(operation: Operation) -> bool:
        until_s = accepted_s.get(operation.service)
        return (
            until_s is not None
            and operation.invoked_s < until_s
            and operation.answered
            and operation.op not in stored
            and nested(operation.op) not in stored
        )

    return replace(history, operations=[op for op in history.operations if not is_lost(op)])
