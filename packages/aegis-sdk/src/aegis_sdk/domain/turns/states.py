"""The states of a writer's requests and resources, and of a caller's, as tables. The diagrams in docs/protocol.md are made from them.

A pair that is not in its table can't happen: `step` raises, which is a bug of ours, told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar


class WorkState(StrEnum):
    """One request at one writer."""

    WAITING = "waiting"
    """In its resource's queue."""
    ASKED = "asked"
    """The log is asked whether it has an outcome."""
    NOTING = "noting"
    """It is being noted that it begins once more (begins.py)."""
    RUNNING = "running"
    """Its handler, one that waits, has begun."""
    READY = "ready"
    """Its outcome is computed, and not stored."""
    STORING = "storing"
    """Its outcome is in an entry that was sent to the log."""
    DONE = "done"
    """Its outcome is stored, by whomever."""
    DROPPED = "dropped"
    """Not this writer's business (any more): nothing of it was stored here."""


class WorkEvent(StrEnum):
    DOUBTED = "doubted"
    """It may have an outcome that this writer does not know."""
    FOUND = "found"
    NOT_FOUND = "not found"
    SUSPECTED = "suspected"
    """An earlier begin may have ended its process."""
    NOTED = "noted"
    """That is in the log."""
    BEGUN = "begun"
    COMPUTED = "computed"
    """Its outcome is known: by its handler, or by what is to be said without running it."""
    COMPOSED = "composed"
    """Part of an entry. A pure handler's outcome is computed while that is made."""
    STORED = "stored"
    REFUSED = "refused"
    """The entry was refused, and the outcome stands nevertheless: its handler has waited, or called outside."""
    UNDONE = "undone"
    """The entry was refused; the handler is pure, and runs again."""
    LOST = "lost"
    """The resource went to another writer, the caller gave up, or it has waited too long."""


_W, _E = WorkState, WorkEvent

WORK: Final[Mapping[tuple[WorkState, WorkEvent], WorkState]] = {
    (_W.WAITING, _E.DOUBTED): _W.ASKED,
    (_W.WAITING, _E.SUSPECTED): _W.NOTING,
    (_W.WAITING, _E.BEGUN): _W.RUNNING,
    (_W.WAITING, _E.COMPUTED): _W.READY,
    (_W.WAITING, _E.COMPOSED): _W.STORING,
    (_W.WAITING, _E.FOUND): _W.DONE,
    (_W.WAITING, _E.LOST): _W.DROPPED,
    (_W.ASKED, _E.FOUND): _W.DONE,
    (_W.ASKED, _E.NOT_FOUND): _W.WAITING,
    (_W.ASKED, _E.LOST): _W.DROPPED,
    (_W.NOTING, _E.NOTED): _W.WAITING,
    (_W.NOTING, _E.LOST): _W.DROPPED,
    (_W.RUNNING, _E.COMPUTED): _W.READY,
    (_W.RUNNING, _E.LOST): _W.DROPPED,
    (_W.READY, _E.COMPOSED): _W.STORING,
    (_W.READY, _E.LOST): _W.DROPPED,
    (_W.STORING, _E.STORED): _W.DONE,
    (_W.STORING, _E.REFUSED): _W.READY,
    (_W.STORING, _E.UNDONE): _W.WAITING,
    (_W.STORING, _E.FOUND): _W.DONE,
}


class HeldState(StrEnum):
    """One resource at one writer."""

    FOLLOWING = "following"
    """Another writer's, or nobody's: its entries are folded."""
    TAKING = "taking"
    """Ours by the newest ownership entry; a writer before us is not shut out yet."""
    SERVING = "serving"
    PAUSED = "paused"
    """Ours, and nothing new begins: it is about to be given away."""


class HeldEvent(StrEnum):
    GIVEN = "given"
    """An ownership entry names us; others may still write."""
    WHOLE = "whole"
    """Nobody else can store a turn of it any more, and all that was stored is folded."""
    TAKEN = "taken"
    PAUSED = "paused"
    RESUMED = "resumed"


_H, _G = HeldState, HeldEvent

HELD: Final[Mapping[tuple[HeldState, HeldEvent], HeldState]] = {
    (_H.FOLLOWING, _G.GIVEN): _H.TAKING,
    (_H.TAKING, _G.WHOLE): _H.SERVING,
    (_H.TAKING, _G.TAKEN): _H.FOLLOWING,
    (_H.SERVING, _G.PAUSED): _H.PAUSED,
    (_H.SERVING, _G.TAKEN): _H.FOLLOWING,
    (_H.PAUSED, _G.RESUMED): _H.SERVING,
    (_H.PAUSED, _G.TAKEN): _H.FOLLOWING,
}


