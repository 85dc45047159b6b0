"""What the project promises about speed, and whether a run met it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.ledger import Verdict
from bench.rows import Row, find_rows

P99_MS_MAX: Final = 5.0
"""At half of the highest throughput, both modes; and in a soak."""
IN_FLIGHT: Final = 64
RIVAL: Final = "jetstream-durable"
"""The one that stores as much as AegisIPC does."""
WORK_QUEUE: Final = "jetstream-queue"
"""The same with a work queue, whose acks delete: three writes a call."""
TIMES_THE_RIVAL_MIN: Final = 1.2
HOT_PER_S_MIN: Final = 1500.0
"""Calls a second to one resource, whose commits are serial."""
FLAT_TIMES_MAX: Final[Mapping[str, tuple[str, float]]] = {
    "resources": ("p50", 1.2),
    "instances": ("p99", 2.0),
    "callers": ("p99", 2.0),
}
"""At a fixed total rate, from the least to the most of an axis."""
FIRST_REPLY_S_MAX: Final = 1.0
IMPORT_S_MAX: Final = 0.3


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


def alone(rows: Sequence[Row]) -> list[Target]:
    """One targeted call in flight: no slower than the rival."""
    pair = _pair(rows, RIVAL, mix="targeted", in_flight=1)
    if pair is None:
        return []
    mine, theirs = (row["latency_ms"] for row in pair)
    return [
        _at_most(
            f"targeted, 1 in flight, {name}",
            mine[name]["median"],
            theirs[name]["median"],
            "ms",
            RIVAL,
        )
        for name in ("p50", "p99")
    ]


def crowd(rows: Sequence[Row]) -> list[Target]:
    """Many targeted calls in flight: more of them a second than the rivals, at less CPU each."""
    return [target for rival in (RIVAL, WORK_QUEUE) for target in _crowd(rows, rival)]


def _crowd(rows: Sequence[Row], rival: str) -> list[Target]:
    pair = _pair(rows, rival, mix="targeted", in_flight=IN_FLIGHT)
    if pair is None:
        return []
    mine, theirs = (row["throughput_per_s"]["median"] for row in pair)
    cpu = [row["cpu_us_per_call"]["total"] for row in pair]
    name = f"targeted, {IN_FLIGHT} in flight"
    times = mine / theirs
    wanted = f">= {TIMES_THE_RIVAL_MIN:g} x {rival}"
    measured = f"{times:.2f} x: {mine:,.0f}/s against {theirs:,.0f}/s"
    return [
        Target(f"{name}, throughput", wanted, measured, times >= TIMES_THE_RIVAL_MIN),
        _at_most(f"{name}, CPU a call", cpu[0], cpu[1], "us", rival),
    ]


def hot(rows: Sequence[Row]) -> list[Target]:
    """One resource that everybody calls."""
    found = [row for row in find_rows(rows, system="aegis", axis=None) if row["account"]]
    return [
        Target(
            row["scenario"],
            f">= {HOT_PER_S_MIN:,.0f}/s",
            f"{row['throughput_per_s']['median']:,.0f}/s",
            row["throughput_per_s"]["median"] >= HOT_PER_S_MIN,
        )
        for row in found
    ]


def half_load(rows: Sequence[Row]) -> list[Target]:
    """Open loop at half of the highest throughput; `rows` are these alone."""
    targets = []
    for row in find_rows(rows, system="aegis"):
        p99_ms = row["latency_ms"]["p99"]["median"]
        name = f"P99 at half of the highest throughput: {row['scenario']}"
        met = p99_ms < P99_MS_MAX
        targets.append(Target(name, f"< {P99_MS_MAX:g} ms", f"{p99_ms:.2f} ms", met))
    return targets


def flat(rows: Sequence[Row]) -> list[Target]:
    """Latency hardly changes with how many there are, at a fixed total rate."""
    targets = []
    for axis, (name, times_max) in FLAT_TIMES_MAX.items():
        points = {
            row["axis"][axis]: row["latency_ms"][name]["median"]
            for row in find_rows(rows, system="aegis", mode="open")
            if axis in (row.get("axis") or {})
        }
        if len(points) > 1:
            targets.append(_flat(axis, name, points, times_max))
    return targets


def start(first_reply_s: float, import_s: float) -> list[Target]:
    """How long a process takes to be of use."""
    return [
        Target(
            "start of an instance to its first reply",
            f"< {FIRST_REPLY_S_MAX:g} s",
            f"{first_reply_s:.2f} s",
            first_reply_s < FIRST_REPLY_S_MAX,
        ),
        Target(
            "import aegis_sdk, with what it loads on first use",
            f"< {IMPORT_S_MAX:g} s",
            f"{import_s:.3f} s",
            import_s < IMPORT_S_MAX,
        ),
    ]


def _pair(rows: Sequence[Row], rival: str, **wanted: object) -> tuple[Row, Row] | None:
    """The subject's row and the rival's; None when one of them was not measured."""
    wanted |= {"axis": None, "account": "", "note_bytes": None}
    mine, theirs = (find_rows(rows, system=name, **wanted) for name in ("aegis", rival))
    return (mine[0], theirs[0]) if mine and theirs else None


def _at_most(name: str, mine: float, theirs: float, unit: str, rival: str) -> Target:
    return Target(
        name, f"<= {rival}", f"{mine:,.2f} {unit} against {theirs:,.2f} {unit}", mine <= theirs
    )


def _flat(axis: str, name: str, points: Mapping[int, float], times_max: float) -> Target:
    least, most = min(points), max(points)
    times = points[most] / max(1e-9, points[least])
    return Target(
        f"{name} from {least:,} to {most:,} {axis}",
        f"<= {times_max:g} x",
        f"{times:.2f} x: {points[least]:.2f} ms, {points[most]:.2f} ms",
        times <= times_max,
    )


GAP_MS_MAX: Final[Mapping[str, Mapping[str, float]]] = {
    "kill": {"p50": 30.0, "p99": 100.0},
    "heartbeats": {"p99": 1000.0},
    "pause": {"p99": 1200.0},
    "handover": {"p99": 50.0},
    "drain": {"p99": 50.0},
    "rolling": {"p99": 50.0},
    "rolling-group": {"p99": 50.0},
    "rolling-calm": {},
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
