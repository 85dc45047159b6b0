"""How fast things move: two looks at counters that only rise, and the time between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Look:
    """What the streams of each service had stored at a moment, ever."""

    at_s: float
    accepted: Mapping[str, int] = field(default_factory=dict)
    journaled: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second, between two looks; None without a look before."""

    accepted_per_s: float | None = None
    journaled_per_s: float | None = None


def rates(before: Look | None, now: Look, service: str) -> Rates:
    """Never negative: a stream that was made anew counts from its beginning."""
    if before is None or now.at_s <= before.at_s:
        return Rates()
    return Rates(
        _rate(before.accepted, now.accepted, service, now.at_s - before.at_s),
        _rate(before.journaled, now.journaled, service, now.at_s - before.at_s),
    )


def _rate(
    before: Mapping[str, int], now: Mapping[str, int], service: str, seconds: float
) -> float | None:
    if service not in before or service not in now:
        return None
    rose = now[service] - before[service]
    return round((rose if rose >= 0 else now[service]) / seconds, 1)
