"""The plots of a report, as SVG: only what the document holds, nothing is measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "bench"  # the same document gives the same file

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator, NullFormatter  # noqa: E402

from bench.targets import GAP_MS_MAX, IN_FLIGHT, P99_MS_MAX  # noqa: E402

Document = dict[str, Any]
Rows = list[dict[str, Any]]
PARTS: Final = ("caller", "instance", "server", "control")
_OTHER: Final = "#d33682"
_COLOURS: Final = {
    "aegis": "#0b6e4f",
    "jetstream-durable": "#b5541c",
    "jetstream-queue": "#d98880",
    "jetstream-light": "#e0a030",
    "core-nats": "#3465a4",
    "faststream": "#75507b",
    "grpc": "#888a85",
    "zmq": "#2e3436",
    "aegis-on-asyncio": _OTHER,
}


def draw(document: Document, folder: Path) -> list[Path]:
    """Draw what the document has data for; returns the files."""
    drawn = []
    for name, plot in _PLOTS.items():
        figure = plot(document)
        if figure is None:
            continue
        path = folder / f"{document['command']}-{name}.svg"
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        drawn.append(path)
    return drawn


def _systems(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["system"] for row in rows))


def _line(axes: Any, rows: Rows, x: str, y: Callable[[dict[str, Any]], float], **look: Any) -> None:
    points = sorted((row[x], y(row)) for row in rows)
    axes.plot([p[0] for p in points], [p[1] for p in points], marker="o", ms=3, **look)


def _log_x(axis: Any, ticks: Iterable[float]) -> None:
    """Logarithmic, with a plain number at each place that was measured."""
    places = sorted(ticks)
    axis.set_xscale("log")
    axis.set_xticks(places, [f"{place:,g}" for place in places])
    axis.xaxis.minorticks_off()


def _log_y(axis: Any) -> None:
    """Logarithmic, with plain numbers at 1, 2 and 5 of each decade."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _by_rate(document: Document) -> Any:
    rows = [r for r in document["rows"] if r["rate_per_s"] and not r.get("axis")]
    rows = [r for r in rows if "day" not in r["scenario"]]
    if document["command"] == "soak" or not rows:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True)
    for axis, percentile in zip(axes, ("p50", "p99", "p99.9"), strict=True):
        for system in _systems(rows):
            mine = [row for row in rows if row["system"] == system]
            _line(
                axis,
                mine,
                "rate_per_s",
                lambda row, p=percentile: row["latency_ms"][p]["median"],  # type: ignore[misc]
                label=system,
                color=_COLOURS[system],
            )
        axis.axhline(P99_MS_MAX, ls=":", color="red", lw=1)
        axis.set(title=percentile, xlabel="offered calls/s")
        _log_x(axis, {row["rate_per_s"] for row in rows})
        _log_y(axis)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ms from the intended send time")
    axes[0].legend(fontsize=8)
    return figure


def _sequential(document: Document) -> Any:
    rows = [r for r in document["rows"] if r["in_flight"] == 1 and not r.get("axis")]
    if document["command"] != "latency" or not rows:
        return None
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    figure, axes = plt.subplots(1, len(scenarios), figsize=(6.5 * len(scenarios), 4.2), sharey=True)
    for axis, scenario in zip(axes if len(scenarios) > 1 else [axes], scenarios, strict=True):
        mine = [row for row in rows if row["scenario"] == scenario]
        for n, percentile in enumerate(("p50", "p90", "p99")):
            values = [row["latency_ms"][percentile]["median"] for row in mine]
            places = [place + (n - 1) * 0.26 for place in range(len(mine))]
            axis.bar(places, values, width=0.25, label=percentile)
        axis.set_xticks(range(len(mine)), [row["system"] for row in mine], rotation=20, fontsize=8)
        axis.set(title=scenario, ylabel="ms")
        axis.grid(alpha=0.3, axis="y")
        axis.legend(fontsize=8)
    return figure


