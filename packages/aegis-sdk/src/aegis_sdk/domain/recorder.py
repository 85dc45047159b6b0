"""Counting what a process does, in plain integers: this is on the path of every request.

An observation is one bisect and a few increments; labels are looked up once a method. Who shows or sends
the figures asks `numbers` and `histograms`. Time arrives as a number. Written from the event loop alone,
readable from any thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.metrics import (
    COMMIT_DURATION,
    DUPLICATES,
    FENCED_COMMITS,
    GATES,
    HAND_INS_WAITING,
    LOG_LINES_DROPPED,
    LOOP_LAG,
    OTHER,
    PROCESS_DURATION,
    QUEUE_WAIT,
    REDELIVERIES,
    REQUEST_DURATION,
    REQUESTS,
    REQUESTS_STORED,
    SERIES_MAX,
    STANDBY_LAG,
    TIMER_LATENESS,
    TIMERS,
    TURN_OUTCOMES,
    TURNS,
    Answer,
    Family,
    LabelValues,
    Route,
)

LATE_S: Final = 0.025
"""A loop that is less late than this is on time: the machine's own scheduling takes as long."""


class Histogram:
    """How many observed values fell into each of a family's buckets, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, family: Family) -> None:
        self.bounds = family.buckets
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def total(self) -> int:
        return sum(self.counts)

    def above(self, value: float) -> int:
        """How many fell into buckets that begin at `value` or later."""
        return sum(self.counts[bisect_left(self.bounds, value) + 1 :])


class MethodSeries:
    """One method by one route, as caller and as instance."""

    __slots__ = ("commit", "outcomes", "process", "request", "wait")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.request: Histogram | None = None
        """Of a caller alone; the other three are an instance's."""
        self.process = Histogram(PROCESS_DURATION)
        self.wait = Histogram(QUEUE_WAIT)
        self.commit = Histogram(COMMIT_DURATION)

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


class ServiceSeries:
    """An instance's figures that belong to no method."""

    __slots__ = (
        "duplicates",
        "fenced",
        "hand_ins",
        "lags",
        "late",
        "loop_lag",
        "redeliveries",
        "timers",
        "turns",
    )

    def __init__(self) -> None:
        self.redeliveries = 0
        self.duplicates = 0
        self.fenced = 0
        self.loop_lag = Histogram(LOOP_LAG)
        self.turns = Histogram(TURN_OUTCOMES)
        self.lags: list[Callable[[], int]] = []
        """One for each instance of the service on this connection."""
        self.hand_ins: list[Callable[[], int]] = []
        """The same."""
        self.timers: list[Callable[[], int]] = []
        """The same."""
        self.late = Histogram(TIMER_LATENESS)


_Key = tuple[str, str, bool]
"""Service, method, and whether the request goes to the group."""


