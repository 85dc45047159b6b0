"""What a person who is woken up should look at first: facts in, sentences out, the worst first.

The bounds are those of `status` and `doctor` (health.py) and of the alerts that come with the project
(deploy/prometheus/alerts.yaml), so that the page, the command line and the pager say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from aegis_sdk.contract.control import InstanceState, InstanceView, PauseView

from aegis_control.domain.operators.health import LAG_ENTRIES_MAX, Level
from aegis_control.domain.operators.timeline import Failover

WAITING_MAX: Final = 100
P99_MS_MAX: Final = 5.0
LOOP_LAG_S_MAX: Final = 0.5
STEPS_IN_A_ROW: Final = 5
"""Steps of 2 s. A failed request stays in sight for all of them; slow is only what is slow in each."""
RECENT_S: Final = 600.0


class Part(StrEnum):
    """Where on the page it is seen in full."""

    INSTANCES = "instances"
    RESOURCES = "resources"
    PLOTS = "plots"
    LETTERS = "letters"
    FAILOVERS = "failovers"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Alarm:
    level: Level
    part: Part
    what: str
    do: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """A service as it is now. `failures_per_s` and `p99_ms` are its last steps, the oldest first."""

    name: str
    instances: Sequence[InstanceView]
    waiting: int = 0
    vacant: int = 0
    unfollowed: int = 0
    log_lost: str = ""
    paused: Sequence[PauseView] = ()
    depth: int = 0
    """Requests that wait or are in work."""
    failures_per_s: Sequence[float] = ()
    p99_ms: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class SystemFacts:
    now_s: float
    services: Sequence[ServiceFacts] = ()
    dead_letters: int = 0
    unreadable_values: int = 0
    """Stored records that control can't read."""
    failovers: Sequence[Failover] = field(default_factory=tuple)
    """The newest first."""


def alarms(facts: SystemFacts) -> list[Alarm]:
    """The worst first; empty when all is well."""
    found = [alarm for service in facts.services for alarm in _of_service(service, facts.now_s)]
    found += _letters(facts.dead_letters)
    found += _unreadable(facts.unreadable_values)
    found += _recent(facts)
    return sorted(found, key=lambda alarm: alarm.level is not Level.BAD)


def _of_service(service: ServiceFacts, now_s: float) -> Iterator[Alarm]:
    if service.log_lost:
        what = f"{service.name} lost stored entries and is not served: {service.log_lost}"
        do = f"restore a copy, or go on without them: ipc-cli accept-loss {service.name}"
        yield Alarm(Level.BAD, Part.RESOURCES, what, do, service.name)
    yield from _without_active(service)
    for pause in service.paused:
        why = f": {pause.reason}" if pause.reason else ""
        what = f"{pause.what} is paused by {pause.by or 'somebody'}{why}"
        do = f"its requests are refused until: ipc-cli resume {pause.what}"
        yield Alarm(Level.NOTE, Part.RESOURCES, what, do, service.name)
    for instance in service.instances:
        yield from _instance(instance, now_s)
    yield from _traffic(service)
    if service.unfollowed:
        what = f"{_resources(service.unfollowed)} of {service.name} without a live standby"
        do = "nobody could take over: start a standby"
        yield Alarm(Level.BAD, Part.RESOURCES, what, do, service.name)


def _without_active(service: ServiceFacts) -> Iterator[Alarm]:
    if service.waiting:
        what = f"{_resources(service.waiting)} of {service.name} wait for a lost active"
        do = "requests wait too: start it again, or a standby, within the return grace"
        yield Alarm(Level.BAD, Part.RESOURCES, what, do, service.name)
    if service.vacant:
        what = f"{_resources(service.vacant)} of {service.name} without an active"
        do = "requests to them are refused: start an instance that offers them"
        yield Alarm(Level.BAD, Part.RESOURCES, what, do, service.name)
    if not service.instances and not service.vacant:
        what = f"{service.name} has no instance"
        yield Alarm(Level.BAD, Part.INSTANCES, what, "start one", service.name)


_STATES: Final = {
    InstanceState.LOST: (Level.BAD, "look at its process and its log; start it again"),
    InstanceState.STALLED: (Level.BAD, "a handler blocks its main loop: look at its log"),
    InstanceState.DRAINING: (Level.NOTE, "it finishes what it began, then leaves"),
    InstanceState.EVICTED: (Level.NOTE, "an operator took it out; start it again when it is well"),
}


