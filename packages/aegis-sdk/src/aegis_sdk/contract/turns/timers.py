"""A timer of a resource, as a change sets it (`Change.later`) and a checkpoint carries it.

    {"name":"close","due":1793739600.0,"request":{"id":"Kq3v9x2m~17.@close-9f3a21c7d0e4b852","to":"desks.close","resource":"D-1","payload":"null"}}

`due` is Unix time. The request is written as one that is handed in (sends.py). It is accepted when it is due, and its outcome ends the
timer, whatever that is. A timer that is set under the name of another one replaces it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.turns.sends import handed_in, request_of

RESERVED: Final = "@"
"""Begins the name of a timer that is a request of a caller's, which waits for its time. Handlers neither see nor drop it."""
TIMERS_MAX: Final = 20_000
"""Of one resource: each is in memory of all that follow it, and in its checkpoint."""


class Timer:
    """Set and not fired yet. `id` is its request's; `due_s` is Unix time."""

    __slots__ = ("content", "due_s", "id", "name")

    def __init__(
        self, name: str, due_s: float, request_id: str, content: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.due_s = due_s
        self.id = request_id
        self.content = content
        """As it is written."""

    @classmethod
    def made(cls, name: str, due_s: float, request: Request) -> Timer:
        content = {"name": name, "due": due_s, "request": handed_in(request)}
        return cls(name, due_s, request.request_id, content)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Timer:
        """Raises: ValueError."""
        try:
            name, due_s, request_id = content["name"], content["due"], content["request"]["id"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"a timer: {error!r}") from error
        if not (type(name) is str and type(request_id) is str and type(due_s) in (int, float)):
            raise ValueError("a timer has a name, a time when it is due, and a request with an id")
        if not math.isfinite(due_s):
            raise ValueError(f"a timer that is due at {due_s}")
        return cls(name, float(due_s), request_id, content)

    def request(self) -> Request:
        """Raises: ValueError."""
        return request_of(self.content["request"])


NO_TIMERS: Final[Mapping[str, Timer]] = {}
