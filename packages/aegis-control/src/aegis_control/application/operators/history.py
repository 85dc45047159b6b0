"""The last minutes of each service: throughput and latency, step by step, in memory.

It is what the console draws without a Prometheus beside it. Bounded: at most `SERVICES_MAX` services with
`POINTS_MAX` points each. A replica that starts has none, and one that does not lead keeps it too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.contract.metrics import REQUEST_DURATION, REQUESTS

from aegis_control.domain.operators.fleet import Buckets, Totals, quantile_s

STEP_S: Final = 2.0
POINTS_MAX: Final = 300
"""Ten minutes."""
SERVICES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a service; the latencies are None when no caller got an answer in it."""

    time_s: float
    """Unix time of its end."""
    requests_per_s: float
    failures_per_s: float
    """Of those, the ones that were not executed and not rejected by their handler."""
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Query:
    """Which points are wanted: of one service or of all, and only later ones than `after_s`."""

    service: str | None = None
    after_s: float = 0.0


class History:
    """`step` is called at the end of each step; `find` answers a Query."""

    def __init__(self) -> None:
        self._points: dict[str, deque[Point]] = {}

    def find(self, query: Query) -> dict[str, list[Point]]:
        """service: its points, oldest first. A service that was never heard of has none."""
        wanted = self._points if query.service is None else {query.service: ()}
        return {
            name: [p for p in self._points.get(name, ()) if p.time_s > query.after_s]
            for name in sorted(wanted)
        }

    def calls_per_s(self, service: str) -> float | None:
        """In the last step; None before there was one."""
        points = self._points.get(service)
        return points[-1].requests_per_s if points else None

    def step(self, recent: Totals, *, time_s: float, elapsed_s: float) -> None:
        """A point for each service that is known; one in which nothing happened has zeros."""
        told = _by_service(recent)
        for name in told.keys() | self._points.keys():
            points = self._points_of(name)
            if points is not None:
                points.append(_point(told.get(name, _Sum()), time_s, elapsed_s))
        self._forget_idle()

    def _points_of(self, service: str) -> deque[Point] | None:
        if service not in self._points and len(self._points) >= SERVICES_MAX:
            return None
        return self._points.setdefault(service, deque(maxlen=POINTS_MAX))

    def _forget_idle(self) -> None:
        """A service in which nothing happened for the whole time makes room."""
        for name, points in list(self._points.items()):
            if len(points) == POINTS_MAX and not any(point.requests_per_s for point in points):
                del self._points[name]


class _Sum:
    """What a service did in one step."""

    __slots__ = ("durations", "failures", "requests")

    def __init__(self) -> None:
        self.requests = 0.0
        self.failures = 0.0
        self.durations = Buckets()


_NOT_FAILED: Final = frozenset({OutcomeKind.EXECUTED.value, OutcomeKind.REJECTED.value})


def _by_service(recent: Totals) -> Mapping[str, _Sum]:
    sums: dict[str, _Sum] = {}
    for (family, labels), count in recent.numbers.items():
        if family == REQUESTS.name:
            of = sums.setdefault(labels[0], _Sum())
            of.requests += count
            of.failures += 0 if labels[-1] in _NOT_FAILED else count
    for (family, labels), buckets in recent.histograms.items():
        if family == REQUEST_DURATION.name:
            sums.setdefault(labels[0], _Sum()).durations.add(buckets)
    return sums


def _point(of: _Sum, time_s: float, elapsed_s: float) -> Point:
    counts = of.durations.counts
    return Point(
        time_s=round(time_s, 3),
        requests_per_s=round(of.requests / elapsed_s, 3),
        failures_per_s=round(of.failures / elapsed_s, 3),
        p50_ms=_ms(quantile_s(counts, 0.5)),
        p99_ms=_ms(quantile_s(counts, 0.99)),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
