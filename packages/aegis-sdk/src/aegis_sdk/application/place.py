"""What a running handler takes of its instance: its credit of the group, and a thread when it is a plain `def`.

A handler that waits for an answer does no work. If it kept its place meanwhile, the requests that it waits for
could stand behind it, and all would wait until their deadlines. So it gives its place back while it waits, and one
that runs for very long gives it back for good. Invariant: an answer is waited for inside `waiting()`, whoever asks.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol


class Holder(Protocol):
    """One thing that a run holds. Both are called on the event loop."""

    def leave(self) -> None:
        """Others may have it."""

    def come_back(self) -> None:
        """It is used again, also when others have it meanwhile: nobody waits to go on."""


class Nothing:
    """What needs no giving back."""

    __slots__ = ()

    def leave(self) -> None: ...

    def come_back(self) -> None: ...


NOTHING: Final = Nothing()


class Place:
    """One run's place; entered while it waits. Several waits at once, as of a `gather`, are one."""

    __slots__ = ("_holders", "_waits", "is_in_doubt", "is_over")

    def __init__(self) -> None:
        self._holders: list[Holder] = []
        self._waits = 0
        self.is_in_doubt = False
        """A call that was made here ended without anybody knowing how."""
        self.is_over = False

    def hold(self, holder: Holder) -> None:
        self._holders.append(holder)

    def __enter__(self) -> None:
        self._waits += 1
        if self._waits == 1:
            for holder in self._holders:
                holder.leave()

    def __exit__(self, *_: object) -> None:
        self._waits -= 1
        if not self._waits:
            for holder in self._holders:
                holder.come_back()

    def give_away(self) -> None:
        """It hangs: others have its place from now on."""
        self.__enter__()

    def end(self) -> None:
        """The run is over; what it left running may still wait, and that is nobody's business."""
        self._holders = []
        self.is_over = True


PLACE: ContextVar[Place | None] = ContextVar("aegis_place", default=None)
"""The place of the handler that runs here: its tasks and its thread inherit it."""
_NOBODY = nullcontext()


def waiting() -> AbstractContextManager[None]:
    """Around a wait for somebody's answer."""
    return PLACE.get() or _NOBODY


def told_doubt() -> None:
    """The handler that runs here, if one does, is told that nobody knows how its call ended."""
    if (place := PLACE.get()) is not None:
        place.is_in_doubt = True