def _by_in_flight(document: Document) -> Any:
    rows = [r for r in document["rows"] if r["in_flight"] and r["mix"] == "targeted"]
    rows = [r for r in rows if not r.get("axis") and not r.get("account")]
    if document["command"] != "throughput" or not rows:
        return None
    figure, axis = plt.subplots(figsize=(7, 4.5))
    for system in _systems(rows):
        mine = [row for row in rows if row["system"] == system]
        look = {"label": system, "color": _COLOURS[system]}
        _line(axis, mine, "in_flight", lambda row: row["throughput_per_s"]["median"], **look)
    axis.set(xlabel="calls in flight", ylabel="calls/s")
    _log_x(axis, {row["in_flight"] for row in rows})
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def _cpu(document: Document) -> Any:
    rows = [r for r in document["rows"] if r["in_flight"] == IN_FLIGHT and r["mix"] == "targeted"]
    rows = [r for r in rows if not r.get("axis") and not r.get("account")]
    if document["command"] != "throughput" or not rows:
        return None
    figure, axis = plt.subplots(figsize=(7, 4.2))
    bottom = [0.0] * len(rows)
    names = [row["system"] for row in rows]
    for part in PARTS:
        values = [row["cpu_us_per_call"][part] for row in rows]
        axis.bar(names, values, bottom=bottom, label=part)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    axis.set(ylabel="CPU us a call", title=rows[0]["scenario"], ylim=(0, max(bottom) * 1.08))
    axis.tick_params(axis="x", rotation=20, labelsize=8)
    axis.grid(alpha=0.3, axis="y")
    axis.legend(fontsize=8)
    return figure


def _scale(document: Document) -> Any:
    if document["command"] != "scale":
        return None
    rows = [row | next(iter(_axes(row))) for row in document["rows"] if row.get("axis")]
    names = list(dict.fromkeys(row["axis_name"] for row in rows))
    if not names:
        return None
    figure, grid = plt.subplots(2, len(names), figsize=(4.6 * len(names), 7), squeeze=False)
    for column, name in enumerate(names):
        for system in _systems(rows):
            mine = [r for r in rows if r["system"] == system and r["axis_name"] == name]
            look = {"label": system, "color": _COLOURS[system]}
            closed = [row for row in mine if row["in_flight"]]
            opened = [row for row in mine if row["rate_per_s"]]
            _line(grid[0][column], closed, "at", _throughput, **look)
            _line(grid[1][column], opened, "at", _p99, color=look["color"], label=f"{system} p99")
            _line(
                grid[1][column],
                opened,
                "at",
                _p50,
                color=look["color"],
                label=f"{system} p50",
                ls="--",
            )
        grid[0][column].set(title=name, ylabel=f"calls/s, {IN_FLIGHT} in flight")
        grid[0][column].set_ylim(bottom=0)
        grid[1][column].set(xlabel=name, ylabel="ms at a fixed rate")
        _log_y(grid[1][column])
        for line in grid:
            _log_x(line[column], {row["at"] for row in rows if row["axis_name"] == name})
            line[column].grid(alpha=0.3)
    grid[0][0].legend(fontsize=8)
    grid[1][0].legend(fontsize=8)
    return figure


def _axes(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"axis_name": name, "at": value} for name, value in row["axis"].items()]


def _throughput(row: dict[str, Any]) -> float:
    return float(row["throughput_per_s"]["median"])


def _p99(row: dict[str, Any]) -> float:
    return float(row["latency_ms"]["p99"]["median"])


def _soak(document: Document) -> Any:
    samples = document.get("samples")
    if not samples:
        return None
    figure, axes = plt.subplots(3, 1, figsize=(10, 8), sharex=True)
    for system, points in samples.items():
        at = [point["at_s"] / 60 for point in points]
        colour = _COLOURS[system]
        axes[0].plot(at, [point["rate_per_s"] for point in points], color=colour, label=system)
        axes[1].plot(at, [point["p99_ms"] for point in points], color=colour, label=f"{system} p99")
        axes[1].plot(at, [point["p50_ms"] for point in points], color=colour, ls="--", label="p50")
        for part in PARTS:
            memory = [point["memory_mib"][part] for point in points]
            if any(memory):
                axes[2].plot(at, memory, label=f"{system} {part}")
    axes[1].axhline(P99_MS_MAX, ls=":", color="red", lw=1)
    _log_y(axes[1])
    labels = ("offered calls/s", "ms", "resident MiB")
    for axis, label in zip(axes, labels, strict=True):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[2].set_xlabel("minutes")
    return figure


