"""What operators have paused of a service: each ownership entry repeats all of it, so that the newest one tells it.

    "holds": {"": {…}, "@ACC-1": {…}, "/book": {"since": 1764198000.0, "by": "ann@desk", "why": "wrong prices"}}

The empty name is the whole service, `@` a resource, `/` a method. An entry without the word pauses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SERVICE: Final = ""
HOLDS_MAX: Final = 100
"""Things paused at the same time in one service, since every ownership entry repeats them. Who has more pauses the service."""
REASON_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Hold:
    """One thing that is paused."""

    since_s: float
    """Unix time, by control's clock; for people."""
    by: str = ""
    reason: str = ""


Holds = Mapping[str, Hold]
NO_HOLDS: Final[Holds] = {}


def of_resource(resource: str) -> str:
    return f"@{resource}"


def of_method(method: str) -> str:
    return f"/{method}"


def in_words(service: str, what: str) -> str:
    """As an operator names it: `accounts`, `ACC-1`, `accounts/book`."""
    return what[1:] if what.startswith("@") else service + what


def hold_of(holds: Holds, method: str, resource: str | None) -> tuple[str, Hold] | None:
    """What of `holds` a request meets: the widest one first."""
    for what in (SERVICE, of_resource(resource) if resource is not None else "", of_method(method)):
        if (hold := holds.get(what)) is not None:
            return what, hold
    return None


def holds_to_json(holds: Holds) -> dict[str, dict[str, Any]]:
    return {
        what: {"since": hold.since_s, "by": hold.by, "why": hold.reason}
        for what, hold in holds.items()
    }


def holds_of(raw: object) -> dict[str, Hold]:
    """Raises: ValueError, TypeError, KeyError, AttributeError for what is none."""
    if type(raw) is not dict:
        raise ValueError("what is paused is no object")
    return {what: Hold(float(each["since"]), each["by"], each["why"]) for what, each in raw.items()}
