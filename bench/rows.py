"""From blocks to rows: repeats of one block on one system become medians with their spread. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from bench.bed import Measured
from bench.latencies import PERCENTILES, Latencies

Row = dict[str, Any]


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, least and greatest."""
    return {
        "median": round(median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def _merged(latencies: Iterable[Latencies]) -> Latencies:
    merged = Latencies()
    for each in latencies:
        merged.merge(each)
    return merged


def _per_s(measured: Measured) -> float:
    return measured.told.ledger.ok / max(1e-9, measured.told.elapsed_s)


def _cpu_us_per_call(repeats: Sequence[Measured]) -> dict[str, float]:
    calls = max(1, sum(m.told.ledger.ok for m in repeats))
    parts = {
        part: round(sum(m.cpu_s[part] for m in repeats) / calls * 1e6, 1)
        for part in repeats[0].cpu_s
    }
    return parts | {"total": round(sum(parts.values()), 1)}


def _sum_errors(repeats: Sequence[Measured]) -> dict[str, int]:
    errors: dict[str, int] = {}
    for measured in repeats:
        for error, count in measured.told.errors.items():
            errors[error] = errors.get(error, 0) + count
    return errors


def make_row(repeats: Sequence[Measured], **extra: Any) -> Row:
    """One line of the result: `repeats` are the same block on the same system, at least one."""
    block = repeats[0].block
    each_ms = [m.told.latencies.summary_ms() for m in repeats]
    pings = _merged(m.noise.pings for m in repeats)
    return {
        "system": repeats[0].system,
        "scenario": block.name,
        "mix": block.mix,
        "mode": block.mode,
        "in_flight": block.in_flight if block.mode == "closed" else None,
        "rate_per_s": block.rate_per_s if block.mode == "open" else None,
        "account": block.account,
        "note_bytes": block.note_bytes,
        "axis": None,
        "repeats": len(repeats),
        "calls": sum(m.told.ledger.ok for m in repeats),
        "latency_ms": {name: spread([ms[name] for ms in each_ms]) for name in each_ms[0]},
        "all_repeats_ms": _merged(m.told.latencies for m in repeats).summary_ms(),
        "throughput_per_s": spread([_per_s(m) for m in repeats], 1),
        "cpu_us_per_call": _cpu_us_per_call(repeats),
        "late_ms_p99": round(_merged(m.told.late for m in repeats).percentile_ms(99), 3),
        "shed": sum(m.told.shed for m in repeats),
        "refused": sum(m.told.ledger.refused for m in repeats),
        "errors": _sum_errors(repeats),
        "noise": {
            "others_cpus": spread([m.noise.others_cpus for m in repeats], 2),
            "ping_ms": {f"p{p:g}": pings.percentile_ms(p) for p in PERCENTILES[:3]},
        },
        **extra,
    }


def find_rows(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose fields are as `wanted`."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def compare(rows: Sequence[Row], subject: str = "aegis") -> list[dict[str, Any]]:
    """The subject beside each rival in each scenario: how many times its latency, CPU and throughput."""
    compared = []
    for row in find_rows(rows, system=subject):
        for rival in find_rows(rows, scenario=row["scenario"]):
            if rival is not row and rival.get("axis") == row.get("axis"):
                compared.append(_ratio(row, rival))
    return compared


def _ratio(row: Row, rival: Row) -> dict[str, Any]:
    def times(mine: float, theirs: float) -> float:
        return round(mine / theirs, 2) if theirs else 0.0

    return {
        "scenario": row["scenario"],
        "rival": rival["system"],
        "p50_times": times(
            row["latency_ms"]["p50"]["median"], rival["latency_ms"]["p50"]["median"]
        ),
        "p99_times": times(
            row["latency_ms"]["p99"]["median"], rival["latency_ms"]["p99"]["median"]
        ),
        "throughput_times": times(
            row["throughput_per_s"]["median"], rival["throughput_per_s"]["median"]
        ),
        "cpu_times": times(row["cpu_us_per_call"]["total"], rival["cpu_us_per_call"]["total"]),
    }
