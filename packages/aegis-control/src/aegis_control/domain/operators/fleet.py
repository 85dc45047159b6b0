"""What all processes together have counted, from the snapshots that each of them sends.

Only what changed between two snapshots of one source is added, and only while this replica leads. So the
totals never go back when a process ends, a replica that starts does not take over a history that another
one has shown already, and the sum over all replicas is the system's (docs/adr/0010).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from aegis_sdk.contract.metrics import (
    BUCKETS_S,
    FAMILIES,
    SERIES_MAX,
    Kind,
    LabelValues,
    Snapshot,
)

SILENCE_S_MAX: Final = 60.0
"""Many lost snapshots: the source is gone. Should it be heard again, it counts on from there."""
SOURCES_MAX: Final = 10_000
COUNT_MAX: Final = 2**43
"""A million a second for a hundred days: no process counts further. Above 2**53 a float tells no two
neighbours apart: a total beyond would stand still for ever. A total of a thousand such processes still counts by one."""
LABEL_CHARS_MAX: Final = 200

SeriesKey = tuple[str, LabelValues]
"""A family's name, and the values of its labels."""


@dataclass(slots=True)
class Buckets:
    """A histogram: values in each bucket, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.counts)

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def since(self, before: Buckets) -> Buckets | None:
        """What came since `before`; None if this does not follow it."""
        counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        if min(counts) < 0:
            return None
        return Buckets(counts, max(0.0, self.sum_s - before.sum_s))

    def add(self, more: Buckets) -> None:
        self.counts = [a + b for a, b in zip(self.counts, more.counts, strict=True)]
        self.sum_s += more.sum_s


@dataclass(slots=True)
class Totals:
    """Counters and histograms by series."""

    numbers: dict[SeriesKey, float] = field(default_factory=dict)
    histograms: dict[SeriesKey, Buckets] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers) + len(self.histograms)

    def has(self, key: SeriesKey) -> bool:
        return key in self.numbers or key in self.histograms

    def add_number(self, key: SeriesKey, value: float) -> None:
        self.numbers[key] = self.numbers.get(key, 0.0) + value

    def add_histogram(self, key: SeriesKey, more: Buckets) -> None:
        self.histograms.setdefault(key, Buckets()).add(more)


@dataclass(slots=True)
class _Source:
    """The last snapshot of a process."""

    n: int = 0
    heard_at_s: float = 0.0
    last: Totals = field(default_factory=Totals)


class Fleet:
    """Takes snapshots. `counted` is what this replica shows; `drain` is what was heard since the last one."""

    def __init__(self, *, series_max: int = SERIES_MAX) -> None:
        self._series_max = series_max
        self.counted = Totals()
        self.dropped = 0
        """Series that came when `series_max` were kept already, each time they came."""
        self._recent = Totals()
        self._sources: dict[str, _Source] = {}

    @property
    def sources(self) -> int:
        return len(self._sources)

    def take(self, snapshot: Snapshot, *, now_s: float, counting: bool) -> None:
        """Add what is new in it. `counting`: this replica leads."""
        source = self._sources.get(snapshot.source)
        known = source is not None
        if source is None:
            if len(self._sources) >= SOURCES_MAX:
                return
            source = self._sources[snapshot.source] = _Source()
        if snapshot.n <= source.n:
            return  # overtaken by a newer one
        told = totals_of(snapshot)
        if known or snapshot.n == 1:
            self._add(told, source.last, counting=counting)
        else:
            # What it did before it was heard is another replica's, or an earlier run's of this one.
            self._add(told, told, counting=counting)
        source.n, source.heard_at_s, source.last = snapshot.n, now_s, told
        if snapshot.final:
            del self._sources[snapshot.source]

    def forget_silent(self, now_s: float) -> None:
        self._sources = {
            name: source
            for name, source in self._sources.items()
            if now_s - source.heard_at_s <= SILENCE_S_MAX
        }

    def drain(self) -> Totals:
        """What was heard since the last call, whoever leads."""
        recent, self._recent = self._recent, Totals()
        return recent

    def _add(self, told: Totals, before: Totals, *, counting: bool) -> None:
        for key, number in told.numbers.items():
            if self._keeps(key):
                change = number - before.numbers.get(key, 0.0)
                self._recent.add_number(key, max(0.0, change))
                self.counted.add_number(key, max(0.0, change) if counting else 0.0)
        for key, buckets in told.histograms.items():
            if self._keeps(key):
                came = buckets.since(before.histograms.get(key, Buckets())) or Buckets()
                self._recent.add_histogram(key, came)
                self.counted.add_histogram(key, came if counting else Buckets())

    def _keeps(self, key: SeriesKey) -> bool:
        if self.counted.has(key) or len(self.counted) < self._series_max:
            return True
        self.dropped += 1
        return False


def totals_of(snapshot: Snapshot) -> Totals:
    """Its counters and histograms; what this version does not know, or what is no count, is left out.

    Gauges are: control has its own figures for what they say.
    """
    totals = Totals()
    for number in snapshot.numbers:
        if _fits(number.family, number.labels, Kind.COUNTER) and _is_count(number.value):
            totals.numbers[number.family, number.labels] = number.value
    for one in snapshot.histograms:
        counts = (*one.counts, one.sum)
        if _fits(one.family, one.labels, Kind.HISTOGRAM) and all(map(_is_count, counts)):
            totals.histograms[one.family, one.labels] = Buckets(one.all_counts(), one.sum)
    return totals


def _fits(name: str, labels: LabelValues, kind: Kind) -> bool:
    family = FAMILIES.get(name)
    if family is None or family.kind is not kind or len(family.labels) != len(labels):
        return False
    return all(len(label) <= LABEL_CHARS_MAX for label in labels)


def _is_count(value: float) -> bool:
    """Infinity, once added, would stay for ever; NaN is neither more nor less than anything."""
    return 0 <= value <= COUNT_MAX


def quantile_s(counts: list[int], q: float) -> float | None:
    """The `q`-quantile as Prometheus tells it: linear inside a bucket; the last bound if it is above all.

    None without any value.
    """
    wanted = q * sum(counts)
    if not wanted:
        return None
    below = 0
    for low_s, high_s, count in _bounded(counts):
        if count and below + count >= wanted:
            return low_s + (high_s - low_s) * (wanted - below) / count
        below += count
    return BUCKETS_S[-1]


def _bounded(counts: list[int]) -> Iterator[tuple[float, float, int]]:
    """(lower bound, upper bound, values) of each bucket that has both."""
    yield from zip((0.0, *BUCKETS_S), BUCKETS_S, counts, strict=False)
