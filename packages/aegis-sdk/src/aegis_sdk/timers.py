"""A resource's timers as its handler sees them: set, dropped and counted on top of what is stored.

What a handler does here becomes part of its outcome (`change`), and is nothing if it ends otherwise. When timers fire and how they
end is decided by domain/turns/timers.py.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from aegis_sdk.contract import arguments
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.names import encode_token
from aegis_sdk.contract.turns.timers import RESERVED, TIMERS_MAX, Timer
from aegis_sdk.errors import ContractError, InvalidArgument, InvalidName


class TimerChanges:
    """Of one run of a handler. `stored`: the timers by name as they are before it."""

    __slots__ = ("_dropped", "_set", "_stored", "_unnamed")

    def __init__(self, stored: Mapping[str, Timer]) -> None:
        self._stored = stored
        self._set: dict[str, Timer] = {}
        self._dropped: dict[str, None] = {}
        self._unnamed = 0

    def name(self, given: Any, method: str, request_id: str) -> str:
        """The one that was given; or one that is the same in each run, and no other timer's. Raises: InvalidName."""
        if given is not None:
            return checked_name(given)
        self._unnamed += 1
        digest = hashlib.blake2b(request_id.encode(), digest_size=8).hexdigest()
        return f"{method}-{digest}x{self._unnamed}"

    def set(self, name: str, due_s: float, request: Request) -> None:
        """Raises: ContractError, when the resource has too many."""
        if name not in self._set and (name in self._dropped or name not in self._stored):
            gone = sum(each in self._stored for each in self._dropped)
            new = sum(each not in self._stored or each in self._dropped for each in self._set)
            if len(self._stored) - gone + new >= TIMERS_MAX:
                raise ContractError(
                    f"{request.resource!r} has {TIMERS_MAX} timers, as many as a resource can have: drop some, give"
                    " one timer several things to do, or spread them over more resources"
                )
        self._set[name] = Timer.made(name, due_s, request)

    def drop(self, given: Any) -> bool:
        """Whether there was one. Raises: InvalidName."""
        name = checked_name(given)
        was_set = self._set.pop(name, None) is not None
        if name in self._stored and name not in self._dropped:
            self._dropped[name] = None
            return True
        return was_set

    def now(self) -> dict[str, float]:
        """When each is due (Unix time), by name."""
        kept = (timer for timer in self._stored.values() if timer.name not in self._dropped)
        timers = (*kept, *self._set.values())
        return {t.name: t.due_s for t in timers if not t.name.startswith(RESERVED)}

    def change(self) -> tuple[tuple[str, ...], tuple[Mapping[str, Any], ...]]:
        """(names that are dropped, timers that are set after that) as a `Change` has them."""
        return tuple(self._dropped), tuple([timer.content for timer in self._set.values()])


def checked_name(given: Any) -> str:
    """Raises: InvalidName."""
    name = arguments.text(given, "a timer's name", error=InvalidName)
    encode_token(name, kind="a timer's name")
    if name.startswith(RESERVED):
        raise InvalidName(
            f"a timer's name {name!r} begins with {RESERVED!r}, as what callers submit for later does: take another"
        )
    return name


def due_s(after_s: Any, at: Any) -> float:
    """Unix time, by what a caller gives: seconds from now, or a datetime with its zone. Raises: InvalidArgument."""
    if (after_s is None) == (at is None):
        raise InvalidArgument(
            "a timer takes after_s= (seconds from now) or at= (a datetime with its zone), and one of them"
        )
    if at is not None:
        return arguments.moment_s(at, "at")
    return time.time() + arguments.duration_s(after_s, "after_s")