class Recorder:
    """The figures of one connection: of its caller and of the instances served on it."""

    def __init__(self) -> None:
        self._methods: dict[_Key, MethodSeries] = {}
        self._served: dict[_Key, MethodSeries] = {}
        self._services: dict[str, ServiceSeries] = {}
        self._gates: dict[str, int] = {}
        self._log_lines_dropped = 0
        self._stored: dict[tuple[str, str], int] = {}
        """By service and reason."""

    def serves(
        self,
        service: str,
        methods: Iterable[tuple[str, bool]],
        *,
        lag_entries: Callable[[], int] = lambda: 0,
        hand_ins: Callable[[], int] = lambda: 0,
        timers: Callable[[], int] = lambda: 0,
    ) -> None:
        """An instance begins: (method, targeted) pairs, which are shown from now on, at zero.

        A counter that appears only with its first count would hide that one from a rate.
        """
        self._of(service).lags.append(lag_entries)
        self._of(service).hand_ins.append(hand_ins)
        self._of(service).timers.append(timers)
        for method, targeted in methods:
            series = self._series((service, method, not targeted))
            self._served[service, method, not targeted] = series
            for kind in (OutcomeKind.EXECUTED, OutcomeKind.REJECTED, OutcomeKind.FAILED):
                series.outcomes.setdefault(kind, 0)

    # --- what a caller counts -----------------------------------------------------------------------
    def answered(self, request: Request, outcome: Outcome, seconds: float) -> None:
        """An outcome is known. `cancelled` is counted here if it was this caller who wrote it."""
        series = self._calling(request)
        histogram = series.request
        assert histogram is not None
        histogram.observe(seconds)
        if outcome.kind is OutcomeKind.CANCELLED and outcome.traceparent == request.traceparent:
            series.count(OutcomeKind.CANCELLED)

    def stored(self, service: str, reason: str) -> None:
        """A request is stored, and not only sent."""
        key = (service, reason)
        self._stored[key] = self._stored.get(key, 0) + 1

    def unanswered(self, request: Request, answer: Answer, seconds: float) -> None:
        """An error instead of an outcome. Only what waited for an answer is a duration."""
        series = self._calling(request)
        series.count(answer)
        if answer is Answer.UNKNOWN and series.request is not None:
            series.request.observe(seconds)

    # --- what an instance counts --------------------------------------------------------------------
    def settled(
        self,
        request: Request,
        outcome: Outcome,
        *,
        wait_s: float | None,
        process_s: float,
        commit_s: float,
    ) -> None:
        """An outcome of this instance is stored. `wait_s` is None when no handler ran."""
        series = self._serving(request)
        if wait_s is not None:
            series.wait.observe(wait_s)
            series.process.observe(process_s)
            series.commit.observe(commit_s)
        series.count(outcome.kind)

    def read(self, request: Request, outcome: Outcome, process_s: float) -> None:
        """This instance answered a read."""
        series = self._serving(request)
        series.process.observe(process_s)
        series.count(outcome.kind)

    def redelivered(self, service: str, requests: int = 1) -> None:
        self._of(service).redeliveries += requests

    def suppressed(self, service: str) -> None:
        self._of(service).duplicates += 1

    def fenced(self, service: str) -> None:
        self._of(service).fenced += 1

    def turn_stored(self, service: str, outcomes: int) -> None:
        self._of(service).turns.observe(outcomes)

    def timer_fired(self, service: str, late_s: float) -> None:
        self._of(service).late.observe(late_s)

    def gate(self, reason: str) -> None:
        self._gates[reason] = self._gates.get(reason, 0) + 1

    def loop_late(self, service: str, seconds: float) -> None:
        self._of(service).loop_lag.observe(seconds)

    def log_lines_dropped(self, lines: int) -> None:
        self._log_lines_dropped += lines

    # --- what there is to show ----------------------------------------------------------------------
    def numbers(self) -> Iterator[tuple[Family, LabelValues, float]]:
        """Counters and gauges."""
        for labels, series in self._by_labels():
            for outcome, count in list(series.outcomes.items()):
                yield REQUESTS, (*labels, str(outcome)), count
        for service, of in list(self._services.items()):
            yield REDELIVERIES, (service,), of.redeliveries
            yield DUPLICATES, (service,), of.duplicates
            yield FENCED_COMMITS, (service,), of.fenced
            yield TURNS, (service,), of.turns.total
            yield STANDBY_LAG, (service,), max((lag() for lag in of.lags), default=0)
            yield HAND_INS_WAITING, (service,), sum(waiting() for waiting in of.hand_ins)
            yield TIMERS, (service,), sum(timers() for timers in of.timers)
        for stored, count in list(self._stored.items()):
            yield REQUESTS_STORED, stored, count
        for reason, count in list(self._gates.items()):
            yield GATES, (reason,), count
        yield LOG_LINES_DROPPED, (), self._log_lines_dropped

    def histograms(self) -> Iterator[tuple[Family, LabelValues, Histogram]]:
        served = set(map(id, list(self._served.values())))
        for labels, series in self._by_labels():
            if series.request is not None:
                yield REQUEST_DURATION, labels, series.request
            if id(series) in served:
                yield PROCESS_DURATION, labels, series.process
                yield QUEUE_WAIT, labels, series.wait
                yield COMMIT_DURATION, labels, series.commit
        for service, of in list(self._services.items()):
            yield LOOP_LAG, (service,), of.loop_lag
            yield TURN_OUTCOMES, (service,), of.turns
            yield TIMER_LATENESS, (service,), of.late

    def activity(self) -> tuple[float, ...]:
        """Differs from an earlier one when something was counted since, but for a loop that was on time."""
        return (
            *(value for _, _, value in self.numbers()),
            *(
                figures.above(LATE_S) if family is LOOP_LAG else figures.total
                for family, _, figures in self.histograms()
            ),
        )

    def runs(self, service: str, method: str, *, targeted: bool) -> tuple[int, int, float]:
        """(handler runs, of which failed, seconds in all) of a served method."""
        series = self._served.get((service, method, not targeted))
        if series is None:
            return 0, 0, 0.0
        failed = series.outcomes.get(OutcomeKind.FAILED, 0)
        return series.process.total, failed, series.process.sum

    def _by_labels(self) -> Iterator[tuple[LabelValues, MethodSeries]]:
        for (service, method, group), series in list(self._methods.items()):
            yield (service, method, Route.GROUP if group else Route.TARGETED), series

    # --- series -------------------------------------------------------------------------------------
    def _calling(self, request: Request) -> MethodSeries:
        key = (request.service, request.method, request.resource is None)
        series = self._methods.get(key)
        if series is None or series.request is None:
            series = self._series(key)
            series.request = series.request or Histogram(REQUEST_DURATION)
        return series

    def _serving(self, request: Request) -> MethodSeries:
        """What the peer made up must not become a label."""
        series = self._served.get((request.service, request.method, request.resource is None))
        if series is None:
            key = (request.service, OTHER, request.resource is None)
            series = self._served[key] = self._series(key)
        return series

    def _series(self, key: _Key) -> MethodSeries:
        series = self._methods.get(key)
        if series is None:
            if len(self._methods) >= SERIES_MAX:
                key = (OTHER, OTHER, True)
            series = self._methods.setdefault(key, MethodSeries())
        return series

    def _of(self, service: str) -> ServiceSeries:
        series = self._services.get(service)
        if series is None:
            series = self._services[service] = ServiceSeries()
        return series


