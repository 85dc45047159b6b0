"""Which requests of each caller have an outcome: how a request that comes twice is recognised.

Theory of operation. A client numbers its requests, over all resources. For one resource and one caller, a *session* holds
the highest number with an outcome, and one bit for each of the WINDOW numbers below it. A number above the highest was never
done; one within the window is told by its bit. One below the window is UNKNOWN: the log has to be asked. It is
never guessed, since both guesses are wrong: "done" would lose the request, "new" would double it.

Sessions are part of the fold and of checkpoints, so every owner that follows tells the same. One that was not used for as long
as outcomes are kept is dropped, by the log's own timestamps. Ids that are no client's number (a key, a child of a request, a
redriven one) have no session; their outcomes are singles, stored under their own name.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from aegis_sdk.contract.ids import TICKET, is_timer

WINDOW: Final = 1024
"""Numbers below the highest that are told without asking the log: several times what one client has in flight."""
_MASK: Final = (1 << WINDOW) - 1


class Seen(Enum):
    NEW = auto()
    DONE = auto()
    UNKNOWN = auto()


class Session:
    """One caller's numbers at one resource."""

    __slots__ = ("bits", "highest", "used_s")

    def __init__(self, highest: int = 0, bits: int = 0, used_s: float = 0.0) -> None:
        self.highest = highest
        self.bits = bits
        """Bit i says that number `highest - i` has an outcome."""
        self.used_s = used_s
        """Unix time of its last outcome, by the log."""

    def seen(self, number: int) -> Seen:
        behind = self.highest - number
        if behind < 0:
            return Seen.NEW
        if behind >= WINDOW:
            return Seen.UNKNOWN
        return Seen.DONE if self.bits >> behind & 1 else Seen.NEW

    def add(self, number: int) -> None:
        behind = self.highest - number
        if behind < 0:
            self.bits = (self.bits << min(-behind, WINDOW) | 1) & _MASK
            self.highest = number
        elif behind < WINDOW:
            self.bits |= 1 << behind


class Sessions:
    """All sessions of one resource."""

    __slots__ = ("_by_caller",)

    def __init__(self) -> None:
        self._by_caller: dict[str, Session] = {}

    def seen(self, caller: str, number: int) -> Seen:
        """Whether the request has an outcome. UNKNOWN for number 0: an id that no client's counter gave."""
        if number == 0:
            return Seen.UNKNOWN
        session = self._by_caller.get(caller)
        return Seen.NEW if session is None else session.seen(number)

    def add(self, caller: str, number: int, at_s: float) -> None:
        """The request has an outcome, stored at `at_s`."""
        if number == 0:
            return
        session = self._by_caller.get(caller)
        if session is None:
            session = self._by_caller[caller] = Session()
        session.add(number)
        session.used_s = max(session.used_s, at_s)

    def drop_unused(self, before_s: float) -> None:
        """Forget callers that had no outcome since `before_s`."""
        old = [caller for caller, session in self._by_caller.items() if session.used_s < before_s]
        for caller in old:
            del self._by_caller[caller]

    def __len__(self) -> int:
        return len(self._by_caller)

    def dump(self) -> list[tuple[str, int, str, float]]:
        """For a checkpoint: (caller, highest number, bits in hexadecimal, last use)."""
        return [(c, s.highest, f"{s.bits:x}", s.used_s) for c, s in self._by_caller.items()]

    @classmethod
    def load(cls, rows: Iterable[tuple[str, int, str, float]]) -> Sessions:
        sessions = cls()
        for caller, highest, bits, used_s in rows:
            sessions._by_caller[caller] = Session(highest, int(bits, 16), used_s)
        return sessions


def is_single(request_id: str) -> bool:
    """Whether its outcome has a name of its own, so that anybody finds it: all but a client's plain requests, and timers'."""
    if split(request_id)[1] == 0:
        return not is_timer(request_id)
    return request_id.endswith(TICKET)


def split(request_id: str) -> tuple[str, int]:
    """(caller, number) of a client's own request; number 0 for every other id."""
    caller, _, text = request_id.partition(".")
    text = text.removesuffix(TICKET)
    plain = text.isdecimal() and text.isascii() and "~" not in caller and "-" not in caller
    return caller, int(text) if plain else 0
