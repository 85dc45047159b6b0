"""What happened, from control's events: each failover as one thing, with the time that its parts took.

Moves of one service happen one after the other, so what is told between a begin and its end belongs to it.
The times are those of one control's clock; a failover that a dying control left half done has no end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aegis_sdk.contract.control import EventRecord

_GONE: Final = frozenset({"instance_lost", "instance_stalled", "instance_evicted", "instance_left"})
_STEPS: Final = frozenset({"instance_fenced", "lease_granted"})
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
    reason: str
    begun_s: float
    resources: int = 0
    orphans: int = 0
    to: list[str] = field(default_factory=list)
    silence_s: float | None = None
    """From its last heartbeat to the verdict; None when nobody waited for one."""
    duration_s: float | None = None
    """From the verdict to the last fence; None while it is under way, or if it never ended."""
    moments: list[Moment] = field(default_factory=list)


def failovers(events: Iterable[EventRecord]) -> list[Failover]:
    """The failovers and handovers among `events` (in their order), the newest first."""
    found: list[Failover] = []
    begun: dict[str, Failover] = {}
    for event in events:
        more: Mapping[str, Any] = event.model_extra or {}
        service = str(more.get("service", ""))
        if event.event == "failover_begun":
            begun[service] = _begin(event, more)
            found.append(begun[service])
        elif event.event in _STEPS and service in begun:
            _add_moment(begun[service], event, more)
        elif event.event == "failover_done" and service in begun:
            _finish(begun.pop(service), more)
        elif event.event in _GONE:
            _lost(found, event, more)
    return found[::-1]


def _begin(event: EventRecord, more: Mapping[str, Any]) -> Failover:
    return Failover(
        service=str(more.get("service", "")),
        instance_id=str(more.get("instance_id", "")),
        reason=str(more.get("reason", "")),
        begun_s=event.time,
        resources=int(more.get("resources", 0)),
    )


def _add_moment(failover: Failover, event: EventRecord, more: Mapping[str, Any]) -> None:
    after_s = round(event.time - failover.begun_s, 6)
    failover.moments.append(Moment(event.event, str(more.get("instance_id", "")), after_s))


def _finish(failover: Failover, more: Mapping[str, Any]) -> None:
    failover.resources = int(more.get("resources", 0))
    failover.orphans = int(more.get("orphans", 0))
    failover.to = [str(name) for name in more.get("to", [])]
    failover.duration_s = float(more.get("duration_s", 0.0))


def _lost(found: list[Failover], event: EventRecord, more: Mapping[str, Any]) -> None:
    """Its resources have moved already, or there was nobody to take them."""
    whose = (str(more.get("service", "")), str(more.get("instance_id", "")))
    for failover in reversed(found):
        if event.time - failover.begun_s > _SAME_S_MAX:
            break
        if (failover.service, failover.instance_id) == whose and failover.silence_s is None:
            failover.silence_s = _silence(event, more)
            return
    if int(more.get("resources", 0)):
        failover = _begin(event, more)
        failover.resources, failover.orphans = 0, int(more["resources"])
        failover.silence_s = _silence(event, more)
        found.append(failover)


def _silence(event: EventRecord, more: Mapping[str, Any]) -> float | None:
    return float(more.get("silence_s", 0.0)) if event.event != "instance_left" else None
