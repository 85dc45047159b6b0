"""Nothing of a paused resource takes effect between the answer to `pause` and the word to resume it.

The suite notes the journal's end when control has said that every instance knows of the pause and that nothing of it runs any
more, and again before it asks to resume. In between there may be refusals, and no outcome of a handler.
"""

from __future__ import annotations

from bench.chaos.history import PUT_BACK, History, Pause, Violation

TOLD_MAX = 3
"""Of one pause."""


def check(history: History) -> list[Violation]:
    """Every executed outcome that stands in a pause of its resource."""
    return [
        violation
        for pause in history.pauses
        if not _may_be_gone(history, pause)
        for violation in _of(history, pause)[:TOLD_MAX]
    ]


def _of(history: History, pause: Pause) -> list[Violation]:
    return [
        Violation(
            "paused",
            f"{entry.op} on {'/'.join(entry.place)} was executed (entry {entry.seq}) while it was paused,"
            f" from {pause.from_seq} to {pause.to_seq}",
        )
        for entry in history.outcomes
        if entry.place == (pause.service, pause.resource)
        and entry.executed
        and pause.from_seq < entry.seq <= pause.to_seq
    ]


def _may_be_gone(history: History, pause: Pause) -> bool:
    """Its places may be another log's."""
    lost = any(
        loss.of_journal and loss.service == pause.service and pause.began_s < loss.accepted_s
        for loss in history.losses
    )
    copied = (fault for fault in history.faults if fault.kind == PUT_BACK)
    return lost or any(pause.began_s < fault.healed_s for fault in copied)