def _instance(instance: InstanceView, now_s: float) -> Iterator[Alarm]:
    name = f"{instance.service}: {instance.instance_id}"
    if instance.state in _STATES:
        level, do = _STATES[instance.state]
        why = f" ({instance.reason})" if instance.reason else ""
        what = f"{name} is {instance.state.value}{why}{_heard(instance)}"
        yield Alarm(level, Part.INSTANCES, what, do, instance.service)
        return
    if instance.unreadable:
        what = f"{name} can't read the journal of {_resources(instance.unreadable)}"
        do = "run the version that wrote it: its log names them (resource_unreadable)"
        yield Alarm(Level.BAD, Part.INSTANCES, what, do, instance.service)
    if instance.lag_entries > LAG_ENTRIES_MAX:
        what = f"{name} is {instance.lag_entries:,} journal entries behind"
        do = "a takeover by it takes longer: look at its CPU and loop lag"
        yield Alarm(Level.BAD, Part.INSTANCES, what, do, instance.service)
    if instance.loop_lag_s > LOOP_LAG_S_MAX:
        what = f"{name}: its main loop is {instance.loop_lag_s:.1f} s late"
        yield Alarm(Level.NOTE, Part.INSTANCES, what, "a handler blocks it", instance.service)


def _heard(instance: InstanceView) -> str:
    if instance.state is not InstanceState.LOST or instance.heartbeat_age_s is None:
        return ""
    return f", last heard {_span(instance.heartbeat_age_s)} ago"


def _traffic(service: ServiceFacts) -> Iterator[Alarm]:
    failing, slow = service.failures_per_s[-STEPS_IN_A_ROW:], service.p99_ms[-STEPS_IN_A_ROW:]
    if any(failing):
        most = max(failing)
        what = f"{service.name}: requests fail, up to {most:,.1f} a second"
        do = "failed, refused, expired or cancelled: see the outcomes in /metrics"
        yield Alarm(Level.NOTE, Part.PLOTS, what, do, service.name)
    if service.depth > WAITING_MAX:
        what = f"{service.name}: {service.depth:,} requests wait or are in work"
        yield Alarm(Level.NOTE, Part.PLOTS, what, "see who is slow", service.name)
    if len(slow) == STEPS_IN_A_ROW and min(slow) > P99_MS_MAX:
        what = f"{service.name}: p99 at the callers is {slow[-1]:,.1f} ms"
        do = f"the budget is {P99_MS_MAX:g} ms: see queue wait and process time in /metrics"
        yield Alarm(Level.NOTE, Part.PLOTS, what, do, service.name)


def _letters(dead_letters: int) -> Iterator[Alarm]:
    if dead_letters:
        what = f"{dead_letters:,} {'request' if dead_letters == 1 else 'requests'} failed for good"
        do = "see why; redrive or drop them"
        yield Alarm(Level.BAD, Part.LETTERS, what, do)


def _unreadable(values: int) -> Iterator[Alarm]:
    if values:
        what = f"{values:,} stored {'value' if values == 1 else 'values'} can't be read by control"
        yield Alarm(Level.BAD, Part.CONTROL, what, "ipc-cli doctor names them")


def _recent(facts: SystemFacts) -> Iterable[Alarm]:
    """The newest few: what has moved is over, and explains what is seen."""
    recent = [one for one in facts.failovers if facts.now_s - one.begun_s <= RECENT_S]
    return [_moved(one, facts.now_s) for one in recent[:3]]


def _moved(one: Failover, now_s: float) -> Alarm:
    ago = _span(max(0.0, now_s - one.begun_s))
    what = f"{one.service}: {_resources(one.resources)} moved from {one.instance_id or 'several'}"
    if one.to:
        what += f" to {', '.join(one.to)}"
    if not one.resources:
        what = f"{one.service}: nobody took {_resources(one.orphans)} of {one.instance_id} over"
    return Alarm(Level.NOTE, Part.FAILOVERS, f"{what}, {ago} ago ({one.reason})", "", one.service)


def _resources(number: int) -> str:
    return f"{number:,} {'resource' if number == 1 else 'resources'}"


def _span(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400.0 else f"{seconds / 3_600:.0f} h"