class NoRecorder(Recorder):
    """Counts nothing: for `metrics=False`, and where nobody asks."""

    def serves(
        self,
        service: str,
        methods: Iterable[tuple[str, bool]],
        *,
        lag_entries: Callable[[], int] = lambda: 0,
        hand_ins: Callable[[], int] = lambda: 0,
        timers: Callable[[], int] = lambda: 0,
    ) -> None:
        return

    def answered(self, request: Request, outcome: Outcome, seconds: float) -> None:
        return

    def stored(self, service: str, reason: str) -> None:
        return

    def unanswered(self, request: Request, answer: Answer, seconds: float) -> None:
        return

    def settled(
        self,
        request: Request,
        outcome: Outcome,
        *,
        wait_s: float | None,
        process_s: float,
        commit_s: float,
    ) -> None:
        return

    def read(self, request: Request, outcome: Outcome, process_s: float) -> None:
        return

    def redelivered(self, service: str, requests: int = 1) -> None:
        return

    def suppressed(self, service: str) -> None:
        return

    def fenced(self, service: str) -> None:
        return

    def turn_stored(self, service: str, outcomes: int) -> None:
        return

    def timer_fired(self, service: str, late_s: float) -> None:
        return

    def gate(self, reason: str) -> None:
        return

    def loop_late(self, service: str, seconds: float) -> None:
        return

    def log_lines_dropped(self, lines: int) -> None:
        return


NO_RECORDER = NoRecorder()
"""Without state, so one is enough."""