def _failovers(document: Document) -> Any:
    """A strip for each kind: every failover is a dot, its p50 and p99 are marks, the bounds red."""
    failovers = document.get("failovers")
    if not failovers:
        return None
    kinds = list(failovers)
    figure, axis = plt.subplots(figsize=(9, 0.8 * len(kinds) + 1.6))
    for place, kind in enumerate(kinds):
        gaps_ms, summary = failovers[kind]["gaps_ms"], failovers[kind]["gap_ms"]
        heights = [place + ((7 * n) % 11 - 5) / 25 for n in range(len(gaps_ms))]
        axis.scatter(gaps_ms, heights, s=12, alpha=0.45, color=_COLOURS["aegis"], lw=0)
        for name, look in (("p50", "-"), ("p99", "--")):
            axis.plot(
                [summary[name]] * 2, [place - 0.36, place + 0.36], look, color="black", lw=1.5
            )
        for name, bound_ms in GAP_MS_MAX[kind].items():
            axis.plot([bound_ms] * 2, [place - 0.42, place + 0.42], color="red", lw=2)
            axis.text(bound_ms, place + 0.43, f" {name}", color="red", fontsize=7, ha="left")
    axis.set_yticks(range(len(kinds)), [f"{kind} ({failovers[kind]['count']})" for kind in kinds])
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="longest wait of a caller, ms")
    axis.set_title("black: p50, dashed p99; red: what is wanted", fontsize=9)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.3, which="both", axis="x")
    return figure


def _payload(document: Document) -> Any:
    rows = [row for row in document["rows"] if row.get("note_bytes") is not None and row["calls"]]
    if not rows:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    for system in _systems(rows):
        mine = [
            row | {"bytes": max(64, row["note_bytes"])} for row in rows if row["system"] == system
        ]
        alone = [row for row in mine if row["in_flight"] == 1]
        crowd = [row for row in mine if row["in_flight"] != 1]
        look = {"color": _COLOURS[system]}
        _line(axes[0], alone, "bytes", _p50, label=f"{system} p50", **look)
        _line(axes[0], alone, "bytes", _p99, label=f"{system} p99", ls="--", **look)
        _line(axes[1], crowd, "bytes", _throughput, label=system, **look)
    in_flight = max(row["in_flight"] for row in rows)
    axes[0].set(ylabel="ms, one call in flight")
    axes[1].set(ylabel=f"calls/s, {in_flight} in flight")
    for axis in axes:
        _log_y(axis)
        axis.set_xscale("log", base=2)
        axis.set_xticks(*_byte_ticks(rows), fontsize=8, rotation=35, ha="right")
        axis.xaxis.minorticks_off()
        axis.set_xlabel("bytes of the note in each request")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def _byte_ticks(rows: Rows) -> tuple[list[int], list[str]]:
    """Nothing is shown at 64 bytes: a logarithm has no zero."""
    sizes = sorted({row["note_bytes"] for row in rows})
    names = [f"{size // 1024} KiB" if size >= 1024 else str(size) for size in sizes]
    return [max(64, size) for size in sizes], names


def _p50(row: dict[str, Any]) -> float:
    return float(row["latency_ms"]["p50"]["median"])


_PLOTS: Final[dict[str, Callable[[Document], Any]]] = {
    "sequential": _sequential,
    "by-rate": _by_rate,
    "by-in-flight": _by_in_flight,
    "cpu": _cpu,
    "scale": _scale,
    "over-time": _soak,
    "gaps": _failovers,
    "by-size": _payload,
}
