"""What the project promises about speed, and whether a run met it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.ledger import Verdict
from bench.rows import Row, find_rows

P99_MS_MAX: Final = 5.0
NOMINAL_PER_S: Final = 500.0
"""The offered rate up to which the latency promise holds on two cores, caller and broker included."""
THROUGHPUT_PER_S_MIN: Final = 2_000.0
"""With 64 calls in flight on two cores, caller and broker included."""
IN_FLIGHT: Final = 64


@dataclass(frozen=True, slots=True)
class Target:
    """One promise and what was measured."""

    name: str
    wanted: str
    measured: str
    met: bool


def nothing_lost(losses: Mapping[str, Verdict]) -> Target:
    """0 lost, 0 doubled, over all systems and all blocks, warm-up included."""
    sent = sum(verdict.sent for verdict in losses.values())
    bad = [name for name, verdict in losses.items() if not verdict.clean]
    measured = f"not so on {', '.join(bad)}" if bad else f"0 of {sent:,}"
    return Target("requests lost or doubled", "0", measured, not bad)


def latency(rows: Sequence[Row], system: str = "aegis") -> list[Target]:
    """P99 of every sequential row, and of every open row up to the nominal rate."""
    targets = []
    for row in find_rows(rows, system=system):
        sequential = row["in_flight"] == 1
        nominal = row["rate_per_s"] is not None and row["rate_per_s"] <= NOMINAL_PER_S
        if sequential or nominal:
            p99_ms = row["latency_ms"]["p99"]["median"]
            name = f"P99 of {row['scenario']}"
            wanted = f"< {P99_MS_MAX:g} ms"
            targets.append(Target(name, wanted, f"{p99_ms:.2f} ms", p99_ms < P99_MS_MAX))
    return targets


def throughput(rows: Sequence[Row], system: str = "aegis") -> list[Target]:
    """Calls a second with IN_FLIGHT in flight."""
    targets = []
    for row in find_rows(rows, system=system, in_flight=IN_FLIGHT):
        rate = row["throughput_per_s"]["median"]
        name = f"throughput of {row['scenario']}"
        wanted = f">= {THROUGHPUT_PER_S_MIN:,.0f}/s"
        targets.append(Target(name, wanted, f"{rate:,.0f}/s", rate >= THROUGHPUT_PER_S_MIN))
    return targets


GAP_MS_MAX: Final[Mapping[str, Mapping[str, float]]] = {
    "kill": {"p50": 30.0, "p99": 100.0},
    "heartbeats": {"p99": 1000.0},
    "pause": {"p99": 1200.0},
    "handover": {"p99": 50.0},
    "drain": {"p99": 50.0},
    "many": {"max": 500.0},
}
"""The gap that callers may see, by the kind of failover."""


def failover(gaps_ms: Mapping[str, Mapping[str, float]]) -> list[Target]:
    """Each bound that belongs to a kind that was run."""
    return [
        Target(
            f"gap of {kind}, {name}",
            f"< {bound_ms:g} ms",
            f"{summary[name]:.1f} ms",
            summary[name] < bound_ms,
        )
        for kind, summary in gaps_ms.items()
        for name, bound_ms in GAP_MS_MAX[kind].items()
        if name in summary
    ]
