"""Control's /metrics: what all processes have counted, and what control itself knows of the system.

A scrape asks nobody: counters come from the fleet's totals, gauges from the leader's state and from what
`refresh` read last. Ids of resources and instances are never labels: their number has no bound.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog
from aegis_sdk.contract.control import InstanceState, LeaseState
from aegis_sdk.contract.metrics import (
    BUCKETS_S,
    FAMILIES,
    HAND_INS_WAITING,
    STANDBY_LAG,
    TIMERS,
    Kind,
)
from aegis_sdk.errors import Unavailable
from aegis_sdk.log_writer import dropped_lines
from prometheus_client import (
    CollectorRegistry,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from aegis_control.application.ports import Backlog
from aegis_control.application.state import ControlState, ServiceTable
from aegis_control.domain.events import Event, FailoverDone, LeaseGranted
from aegis_control.domain.operators.fleet import Buckets, Fleet
from aegis_control.infrastructure.nats_streams import NatsStreams

REFRESH_INTERVAL_S: Final = 2.0
"""How old a queue depth may be."""


FAULTS: Final = ("heartbeats_missed", "connection_closed", "stalled")
"""Shown at zero from the start: a counter that appears with its first count hides that one from a rate."""
Values = dict[tuple[str, ...], float]
"""A gauge's values by those of its labels."""


class Metrics:
    """One registry a process. `observe` listens to events; `render` is a scrape."""

    def __init__(self, streams: NatsStreams, fleet: Fleet, version: str) -> None:
        self._streams = streams
        self._fleet = fleet
        self._version = version
        self._state: ControlState | None = None
        self._connected = False
        self._read: Backlog | None = None
        self._registry = registry = CollectorRegistry()
        self._failovers: Tally[tuple[str, ...]] = Tally()
        self._moves: Tally[tuple[str, ...]] = Tally()
        """By service and reason."""
        self._failover_durations: dict[str, Buckets] = {}
        registry.register(_Collector(self._collect))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def observe(self, event: Event) -> None:
        """Listen to control's events."""
        if isinstance(event, FailoverDone) and event.resources:
            self._failovers[event.service, _bounded(event.reason)] += 1
            self._failover_durations.setdefault(event.service, Buckets()).observe(event.duration_s)

        elif isinstance(event, LeaseGranted):
            self._moves[event.service, _bounded(event.reason)] += len(event.resources)

    async def refresh(self, state: ControlState | None) -> None:
        """Read queue depths and dead letters, in the background; nothing when this replica doesn't lead."""
        if state is None:
            self._read = None
            return
        try:
            self._read = await self._streams.backlog([table.name for table in state.known()])
        except Unavailable as error:
            structlog.stdlib.get_logger("aegis_control").warning(
                "queue_depths_not_read", reason=str(error)
            )

    def render(self, state: ControlState | None, *, connected: bool) -> bytes:
        """The text format; `state` is what the leader knows, None on a replica that doesn't lead."""
        self._state, self._connected = state, connected
        for table in state.known() if state is not None else ():
            for reason in FAULTS:
                self._failovers[table.name, reason] += 0
            self._failover_durations.setdefault(table.name, Buckets())
        return generate_latest(self._registry)

    def _collect(self) -> Iterator[Metric]:
        yield from _own(self._state is not None, self._connected, self._version)
        yield from fleet_metrics(self._fleet)
        yield from self._failed_over()
        if self._state is None:
            return
        yield from _system(self._state.known())
        yield _gauge(
            "aegis_unreadable_values",
            "Stored records that control can't read, and works around.",
            [],
            {(): len(self._state.unreadables)},
        )
        yield _gauge(
            "aegis_log_losses",
            "Losses of a service's streams that nobody has accepted: it is not served.",
            ["service"],
            {
                (name,): len(table.logs.losses)
                for name, table in self._state.services.items()
                if table.logs is not None
            },
        )
        yield _gauge(
            "aegis_paused",
            "What operators have paused: resources, methods, whole services.",
            ["service", "kind"],
            {key: value for table in self._state.known() for key, value in _paused(table).items()},
        )
        if self._read is not None:
            yield from _stored(self._read)

    def _failed_over(self) -> Iterator[Metric]:
        by = ["service", "reason"]
        moved = "Times that resources of an instance moved to others."
        yield _counter("aegis_failovers_total", moved, by, self._failovers)
        given = "Resources that were given to an instance."
        yield _counter("aegis_ownership_moves_total", given, by, self._moves)
        durations = HistogramMetricFamily(
            "aegis_failover_duration_seconds",
            "From the verdict until the last gate was stored.",
            labels=["service"],
        )
        for service, buckets in self._failover_durations.items():
            durations.add_metric([service], _cumulative(buckets), buckets.sum_s)
        yield durations


class _Collector:
    """What prometheus-client wants to be given."""

    def __init__(self, collect: Any) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return list(self._collect())

    def describe(self) -> Iterable[Metric]:
        """Without it, registering would collect once, before there is anything."""
        return []


def _own(leading: bool, connected: bool, version: str) -> Iterator[Metric]:
    yield _gauge(
        "aegis_control_leader", "1 while this replica of control leads.", [], {(): leading}
    )
    yield _gauge(
        "aegis_control_connected", "1 while this replica is connected to NATS.", [], {(): connected}
    )
    yield _counter(
        "aegis_control_log_lines_dropped_total",
        "Log lines of this replica that were dropped, because nobody read them fast enough.",
        [],
        {(): dropped_lines()},
    )
    yield _gauge("aegis_build_info", "The version.", ["version"], {(version,): 1})


