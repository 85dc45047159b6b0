"""The report of a run: a Markdown table, JSON and SVG plots in a folder; all made from the document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.document import Document
from bench.plots import draw

ORDER = ("latency", "throughput", "scale", "soak", "failover", "payload", "loops", "start")
"""Of the sections; what other commands leave in the folder is not part of the report."""
GAP_NAMES = ("p50", "p90", "p99", "max")


def write_report(document: Document, folder: Path) -> None:
    """Write `<command>.json`, `.md` and the plots; what an earlier run left under these names goes.

    `report.md` is made anew from all the commands' results that the folder holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = document["command"]
    for old in folder.glob(f"{name}-*.svg"):
        old.unlink()
    plots = draw(document, folder)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown(document) + _pictures(plots))
    (folder / "report.md").write_text(overview(stored(folder), folder))


def stored(folder: Path) -> list[Document]:
    """The results in a folder, in the order of the commands' place in `all`."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted(
        (each for each in found if each.get("command") in ORDER),
        key=lambda each: ORDER.index(each["command"]),
    )


def overview(documents: Sequence[Document], folder: Path) -> str:
    """All commands' results on one page: verdicts, how to repeat them, where, and the plots."""
    verdicts = [
        (document["command"], each["name"], each["wanted"], each["measured"], _word(each))
        for document in documents
        for each in document["targets"]
    ]
    head = ("command", "target", "wanted", "measured", "verdict")
    missed = sum(not each["met"] for document in documents for each in document["targets"])
    parts = [
        "# Benchmarks of AegisIPC",
        f"{len(verdicts) - missed} of {len(verdicts)} targets met, {missed} missed.",
        table(head, verdicts),
        "## Where and how",
        *map(_run, documents),
        *(_section(document, folder) for document in documents),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _run(document: Document) -> str:
    machine, settings = document["machine"], document["settings"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        f"- `{document['again']}`: {document['finished']}, {machine['processor']}, "
        f"{machine['cpus']} CPUs, {machine['memory_gib']} GiB, {machine['system']}, "
        f"scheduling {machine['scheduling']}; Python {machine['python']}, {libraries}; "
        f"loop {settings['loop']}, sync_interval {settings['sync_interval']}, "
        f"nodes of NATS {settings.get('nodes', 1)}, aegis_sdk {settings.get('aegis_sdk', 'plain Python')}"
    )


def _section(document: Document, folder: Path) -> str:
    name = document["command"]
    parts = [
        f"## {name}",
        _summary(document["rows"]),
        *_special(document),
        f"Everything: [{name}.md]({name}.md)",
        _pictures(sorted(folder.glob(f"{name}-*.svg"))).strip(),
    ]
    return "\n\n".join(part for part in parts if part)


def _summary(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            row["scenario"] + _axis(row),
            row["system"],
            _number(row["latency_ms"]["p50"]["median"]),
            _number(row["latency_ms"]["p99"]["median"]),
            _number(row["throughput_per_s"]["median"]),
            f"{row['cpu_us_per_call']['total']:.0f}",
        )
        for row in rows
    ]
    return table(("scenario", "system", "p50 ms", "p99 ms", "calls/s", "CPU us a call"), lines)


def _pictures(plots: Sequence[Path]) -> str:
    return "".join(f"\n![{plot.stem}]({plot.name})\n" for plot in plots)


def _word(target: dict[str, Any]) -> str:
    return "met" if target["met"] else "**MISSED**"


def markdown(document: Document) -> str:
    """The document for people."""
    if "documents" in document:
        return "\n".join(markdown(each) for each in document["documents"].values())
    parts = [
        f"# bench {document['command']}",
        _where(document),
        _targets(document),
        _rows(document["rows"]),
        *_special(document),
        _comparisons(document["comparisons"]),
        _losses(document["losses"]),
        _systems(document["systems"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _special(document: Document) -> list[str]:
    """What one command has beside rows."""
    return [
        _gaps(document.get("failovers", {})),
        _steps(document.get("failovers", {})),
        _memory(document.get("memory_growth", [])),
    ]


def _gaps(failovers: dict[str, dict[str, Any]]) -> str:
    lines = [
        (kind, each["count"], *(_number(each["gap_ms"][name]) for name in GAP_NAMES))
        for kind, each in failovers.items()
    ]
    head = ("failovers", "count", *(f"{name} ms" for name in GAP_NAMES))
    return "" if not lines else "### The gap that callers see\n\n" + table(head, lines)


def _steps(failovers: dict[str, dict[str, Any]]) -> str:
    lines = [
        (kind, step, _number(ms["p50"]), _number(ms["p99"]), f"{ms['seen']:.0f}")
        for kind, each in failovers.items()
        for step, ms in each["steps_ms"].items()
    ]
    head = ("failovers", "step", "after the strike, p50 ms", "p99 ms", "heard")
    return "" if not lines else "### Where the time goes\n\n" + table(head, lines)


def _memory(grown: list[dict[str, Any]]) -> str:
    lines = [
        (
            f"{each['axis']}, from {each['least']:,} to {each['most']:,}",
            part,
            f"{each['bytes_each'][part]:,}",
            f"{each['mib_a_process'].get(part, 0.0):.1f}",
        )
        for each in grown
        for part in each["bytes_each"]
    ]
    head = ("axis", "part", "bytes for one more", "MiB a process at the most")
    return "" if not lines else "### Memory of AegisIPC\n\n" + table(head, lines)


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
            f"- Event loop {settings['loop']}, sync_interval {settings['sync_interval']}, "
            f"nodes of NATS {settings.get('nodes', 1)}; "
            f"aegis_sdk {settings.get('aegis_sdk', 'plain Python')}; "
            f"finished {document['finished']}",
        ]
    )


def _targets(document: Document) -> str:
    lines = [
        (each["name"], each["wanted"], each["measured"], _word(each))
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
    if not rows:
        return ""
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
    shown = table(("system", "promises", "settings"), lines)
    return f"## What is compared\n\n{shown}" if shown else ""