class CallState(StrEnum):
    """One request at its caller."""

    SENT = "sent"
    STORING = "storing"
    """In doubt: it is being stored, under the same id."""
    STORED = "stored"
    ASKED = "asked"
    """Past its deadline: the active is asked to end it, unless it has begun."""
    LEFT = "left"
    """Nobody said how it ended: its caller ends the doubt itself (R6)."""
    DONE = "done"
    """Its outcome is known, or that there is none and never will be."""


class CallEvent(StrEnum):
    DOUBTED = "doubted"
    STORED = "stored"
    LOST = "lost"
    """With the log that it was stored in."""
    EXPIRED = "expired"
    UNANSWERED = "unanswered"
    ENDED = "ended"


_C, _V = CallState, CallEvent

CALL: Final[Mapping[tuple[CallState, CallEvent], CallState]] = {
    (_C.SENT, _V.DOUBTED): _C.STORING,
    (_C.STORING, _V.STORED): _C.STORED,
    (_C.STORED, _V.LOST): _C.STORING,
    (_C.SENT, _V.EXPIRED): _C.ASKED,
    (_C.STORING, _V.EXPIRED): _C.ASKED,
    (_C.STORED, _V.EXPIRED): _C.ASKED,
    (_C.ASKED, _V.UNANSWERED): _C.LEFT,
    (_C.SENT, _V.ENDED): _C.DONE,
    (_C.STORING, _V.ENDED): _C.DONE,
    (_C.STORED, _V.ENDED): _C.DONE,
    (_C.ASKED, _V.ENDED): _C.DONE,
    (_C.LEFT, _V.ENDED): _C.DONE,
}


class GiveUpState(StrEnum):
    """Callers that end their doubt together (R6)."""

    ENDING = "ending"
    """Their ends are being stored; for what has a name of its own, their cancels."""
    FINDING = "finding"
    """Who may write their resources is looked up, by the log up to the last end."""
    SHUTTING = "shutting"
    """A new gate of each of these is being stored, unless one stands behind the ends already."""
    LOOKING = "looking"
    """The log is read up to the last gate."""
    KNOWN = "known"


class GiveUpEvent(StrEnum):
    ENDED = "ended"
    SETTLED = "settled"
    """All of them have a name of their own: what stands there is the answer."""
    FOUND = "found"
    SHUT = "shut"
    LOOKED = "looked"


_U, _P = GiveUpState, GiveUpEvent

GIVE_UP: Final[Mapping[tuple[GiveUpState, GiveUpEvent], GiveUpState]] = {
    (_U.ENDING, _P.ENDED): _U.FINDING,
    (_U.ENDING, _P.SETTLED): _U.KNOWN,
    (_U.FINDING, _P.FOUND): _U.SHUTTING,
    (_U.SHUTTING, _P.SHUT): _U.LOOKING,
    (_U.LOOKING, _P.LOOKED): _U.KNOWN,
}


class Why(StrEnum):
    """Why a request was dropped, which says what its host does with a stored one."""

    MOVED = "moved"
    """The resource's owner has it, or will: not acknowledged."""
    ENDED = "ended"
    """Its caller gave up, and it can't take effect any more: acknowledged."""
    LATE = "late"
    """Nobody can say any more whether its caller gave up: its caller asks again."""
    BUSY = "busy"
    """The queue is full: its caller stores it."""


State = TypeVar("State", WorkState, HeldState, CallState, GiveUpState)
Event = TypeVar("Event", WorkEvent, HeldEvent, CallEvent, GiveUpEvent)


class ImpossibleStep(Exception):
    """A bug of ours: this can't happen to something in that state."""


def step(table: Mapping[tuple[State, Event], State], state: State, event: Event) -> State:
    """The next state. Raises: ImpossibleStep."""
    after = table.get((state, event))
    if after is None:
        raise ImpossibleStep(f"{event.value!r} can't happen to one that is {state.value!r}")
    return after


def mermaid(table: Mapping[tuple[State, Event], State], begin: State) -> str:
    """The table as a state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {begin}"]
    lines += [f"    {before} --> {after}: {event}" for (before, event), after in table.items()]
    return "\n".join(lines) + "\n"