def fleet_metrics(fleet: Fleet) -> Iterator[Metric]:
    """The families that processes tell of themselves."""
    counters = {
        name: CounterMetricFamily(name, family.meaning, labels=family.labels)
        for name, family in FAMILIES.items()
        if family.kind is Kind.COUNTER
    }
    histograms = {
        name: HistogramMetricFamily(name, family.meaning, labels=family.labels)
        for name, family in FAMILIES.items()
        if family.kind is Kind.HISTOGRAM
    }
    for (name, labels), value in fleet.counted.numbers.items():
        counters[name].add_metric(labels, value)
    for (name, labels), buckets in fleet.counted.histograms.items():
        histograms[name].add_metric(
            labels, _cumulative(buckets, FAMILIES[name].buckets), buckets.sum_s
        )
    yield from counters.values()
    yield from histograms.values()
    yield _gauge(
        "aegis_metrics_sources",
        "Connections whose counts are heard: callers, and instances with their callers.",
        [],
        {(): fleet.sources},
    )
    yield _counter(
        "aegis_metrics_series_dropped_total",
        "Series told beyond the bound, each time they were told.",
        [],
        {(): fleet.dropped},
    )


def _system(tables: list[ServiceTable]) -> Iterator[Metric]:
    instances: Values = {}
    resources: Values = {}
    leases: Values = {}
    lags: Values = {}
    hand_ins: Values = {}
    timers: Values = {}
    open_requests: Values = {}
    for table in tables:
        states = Tally(member.record.state for member in table.members.values())
        held = Tally(lease.record.state for lease in table.leases.values())
        for state in InstanceState:
            instances[table.name, state.value] = states[state]
        for lease_state in LeaseState:
            leases[table.name, lease_state.value] = held[lease_state]
        for role, number in _roles(table, held).items():
            resources[table.name, role] = number
        live = [m for m in table.members.values() if m.record.state is InstanceState.LIVE]
        lags[(table.name,)] = max((member.lag_entries for member in live), default=0)
        beats = [member.beat for member in live if member.beat is not None]
        hand_ins[(table.name,)] = sum(beat.hand_ins for beat in beats)
        timers[(table.name,)] = sum(beat.timers for beat in beats)
        open_requests[(table.name,)] = sum(beat.open for beat in beats)
    yield _gauge("aegis_instances", "Registered instances.", ["service", "state"], instances)
    yield _gauge(
        "aegis_resources",
        "Resources by role: active, standby (followed by a live standby), waiting, vacant.",
        ["service", "role"],
        resources,
    )
    yield _gauge("aegis_leases", "Leases by their state.", ["service", "state"], leases)
    yield _gauge(STANDBY_LAG.name, STANDBY_LAG.meaning, ["service"], lags)
    yield _gauge(HAND_INS_WAITING.name, HAND_INS_WAITING.meaning, ["service"], hand_ins)
    yield _gauge(TIMERS.name, TIMERS.meaning, ["service"], timers)
    yield _gauge(
        "aegis_open_requests",
        "Requests at the instances that run, or wait there for their turn.",
        ["service"],
        open_requests,
    )


def _paused(table: ServiceTable) -> Values:
    kinds = Tally(_KINDS_OF_PAUSE.get(what[:1], "service") for what in table.holds)
    return {(table.name, kind): kinds[kind] for kind in ("service", "resource", "method")}


_KINDS_OF_PAUSE: Final = {"@": "resource", "/": "method"}


def _stored(read: Backlog) -> Iterator[Metric]:
    yield _gauge(
        "aegis_queue_depth",
        "Stored requests that have no outcome yet, or had none a moment ago.",
        ["service", "route"],
        {labels: float(depth) for labels, depth in read.depths.items()},
    )
    yield _gauge("aegis_dlq_messages", "Dead letters that are kept.", [], {(): read.dead_letters})
    views = {(view.service, *view.takes.split(".", 1)): view for view in read.subscriptions}
    labels = ["service", "emitter", "event"]
    yield _gauge(
        "aegis_events_lag_entries",
        "Events that a subscribing service has not taken yet.",
        labels,
        {of: float(view.lag_entries) for of, view in views.items()},
    )
    yield _gauge(
        "aegis_events_lag_seconds",
        "How old the oldest event is that a subscribing service has not taken yet.",
        labels,
        {of: view.lag_s for of, view in views.items()},
    )


def _roles(table: ServiceTable, held: Tally[LeaseState]) -> dict[str, int]:
    followed: set[str] = set()
    owners = {resource: lease.record.owner for resource, lease in table.leases.items()}
    for name, member in table.members.items():
        if member.record.state is InstanceState.LIVE:
            followed.update(r for r in member.record.resources if owners.get(r) != name)
    return {
        "active": held[LeaseState.HELD],
        "standby": len(followed),
        "waiting": held[LeaseState.WAITING],
        "vacant": held[LeaseState.VACANT],
    }


def _counter(
    name: str, meaning: str, labels: list[str], values: Mapping[tuple[str, ...], float]
) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for of, value in values.items():
        family.add_metric(of, value)
    return family


def _gauge(name: str, meaning: str, labels: list[str], values: Values) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for of, value in values.items():
        family.add_metric(of, float(value))
    return family


def _bounded(reason: str) -> str:
    """What follows a colon is an operator's free text, and has no bound."""
    return reason.partition(":")[0].partition(" by ")[0]


def _cumulative(buckets: Buckets, bounds: Sequence[float] = BUCKETS_S) -> list[tuple[str, float]]:
    total, cumulative = 0, []
    for bound, count in zip([*map(str, bounds), "+Inf"], buckets.counts, strict=True):
        total += count
        cumulative.append((bound, float(total)))
    return cumulative
