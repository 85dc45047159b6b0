"""Latencies as an HdrHistogram: microseconds, three significant digits, from 1 us to 10 minutes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hdrh.histogram import HdrHistogram

_US_MAX: Final = 600_000_000
_DIGITS: Final = 3
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


class Latencies:
    """A mergeable set of latencies that travels between processes as text."""

    def __init__(self, encoded: str | None = None) -> None:
        if encoded:
            self._histogram: Any = HdrHistogram.decode(encoded)
        else:
            self._histogram = HdrHistogram(1, _US_MAX, _DIGITS)

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Latencies:
        latencies = cls()
        for value_s in seconds:
            latencies.record(value_s)
        return latencies

    def record(self, value_s: float) -> None:
        self._histogram.record_value(min(_US_MAX, max(1, round(value_s * 1e6))))

    def merge(self, other: Latencies) -> None:
        self._histogram.add(other._histogram)

    def encode(self) -> str:
        return bytes(self._histogram.encode()).decode()

    @property
    def count(self) -> int:
        return int(self._histogram.get_total_count())

    def percentile_ms(self, percentile: float) -> float:
        """0.0 when nothing was recorded."""
        if not self.count:
            return 0.0
        return float(self._histogram.get_value_at_percentile(percentile)) / 1e3

    @property
    def max_ms(self) -> float:
        return self.percentile_ms(100.0)

    def summary_ms(self) -> dict[str, float]:
        """p50, p90, p99, p99.9 and max."""
        named = {f"p{p:g}": self.percentile_ms(p) for p in PERCENTILES}
        return named | {"max": self.max_ms}
