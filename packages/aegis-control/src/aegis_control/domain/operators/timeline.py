"""What happened, from control's events: each failover as one thing, with the time that its parts took.

Moves of one service happen one after the other, so what is told between a begin and its end belongs to it.
The times are those of one control's clock; a failover that a dying control left half done has no end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from aegis_sdk.contract.control import EventRecord

from aegis_control.domain.events import (
    FailoverBegun,
    FailoverDone,
    InstanceFenced,
    InstanceGone,
    InstanceLeft,
    LeaseGranted,
    told_by,
)

_SAME_S_MAX: Final = 60.0
"""The word that an instance is gone comes after its resources have moved, but not this long after."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something inside a failover, `after_s` after its begin."""

    what: str
    who: str
    after_s: float


@dataclass(slots=True)
class Failover:
    """Resources of one instance get other actives, or (`orphans`) nobody."""

    service: str
    instance_id: str
    """Empty: they were several instances'."""
    reason: str
    begun_s: float
    resources: int = 0
    orphans: int = 0
    to: list[str] = field(default_factory=list)
    silence_s: float | None = None
    """From its last heartbeat to the verdict; None when nobody waited for one."""
    duration_s: float | None = None
    """From the verdict to the last gate; None while it is under way, or if it never ended."""
    moments: list[Moment] = field(default_factory=list)


def failovers(records: Iterable[EventRecord]) -> list[Failover]:
    """The failovers and handovers among `records` (in their order), the newest first."""
    found: list[Failover] = []
    begun: dict[str, Failover] = {}
    for record in records:
        at_s = record.time
        match told_by(record):
            case FailoverBegun() as event:
                begun[event.service] = _begin(event, at_s, event.resources)
                found.append(begun[event.service])
            case InstanceFenced() | LeaseGranted() as event if event.service in begun:
                failover = begun[event.service]
                after_s = round(at_s - failover.begun_s, 6)
                failover.moments.append(Moment(event.name, event.instance_id, after_s))
            case FailoverDone() as event if event.service in begun:
                _finish(begun.pop(event.service), event)
            case InstanceGone() as event:
                _lost(found, event, at_s)
    return found[::-1]


def _begin(event: FailoverBegun | InstanceGone, at_s: float, resources: int) -> Failover:
    return Failover(event.service, event.instance_id, event.reason, at_s, resources)


def _finish(failover: Failover, event: FailoverDone) -> None:
    failover.resources, failover.orphans = event.resources, event.orphans
    failover.to, failover.duration_s = event.to, event.duration_s


def _lost(found: list[Failover], event: InstanceGone, at_s: float) -> None:
    """Its resources have moved already, or there was nobody to take them."""
    silence_s = None if isinstance(event, InstanceLeft) else event.silence_s
    for failover in reversed(found):
        if at_s - failover.begun_s > _SAME_S_MAX:
            break
        whose = (failover.service, failover.instance_id)
        if whose == (event.service, event.instance_id) and failover.silence_s is None:
            failover.silence_s = silence_s
            return
    if event.resources:
        failover = _begin(event, at_s, 0)
        failover.orphans, failover.silence_s = event.resources, silence_s
        found.append(failover)
