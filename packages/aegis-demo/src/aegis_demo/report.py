"""The session's result: one JSON object for programs, one closing table for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rich.console import Console
from rich.table import Table

from aegis_demo.amounts import plain
from aegis_demo.disruption import Disruption, Strike, longest_wait_s
from aegis_demo.market import Market
from aegis_demo.order_file import RefusedRow
from aegis_demo.reconcile import MISMATCHES_SHOWN_MAX, Reconciliation
from aegis_demo.session import Run


class Closing(StrEnum):
    """The word that a session ends with."""

    RECONCILED = "reconciled"
    RECONCILED_IN_PART = "reconciled_in_part"
    """All that was traded; some rows of the file were refused."""
    MOSTLY_REFUSED = "mostly_refused"
    """What was traded reconciles, and says little about the file."""
    NOT_RECONCILED = "not_reconciled"


EXIT_CODES: Final = {
    Closing.RECONCILED: 0,
    Closing.RECONCILED_IN_PART: 5,
    Closing.MOSTLY_REFUSED: 5,
    Closing.NOT_RECONCILED: 1,
}
_NOTHING: Final = "–"


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of a session. Latencies are of bookings, as their caller saw them, in ms."""

    orders: int
    seed: int | None
    """None: the orders came from a file."""
    market: Market
    refused_rows: Sequence[RefusedRow]
    reconciliation: Reconciliation
    rejections: dict[str, int]
    """By code."""
    disruptions: Sequence[Disruption]
    gaps_ms: list[float]
    """For each disruption, the longest wait of a caller through it."""
    failovers: int
    p50_ms: float | None
    p99_ms: float | None
    quote_p50_ms: float | None
    """None: no order asked for a quote."""
    quote_p99_ms: float | None
    throughput_per_s: float
    duration_s: float
    held_s: float

    @property
    def closing(self) -> Closing:
        """What may honestly be said of the whole file, and not of its orders alone."""
        if not self.reconciliation.reconciled:
            return Closing.NOT_RECONCILED
        if len(self.refused_rows) > self.orders:
            return Closing.MOSTLY_REFUSED
        return Closing.RECONCILED_IN_PART if self.refused_rows else Closing.RECONCILED

    @property
    def exit_code(self) -> int:
        """0: nothing lost, nothing doubled, every account agrees, and no row was refused."""
        return EXIT_CODES[self.closing]


def make_report(
    run: Run,
    reconciliation: Reconciliation,
    *,
    orders: int,
    seed: int | None,
    market: Market,
    refused_rows: Sequence[RefusedRow],
) -> Report:
    """Put a session's figures together."""
    bookings = [trade.booking_s * 1e3 for trade in run.trades]
    quotes = [trade.quote_s * 1e3 for trade in run.trades if trade.quote_s is not None]
    session_s = run.finished.session_s
    return Report(
        orders=orders,
        seed=seed,
        market=market,
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


def percentile(values: Sequence[float], percent: int) -> float | None:
    """The smallest value that `percent` of all are not above; None of none."""
    if not values:
        return None
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
        "reconciled": report.closing in (Closing.RECONCILED, Closing.RECONCILED_IN_PART),
        "closing": report.closing.value,
        "accounts": found.accounts,
        "accounts_agreeing": found.accounts_agreeing,
        "failovers": report.failovers,
        "failover_gap_ms": round(max(report.gaps_ms, default=0.0), 3),
        "disruptions": [
            _disruption(each, gap_ms)
            for each, gap_ms in zip(report.disruptions, report.gaps_ms, strict=True)
        ],
        "p50_ms": _rounded(report.p50_ms),
        "p99_ms": _rounded(report.p99_ms),
        "quote_p50_ms": _rounded(report.quote_p50_ms),
        "quote_p99_ms": _rounded(report.quote_p99_ms),
        "throughput_per_s": round(report.throughput_per_s, 1),
        "duration_s": round(report.duration_s, 3),
        "held_s": round(report.held_s, 3),
        "seed": report.seed,
        "opening_cash": str(report.market.opening_cash),
        "position_max": str(report.market.position_max),
        "refused_rows": [{"line": row.line, "reason": row.reason} for row in report.refused_rows],
        "mismatches": found.mismatches,
    }
    return json.dumps(result)


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)


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
        console.print(f"  {_printable(line)}", markup=False, highlight=False, soft_wrap=True)
    if len(found.mismatches) > MISMATCHES_SHOWN_MAX:
        console.print(f"  … and {len(found.mismatches) - MISMATCHES_SHOWN_MAX} more (--json: all)")
    console.print(_verdict(report), soft_wrap=True, highlight=False)


