"""The gap that callers see, from the times of their calls. Pure.

A call overlaps a failover if it was begun (by intention) before the failover's window ended, and
answered after the window began. The gap is the longest wait of any call that overlaps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

Span = tuple[float, float]
"""When a call was meant to begin, and when its reply was there; monotonic seconds."""

PERCENTILES: Final = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Window:
    """A failover: from the strike to a moment after the last resource had its new active."""

    began_s: float
    ended_s: float


class Calls:
    """The calls of a load, by the times at which they began."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = sorted(spans)
        self._begins = [began_s for began_s, _ in self._spans]
        self._longest_s = max((ended_s - began_s for began_s, ended_s in self._spans), default=0.0)

    def overlapping(self, window: Window) -> list[Span]:
        """In the order in which they began."""
        first = bisect_right(self._begins, window.began_s - self._longest_s - 1e-9)
        last = bisect_right(self._begins, window.ended_s)
        return [span for span in self._spans[first:last] if span[1] >= window.began_s]


def longest(overlapping: Iterable[Span]) -> Span | None:
    """The call that waited longest; None when no call saw the failover."""
    return max(overlapping, key=wait_s, default=None)


def wait_s(span: Span) -> float:
    """The gap, if the span is the longest."""
    began_s, ended_s = span
    return ended_s - began_s


def percentile(values: Sequence[float], wanted: float) -> float:
    """The nearest rank: always a value that occurred. Raises: ValueError when there are none."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, ceil(len(values) * wanted / 100) - 1)]


def summary_ms(gaps_s: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and max in milliseconds; empty when there are no gaps."""
    if not gaps_s:
        return {}
    named = {f"p{wanted}": percentile(gaps_s, wanted) for wanted in PERCENTILES}
    return {name: round(value * 1e3, 2) for name, value in (named | {"max": max(gaps_s)}).items()}


def steps_ms(failovers: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of each step, how long after the strike it came (p50, p99, max), in order of their medians.

    A step that a failover did not show (nothing announces it, or its message was late) is left out of
    that step's figures.
    """
    names = dict.fromkeys(name for each in failovers for name in each)
    found = {name: [each[name] for each in failovers if name in each] for name in names}
    ordered = sorted(found.items(), key=lambda item: percentile(item[1], 50))
    return {name: summary_ms(values) | {"seen": float(len(values))} for name, values in ordered}
