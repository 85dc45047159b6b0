"""Requests that may have ended their process: their begins are noted, and after some they are given up.

Theory of operation. A handler can kill its process, and the request is served by the next owner, whom it kills too. What
is begun for the first time costs no note. Only a request that another owner may have begun is a *suspect*: one that was sent
or stored before the resource came here from somebody. Its begin is noted in a turn, and it runs when that is stored. So
each death leaves one note more. A request with one noted begin runs alone from then on: nothing else does from before its note
until its end, so that the next death tells who is to blame (the host sees to it, and asks for that note by `note`). With
ATTEMPTS_MAX begins it is given up: its outcome is `failed`, and a copy goes to the DLQ.

What must stay true: a suspect is run when its note is in the log. What would break: a request that kills its process
at once would go on for ever. Notes are part of the fold and of checkpoints, and go when the request has an outcome or an end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from aegis_sdk.domain.delivery import Verdict, judge
from aegis_sdk.domain.turns.output import Output
from aegis_sdk.domain.turns.states import WorkEvent, WorkState
from aegis_sdk.domain.turns.work import Held, Work

_NOTING: Final = frozenset({WorkState.NOTING, WorkState.RUNNING})


class Begins:
    """Of one writer."""

    __slots__ = ("_to_note",)

    def __init__(self) -> None:
        self._to_note: deque[Work] = deque()

    @property
    def is_due(self) -> bool:
        return bool(self._to_note)

    def judge(self, held: Held, work: Work) -> bool:
        """Whether a suspect may go on now: the host gives it up, or runs it alone. Else its begin is noted first."""
        decide(work, held.begun.get(work.request.request_id, 0))
        work.suspect = False
        if work.verdict is not Verdict.RUN_NOTED:
            return True
        work.step(WorkEvent.SUSPECTED)
        self._to_note.append(work)
        return False

    def note(self, work: Work) -> None:
        """It is about to run, and nothing else does."""
        self._to_note.append(work)

    def take(self, most: int) -> list[Work]:
        """For the entry that is being made."""
        taken: list[Work] = []
        while self._to_note and len(taken) < most:
            work = self._to_note.popleft()
            if work.state in _NOTING:  # it was not ended meanwhile
                taken.append(work)
        return taken

    def stored(
        self, notes: Sequence[Work], all_held: Mapping[str, Held], out: Output
    ) -> list[Held]:
        """That entry is. The resources whose queues can go on."""
        free = []
        for work in notes:
            if work.state in _NOTING:
                held = all_held[work.request.resource or ""]
                held.begun[work.request.request_id] = work.begun - 1
                held.is_changed = True
                if work.state is WorkState.RUNNING:
                    out.noted.append(work)
                else:
                    work.step(WorkEvent.NOTED)
                    free.append(held)
        return free

    def undone(self, notes: Sequence[Work]) -> None:
        """It is not: they are noted by the next one."""
        self._to_note.extendleft(reversed(notes))


def decide(work: Work, noted: int) -> None:
    """What is done with a suspect, of which so many begins are noted."""
    work.verdict = judge(second=True, noted=noted)
    work.begun = noted + (
        1 if work.verdict is Verdict.GIVE_UP else 2
    )  # the first one was not noted
    if work.verdict is not Verdict.RUN_NOTED:
        work.pure = False
