"""A subscription as the subscribing service's code says it: which event, to whom of the service, from where on.

It is made when the module with the handlers is loaded, and sent nowhere as it is. Records name it by `takes`, its requests
by the handler's method; where it is, control's bucket says (SubscriptionRecord). `begin` counts once, for a subscription
that has no position yet: later, code that says something else changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from aegis_sdk.contract.event import Event
from aegis_sdk.contract.method import Method
from aegis_sdk.errors import ContractError, InvalidArgument
from aegis_sdk.words import said, said_type

ALL: Final = "all"
NAME_CHARS_MAX: Final = 63 - len("on--")
"""Of the event's service and name together: the method that handles it is called after both."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Where a new subscription begins: now, unless one of these says where. One that is there goes on where it is."""

    seq: int | None = None
    """The first event that is taken, by its place in the stream."""
    at_s: float | None = None
    """Unix time: what was stored earlier is left out."""


NOW: Final = Begin()


@dataclass(frozen=True, slots=True)
class Subscription:
    """`method` is the handler's. `resource` names the resource for an event's payload; None: it goes to the group.

    That function is a user's: it may raise or name no resource, and the event is a dead letter then (`not_routed`).
    """

    event: Event[Any]
    method: Method[Any, None]
    resource: Callable[[Any], str] | None
    begin: Begin

    @property
    def takes(self) -> str:
        return takes(self.event)


def takes(event: Event[Any]) -> str:
    """How records name a subscription's event."""
    return f"{event.service}.{event.name}"


def handler_name(event: Event[Any]) -> str:
    """The method that handles it. Raises: ContractError."""
    if len(event.service) + len(event.name) > NAME_CHARS_MAX:
        raise ContractError(
            f"{event!r} can't be subscribed to: the names of its service and of itself have at most {NAME_CHARS_MAX}"
            " characters together"
        )
    return f"on-{event.service}-{event.name}"


def begin_of(given: object) -> Begin:
    """As users give it: None, "all", a datetime with a time zone, or a position. Raises: InvalidArgument."""
    if given is None:
        return NOW
    if given == ALL:
        return Begin(seq=1)
    if isinstance(given, datetime):
        return Begin(at_s=_time_s(given))
    if type(given) is int and given >= 1:
        return Begin(seq=given)
    raise InvalidArgument(
        'begin must be None (from now on), "all", a datetime, or a position from 1, and is'
        f" {said(given, chars_max=40)!r} ({said_type(given)})"
    )


def _time_s(given: datetime) -> float:
    if given.tzinfo is None:
        raise InvalidArgument(
            f"begin {given} has no time zone: say datetime(..., tzinfo=UTC), or another one"
        )
    at_s = given.timestamp()
    if not math.isfinite(at_s):
        raise InvalidArgument(f"begin {given} is no time")
    return at_s
