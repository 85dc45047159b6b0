"""What the project promises about speed, and whether a run met it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.ledger import Verdict
from bench.rows import Row, find_rows

P99_MS_MAX: Final = 5.0
"""At half of the highest throughput, both modes; and in a soak."""
IN_FLIGHT: Final = 64
CROWD: Final = 256
"""Calls in flight with which a system shows the most that it can."""
RIVAL: Final = "jetstream-durable"
"""The one that stores as much as AegisIPC does."""
BARE: Final = "core-nats"
"""Stores nothing."""
READING: Final = "aegis-reads"
"""The subject with queries that are reads."""
WAITING: Final = "aegis-one-by-one"
"""The subject with handlers that wait: each an `async def`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is wanted beside RIVAL, or BARE where it says so. None: not asked for."""

    alone_p50_times_max: float
    crowd_times_min: float | None = None
    waiting_times_min: float | None = None
    waiting_cpu_times_max: float | None = None
    bare_times_min: float | None = None
    hot_times_min: float | None = None
    hot_per_s_min: float | None = None
    mix_times_min: float | None = None
    group_times_min: float | None = None


ONE_NODE: Final = Bounds(
    alone_p50_times_max=0.65,
    waiting_times_min=1.8,
    waiting_cpu_times_max=0.6,
    bare_times_min=0.6,
    hot_times_min=1.0,
    mix_times_min=1.2,
    group_times_min=1.4,
)
ALWAYS_SYNCED: Final = Bounds(alone_p50_times_max=0.75, crowd_times_min=3.0, hot_per_s_min=10_000)
THREE_NODES: Final = Bounds(alone_p50_times_max=0.6, crowd_times_min=2.0)
FLAT_TIMES_MAX: Final[Mapping[str, tuple[str, float]]] = {
    "resources": ("p50", 1.2),
    "instances": ("p99", 2.0),
    "callers": ("p99", 2.0),
}
"""At a fixed total rate, from the least to the most of an axis."""
READ_P50_TIMES_MAX: Final = 1.3
READ_TIMES_MIN: Final = 0.6
EVENT_TIMES_MAX: Final = 1.5
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


def bounds(*, nodes: int, sync: str | None) -> Bounds:
    """Those of a run's settings."""
    if nodes > 1:
        return THREE_NODES
    return ALWAYS_SYNCED if sync == "always" else ONE_NODE


def alone(rows: Sequence[Row], wanted: Bounds) -> list[Target]:
    """One targeted call in flight."""
    times = _times(rows, _p50, mix="targeted", in_flight=1, mode="closed")
    return _judged("targeted, 1 in flight, p50", times, at_most=wanted.alone_p50_times_max)


def throughput(rows: Sequence[Row], wanted: Bounds) -> list[Target]:
    """Many calls in flight: how many a second, and at what CPU."""
    crowd: dict[str, Any] = {"mix": "targeted", "in_flight": IN_FLIGHT}
    hot: dict[str, Any] = {**crowd, "is_hot": True}
    name = f"{IN_FLIGHT} in flight"
    return [
        *_judged(
            f"targeted, {name}, calls/s",
            _times(rows, _per_s, **crowd),
            at_least=wanted.crowd_times_min,
        ),
        *_judged(
            f"targeted, {name}, handlers that wait, calls/s",
            _times(rows, _per_s, subject=WAITING, **crowd),
            at_least=wanted.waiting_times_min,
        ),
        *_judged(
            f"targeted, {name}, handlers that wait, CPU a call",
            _times(rows, _cpu, subject=WAITING, **crowd),
            at_most=wanted.waiting_cpu_times_max,
        ),
        *_judged(
            f"targeted, {CROWD} in flight, calls/s",
            _times(rows, _per_s, rival=BARE, mix="targeted", in_flight=CROWD),
            at_least=wanted.bare_times_min,
        ),
        *_judged(
            f"one hot resource, {name}, calls/s",
            _times(rows, _per_s, **hot),
            at_least=wanted.hot_times_min,
        ),
        *hot_rate(rows, wanted),
        *_judged(
            f"mix, {name}, calls/s",
            _times(rows, _per_s, mix="mix", in_flight=IN_FLIGHT),
            at_least=wanted.mix_times_min,
        ),
        *_judged(
            f"mix, {name}, P99",
            _times(rows, _p99, mix="mix", in_flight=IN_FLIGHT),
            at_most=1.0 if wanted.mix_times_min else None,
        ),
        *_judged(
            f"group, {name}, calls/s",
            _times(rows, _per_s, mix="group", in_flight=IN_FLIGHT),
            at_least=wanted.group_times_min,
        ),
    ]