def _printable(text: str) -> str:
    """An account's name may be any text, also what moves a terminal's cursor."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _rows(report: Report) -> list[tuple[str, str]]:
    found = report.reconciliation
    source = "from the file" if report.seed is None else f"generated, seed {report.seed}"
    rows = [
        ("orders", f"{report.orders:,} ({source})"),
        (
            "rules",
            f"each account opens with {plain(report.market.opening_cash)} and may hold "
            f"{plain(report.market.position_max)} of a symbol",
        ),
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
        ("booking", f"{_percentiles(report.p50_ms, report.p99_ms)} (as callers saw it)"),
        ("quote", _percentiles(report.quote_p50_ms, report.quote_p99_ms)),
        ("throughput", f"{report.throughput_per_s:,.0f} orders/s in {report.duration_s:.1f} s"),
        (
            "accounts",
            f"{found.accounts_agreeing} of {found.accounts} agree with the independent ledger",
        ),
    ]
    if report.refused_rows:
        rows.append(("refused rows", f"{_refused(report)} (listed above)"))
    return rows


def _percentiles(p50_ms: float | None, p99_ms: float | None) -> str:
    return f"p50 {_ms(p50_ms)}, p99 {_ms(p99_ms)}"


def _ms(ms: float | None) -> str:
    return _NOTHING if ms is None else f"{ms:.1f} ms"


def _refused(report: Report) -> str:
    return f"{len(report.refused_rows):,} of {len(report.refused_rows) + report.orders:,}"


def _by_code(rejections: dict[str, int]) -> str:
    parts = [f"{count} {code.replace('_', ' ')}" for code, count in sorted(rejections.items())]
    return f" ({', '.join(parts)})" if parts else ""


def _unprovoked(report: Report) -> str:
    """A machine that is too busy looks to control like one that died; the figures must not hide it."""
    count = report.failovers - sum(each.strike is not Strike.GROW for each in report.disruptions)
    if count <= 0:
        return ""
    return f" ({count} not provoked: an instance was silent for too long on a busy machine)"


def _name(disruption: Disruption) -> str:
    return {Strike.KILL: "  kill -9", Strike.PAUSE: "  zombie", Strike.GROW: "  joined"}[
        disruption.strike
    ]


def _what(disruption: Disruption, gap_ms: float) -> str:
    if disruption.strike is Strike.GROW:
        return (
            f"{disruption.victim} after {disruption.orders_done:,} orders; it got {disruption.successor}; "
            f"a caller waited {gap_ms:.0f} ms at most"
        )
    return (
        f"{disruption.victim} after {disruption.orders_done:,} orders; {disruption.successor} took "
        f"over; a caller waited {gap_ms:.0f} ms at most"
    )


def _verdict(report: Report) -> str:
    agreed = (
        "every accepted request has exactly one outcome in the journal, and every account holds\n"
        "exactly what a ledger kept apart, from the orders alone, says it must hold."
    )
    match report.closing:
        case Closing.RECONCILED:
            return f"[bold green]RECONCILED[/]: {agreed}"
        case Closing.RECONCILED_IN_PART:
            refused = f"{_refused(report)} rows were refused"
            return f"[bold yellow]RECONCILED IN PART[/]: {refused}; of the others, {agreed}"
        case Closing.MOSTLY_REFUSED:
            return (
                f"[bold red]MOSTLY REFUSED[/]: {_refused(report)} rows make no sense as orders (see "
                f"above).\nThe other {report.orders:,} agree with the ledger, which says little about "
                "the file."
            )
        case Closing.NOT_RECONCILED:
            return (
                "[bold red]NOT RECONCILED[/]: what happened is not what the orders say; see above."
            )
