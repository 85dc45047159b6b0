"""The session's result: one JSON object for programs, one closing table for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from aegis_control.demo.disruption import Disruption, Strike, longest_wait_s
from aegis_control.demo.order_file import RefusedRow
from aegis_control.demo.reconcile import MISMATCHES_SHOWN_MAX, Reconciliation
from aegis_control.demo.session import Run


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of a session. Latencies are of bookings, as their caller saw them, in ms."""

    orders: int
    seed: int | None
    """None: the orders came from a file."""
    refused_rows: Sequence[RefusedRow]
    reconciliation: Reconciliation
    rejections: dict[str, int]
    """By code."""
    disruptions: Sequence[Disruption]
    gaps_ms: list[float]
    """For each disruption, the longest wait of a caller through it."""
    failovers: int
    p50_ms: float
    p99_ms: float
    quote_p50_ms: float
    quote_p99_ms: float
    throughput_per_s: float
    duration_s: float
    held_s: float

    @property
    def exit_code(self) -> int:
        """0: nothing lost, nothing doubled, every account agrees, and no row was refused."""
        return 0 if self.reconciliation.reconciled and not self.refused_rows else 1


def make_report(
    run: Run,
    reconciliation: Reconciliation,
    *,
    orders: int,
    seed: int | None,
    refused_rows: Sequence[RefusedRow],
) -> Report:
    """Put a session's figures together."""
    bookings = [trade.booking_s * 1e3 for trade in run.trades]
    quotes = [trade.quote_s * 1e3 for trade in run.trades if trade.quote_s is not None]
    session_s = run.finished.session_s
    return Report(
        orders=orders,
        seed=seed,
        refused_rows=refused_rows,
        reconciliation=reconciliation,
        rejections=dict(Counter(trade.code for trade in run.trades if trade.outcome == "rejected")),
        disruptions=run.disruptions,
        gaps_ms=[longest_wait_s(each, run.trades) * 1e3 for each in run.disruptions],
        failovers=run.failovers,
        p50_ms=percentile(bookings, 50),
        p99_ms=percentile(bookings, 99),
        quote_p50_ms=percentile(quotes, 50),
        quote_p99_ms=percentile(quotes, 99),
        throughput_per_s=orders / session_s if session_s > 0 else 0.0,
        duration_s=session_s + run.finished.held_s,
        held_s=run.finished.held_s,
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that `percent` of all are not above; 0 of none."""
    if not values:
        return 0.0
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(rank, 1) - 1]


def as_json(report: Report) -> str:
    """One object on one line."""
    found = report.reconciliation
    result: dict[str, object] = {
        "orders": report.orders,
        "executed": found.executed,
        "rejected": found.rejected,
        "rejections": report.rejections,
        "lost": found.lost,
        "duplicated": found.duplicated,
        "reconciled": found.reconciled,
        "accounts": found.accounts,
        "accounts_agreeing": found.accounts_agreeing,
        "failovers": report.failovers,
        "failover_gap_ms": round(max(report.gaps_ms, default=0.0), 3),
        "disruptions": [
            _disruption(each, gap_ms)
            for each, gap_ms in zip(report.disruptions, report.gaps_ms, strict=True)
        ],
        "p50_ms": round(report.p50_ms, 3),
        "p99_ms": round(report.p99_ms, 3),
        "quote_p50_ms": round(report.quote_p50_ms, 3),
        "quote_p99_ms": round(report.quote_p99_ms, 3),
        "throughput_per_s": round(report.throughput_per_s, 1),
        "duration_s": round(report.duration_s, 3),
        "held_s": round(report.held_s, 3),
        "seed": report.seed,
        "refused_rows": [{"line": row.line, "reason": row.reason} for row in report.refused_rows],
        "mismatches": found.mismatches,
    }
    return json.dumps(result)


def _disruption(disruption: Disruption, gap_ms: float) -> dict[str, object]:
    return {
        "kind": disruption.strike.value,
        "victim": disruption.victim,
        "successor": disruption.successor,
        "after_orders": disruption.orders_done,
        "longest_wait_ms": round(gap_ms, 3),
    }


def show(console: Console, report: Report) -> None:
    """The closing table, and what it means."""
    found = report.reconciliation
    table = Table(title="The session", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(report):
        table.add_row(name, value)
    console.print(table)
    for line in found.mismatches[:MISMATCHES_SHOWN_MAX]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if len(found.mismatches) > MISMATCHES_SHOWN_MAX:
        console.print(f"  … and {len(found.mismatches) - MISMATCHES_SHOWN_MAX} more (--json: all)")
    console.print(_verdict(report), soft_wrap=True, highlight=False)


def _rows(report: Report) -> list[tuple[str, str]]:
    found = report.reconciliation
    source = "from the file" if report.seed is None else f"generated, seed {report.seed}"
    rows = [
        ("orders", f"{report.orders:,} ({source})"),
        ("executed", f"{found.executed:,}"),
        ("rejected", f"{found.rejected:,}{_by_code(report.rejections)}"),
        ("lost", str(found.lost)),
        ("duplicated", str(found.duplicated)),
        ("failovers", f"{report.failovers}{_unprovoked(report)}"),
    ]
    rows += [
        (_name(each), _what(each, gap_ms))
        for each, gap_ms in zip(report.disruptions, report.gaps_ms, strict=True)
    ]
    rows += [
        ("booking", f"p50 {report.p50_ms:.1f} ms, p99 {report.p99_ms:.1f} ms (as callers saw it)"),
        ("quote", f"p50 {report.quote_p50_ms:.1f} ms, p99 {report.quote_p99_ms:.1f} ms"),
        ("throughput", f"{report.throughput_per_s:,.0f} orders/s in {report.duration_s:.1f} s"),
        (
            "accounts",
            f"{found.accounts_agreeing} of {found.accounts} agree with the independent ledger",
        ),
    ]
    if report.refused_rows:
        rows.append(("refused rows", f"{len(report.refused_rows)} (listed above)"))
    return rows


def _by_code(rejections: dict[str, int]) -> str:
    parts = [f"{count} {code.replace('_', ' ')}" for code, count in sorted(rejections.items())]
    return f" ({', '.join(parts)})" if parts else ""


def _unprovoked(report: Report) -> str:
    """A machine that is too busy looks to control like one that died; the figures must not hide it."""
    count = report.failovers - len(report.disruptions)
    if count <= 0:
        return ""
    return f" ({count} not provoked: an instance was silent for too long on a busy machine)"


def _name(disruption: Disruption) -> str:
    return "  kill -9" if disruption.strike is Strike.KILL else "  zombie"


def _what(disruption: Disruption, gap_ms: float) -> str:
    return (
        f"{disruption.victim} after {disruption.orders_done:,} orders; {disruption.successor} took "
        f"over; a caller waited {gap_ms:.0f} ms at most"
    )


def _verdict(report: Report) -> str:
    if not report.reconciliation.reconciled:
        return "[bold red]NOT RECONCILED[/]: what happened is not what the orders say; see above."
    return (
        "[bold green]RECONCILED[/]: every accepted request has exactly one outcome in the journal, "
        "and every account holds\nto the cent and share what a ledger kept apart, from the orders "
        "alone, says it must hold."
    )