def reads(rows: Sequence[Row]) -> list[Target]:
    """At the active, beside a request and a reply of core NATS."""
    asked: dict[str, Any] = {"subject": READING, "rival": BARE, "mix": "reads"}
    return [
        *_judged(
            "reads, 1 in flight, p50",
            _times(rows, _p50, in_flight=1, **asked),
            at_most=READ_P50_TIMES_MAX,
        ),
        *_judged(
            f"reads, {IN_FLIGHT} in flight, reads/s",
            _times(rows, _per_s, in_flight=IN_FLIGHT, **asked),
            at_least=READ_TIMES_MIN,
        ),
    ]


def hot_rate(rows: Sequence[Row], wanted: Bounds) -> list[Target]:
    """One resource that everybody calls."""
    bound = wanted.hot_per_s_min
    found = [row for row in find_rows(rows, system="aegis", axis=None) if row["account"]]
    return [
        Target(row["scenario"], f">= {bound:,.0f}/s", f"{_per_s(row):,.0f}/s", _per_s(row) >= bound)
        for row in found
        if bound is not None
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


_Figure = Callable[[Row], float]


@dataclass(frozen=True, slots=True)
class _Times:
    """The subject's figure as times of a rival's."""

    rival: str
    mine: float
    theirs: float

    @property
    def times(self) -> float:
        return self.mine / max(1e-9, self.theirs)


def _p50(row: Row) -> float:
    return float(row["latency_ms"]["p50"]["median"])


def _p99(row: Row) -> float:
    return float(row["latency_ms"]["p99"]["median"])


def _per_s(row: Row) -> float:
    return float(row["throughput_per_s"]["median"])


def _cpu(row: Row) -> float:
    return float(row["cpu_us_per_call"]["total"])


def _times(
    rows: Sequence[Row],
    figure: _Figure,
    *,
    subject: str = "aegis",
    rival: str = RIVAL,
    is_hot: bool = False,
    **wanted: object,
) -> _Times | None:
    """None when one of them was not measured."""
    wanted |= {"axis": None, "note_bytes": None}
    mine, theirs = (
        [row for row in find_rows(rows, system=name, **wanted) if bool(row["account"]) == is_hot]
        for name in (subject, rival)
    )
    return _Times(rival, figure(mine[0]), figure(theirs[0])) if mine and theirs else None


def _judged(
    name: str,
    found: _Times | None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> list[Target]:
    """One target, or none where nothing is wanted or was measured."""
    if found is None or (at_least is None and at_most is None):
        return []
    met = found.times >= at_least if at_least is not None else found.times <= (at_most or 0.0)
    bound = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
    measured = f"{found.times:.2f} x: {found.mine:,.2f} against {found.theirs:,.2f}"
    return [Target(name, f"{bound} x {found.rival}", measured, met)]


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
    "kill": {"p50": 17.0, "p99": 36.0},
    "heartbeats": {"p99": 1000.0},
    "pause": {"p99": 1200.0},
    "handover": {"p99": 50.0},
    "drain": {"p99": 50.0},
    "rolling": {"p99": 50.0},
    "rolling-group": {"p99": 50.0},
    "rolling-calm": {},
    "many": {"max": 200.0},
}
"""The gap that callers may see, by the kind of failover. `many`: 1,000 resources."""
SERVED_S_MAX: Final[Mapping[int, float]] = {1_000: 0.2, 5_000: 0.6, 10_000: 1.0}
"""kill -9 of the active of so many resources, each called once, to the last reply."""


def many(served_s: Mapping[int, float]) -> list[Target]:
    """`served_s`: the median, by number of resources."""
    return [
        Target(
            f"kill -9 to the last reply, {resources:,} resources",
            f"< {SERVED_S_MAX[resources]:g} s",
            f"{found_s:.3f} s",
            found_s < SERVED_S_MAX[resources],
        )
        for resources, found_s in served_s.items()
        if resources in SERVED_S_MAX
    ]


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


def events(plain: Mapping[str, float], telling: Mapping[str, float]) -> list[Target]:
    """CPU a call, in microseconds by part, without an event and with one for two subscribers."""
    sides = {
        "at its caller, its emitter and NATS": ("caller", "emitter", "server"),
        "everywhere, the subscribers' own work included": tuple(telling),
    }
    found = []
    for where, parts in sides.items():
        times = [sum(of[part] for part in parts if part != "calls/s") for of in (telling, plain)]
        ratio = times[0] / max(1e-9, times[1])
        measured = f"{ratio:.2f} x: {times[0]:.1f} against {times[1]:.1f} us"
        name = f"CPU of a call with an event for two subscribers, {where}"
        found.append(Target(name, f"<= {EVENT_TIMES_MAX:g} x", measured, ratio <= EVENT_TIMES_MAX))
    return found
