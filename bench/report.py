"""The report of a run: a Markdown table, JSON and SVG plots in a folder; all made from the document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.document import Document
from bench.plots import draw


def write_report(document: Document, folder: Path) -> None:
    """Write `<command>.json`, `.md` and the plots; what an earlier run left under these names goes."""
    folder.mkdir(parents=True, exist_ok=True)
    name = document["command"]
    plots = draw(document, folder)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    pictures = "".join(f"\n![{plot.stem}]({plot.name})\n" for plot in plots)
    (folder / f"{name}.md").write_text(markdown(document) + pictures)


def markdown(document: Document) -> str:
    """The document for people."""
    if "documents" in document:
        return "\n".join(markdown(each) for each in document["documents"].values())
    parts = [
        f"# bench {document['command']}",
        _where(document),
        _targets(document),
        _rows(document["rows"]),
        _comparisons(document["comparisons"]),
        _losses(document["losses"]),
        _systems(document["systems"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A Markdown table; empty when there are no lines."""
    rows = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    if not rows:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *rows])


def _where(document: Document) -> str:
    machine = document["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    settings = document["settings"]
    return "\n".join(
        [
            f"- Verdict: **{'passed' if document['passed'] else 'FAILED: calls lost or doubled'}**",
            f"- Again: `{document['again']}`",
            f"- Machine: {machine['processor']}, {machine['cpus']} CPUs, "
            f"{machine['memory_gib']} GiB, {machine['system']}; all processes on it; "
            f"scheduling {machine['scheduling']}",
            f"- Versions: Python {machine['python']}, {libraries}",
            f"- Event loop {settings['loop']}, sync_interval {settings['sync_interval']}; "
            f"finished {document['finished']}",
        ]
    )


def _targets(document: Document) -> str:
    lines = [
        (each["name"], each["wanted"], each["measured"], "met" if each["met"] else "**missed**")
        for each in document["targets"]
    ]
    return "## Targets\n\n" + table(("target", "wanted", "measured", "verdict"), lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _spread(values: dict[str, float]) -> str:
    return f"{_number(values['median'])} ({_number(values['min'])}-{_number(values['max'])})"


def _axis(row: dict[str, Any]) -> str:
    axis = row.get("axis")
    return "" if not axis else "; " + ", ".join(f"{key} {value}" for key, value in axis.items())


def _rows(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        ms = row["latency_ms"]
        cpu = row["cpu_us_per_call"]
        parts = "/".join(f"{cpu[part]:.0f}" for part in ("caller", "instance", "server", "control"))
        lines.append(
            (
                row["scenario"] + _axis(row),
                row["system"],
                _spread(ms["p50"]),
                _spread(ms["p99"]),
                _spread(ms["p99.9"]),
                _spread(row["throughput_per_s"]),
                f"{cpu['total']:.0f} ({parts})",
                f"{row['late_ms_p99']:.2f}",
                f"{row['noise']['others_cpus']['median']:.2f}; {row['noise']['ping_ms']['p50']:.2f}",
            )
        )
    head = (
        "scenario",
        "system",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "calls/s",
        "CPU us a call (caller/instance/server/control)",
        "begun late, p99 ms",
        "noise: others' CPUs; ping p50 ms",
    )
    note = "Medians over the repeats, least and greatest in brackets."
    return f"## Results\n\n{note}\n\n" + table(head, lines)


def _comparisons(comparisons: list[dict[str, Any]]) -> str:
    lines = [
        (
            each["scenario"],
            each["rival"],
            each["p50_times"],
            each["p99_times"],
            each["throughput_times"],
            each["cpu_times"],
        )
        for each in comparisons
    ]
    head = ("scenario", "beside", "p50", "p99", "calls/s", "CPU a call")
    shown = table(head, lines)
    return f"## AegisIPC, as a multiple of each\n\n{shown}" if shown else ""


def _losses(losses: dict[str, dict[str, Any]]) -> str:
    keys = ("sent", "ok", "refused", "unknown", "lost_effects", "duplicates", "wrong")
    lines = [(name, *(f"{each[key]:,}" for key in keys)) for name, each in losses.items()]
    words = [key.replace("_", " ") for key in keys]
    return "## Every call accounted for\n\n" + table(("system", *words), lines)


def _systems(systems: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, about in systems.items():
        settings = "; ".join(f"{key}: {value}" for key, value in about["settings"].items())
        lines.append((name, about["promises"], settings or "defaults"))
    return "## What is compared\n\n" + table(("system", "promises", "settings"), lines)
