"""Stored values that this version can't read: left as they are, worked around, and told once each.

A stray key, or a value of a newer version, concerns what it is about and nothing else. What follows from it is
decided where it is read: an instance or a contract is as if it were not there, a resource gets no new active.
"""

from __future__ import annotations

from typing import Final

from aegis_sdk.contract.control import UnreadableView
from aegis_sdk.contract.values import field_errors
from pydantic import ValidationError

from aegis_control.application.ports import Events
from aegis_control.domain.events import ValueUnreadable

TOLD_MAX: Final = 100
"""Beyond it they are counted: a bucket full of them must not fill the log."""


class Unreadables:
    """All that are there now, by where they are."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], UnreadableView] = {}

    def __len__(self) -> int:
        return len(self._known)

    def has(self, where: str, key: str) -> bool:
        return (where, key) in self._known

    def some(self, most: int) -> list[UnreadableView]:
        return list(self._known.values())[:most]

    def clear(self, where: str, key: str) -> None:
        """It is gone, or can be read now."""
        self._known.pop((where, key), None)

    def note(self, events: Events, where: str, key: str, revision: int, why: object) -> None:
        """Tell of it, unless this very value is known."""
        before = self._known.get((where, key))
        if before is not None and before.revision == revision:
            return
        reason = said_by(why)
        self._known[where, key] = UnreadableView(
            where=where, key=key, revision=revision, why=reason
        )
        if len(self._known) <= TOLD_MAX:
            events.emit(ValueUnreadable(where=where, key=key, revision=revision, reason=reason))


def said_by(error: object) -> str:
    """Why something can't be read: one line of bounded length, without the value itself."""
    if isinstance(error, ValidationError):
        error = "; ".join(field_errors(error))
    elif isinstance(error, KeyError):
        error = f"it has no {error}"
    return " ".join(str(error).split())[:300]
