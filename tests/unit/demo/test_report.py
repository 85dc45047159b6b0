"""The result: what programs read, what people read, and the exit code."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from aegis_demo.disruption import Disruption, Strike
from aegis_demo.events import Finished, Traded
from aegis_demo.market import GENERATED
from aegis_demo.order_file import RefusedRow
from aegis_demo.reconcile import Evidence, Reconciliation
from aegis_demo.report import Report, as_json, make_report, percentile, show
from aegis_demo.session import Run
from rich.console import Console

GOOD = Reconciliation(2, 1, 0, 0, 1, 1, [])
BAD = Reconciliation(2, 0, 1, 0, 1, 0, ["O-3: the caller was told nothing"])


def traded(booking_ms: float, outcome: str = "executed", code: str = "") -> Traded:
    return Traded(
        order_id="O",
        request_id="a.1",
        outcome=outcome,
        code=code,
        started_s=10.0,
        booking_s=booking_ms / 1e3,
        quote_s=0.001,
    )


def report(found: Reconciliation = GOOD, refused: tuple[RefusedRow, ...] = ()) -> Report:
    run = Run(
        trades=[traded(2.0), traded(40.0), traded(3.0, "rejected", "insufficient_cash")],
        evidence=Evidence([], [], [], {}),
        finished=Finished(session_s=1.5, held_s=0.5),
        disruptions=[Disruption(Strike.KILL, "accounts-1", 7, 1, 10.0, "accounts-2", 10.02)],
        failovers=1,
    )
    return make_report(run, found, orders=3, seed=5, market=GENERATED, refused_rows=refused)


def shown(of: Report) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(console, of)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_json_is_one_object_on_one_line_with_all_that_matters() -> None:
    text = as_json(report())
    result = json.loads(text)
    assert "\n" not in text
    expected = {
        "orders": 3,
        "executed": 2,
        "rejected": 1,
        "lost": 0,
        "duplicated": 0,
        "failovers": 1,
        "failover_gap_ms": 40.0,
        "p50_ms": 3.0,
        "p99_ms": 40.0,
        "throughput_per_s": 2.0,
        "reconciled": True,
        "seed": 5,
        "mismatches": [],
        "opening_cash": "150000",
        "position_max": "1500",
        "rejections": {"insufficient_cash": 1},
    }
    assert {key: result[key] for key in expected} == expected


def test_only_a_reconciled_session_ends_with_0() -> None:
    assert report(GOOD).exit_code == 0
    assert report(BAD).exit_code == 1


def test_a_refused_row_ends_with_5_while_the_rest_reconciles() -> None:
    result = report(GOOD, (RefusedRow(3, "time is empty"),))
    assert result.exit_code == 5
    assert json.loads(as_json(result))["reconciled"] is True
    assert json.loads(as_json(result))["closing"] == "reconciled_in_part"
    assert "RECONCILED IN PART: 1 of 4 rows were refused" in shown(result)
    assert json.loads(as_json(result))["refused_rows"] == [{"line": 3, "reason": "time is empty"}]


def test_the_table_tells_what_happened() -> None:
    text = shown(report())
    assert "accounts-1 after 1 orders; accounts-2 took over; a caller waited 40 ms at most" in text
    assert "1 (1 insufficient cash)" in text
    assert "each account opens with 150,000 and may hold 1,500 of a symbol" in text
    assert "RECONCILED" in text
    assert "NOT RECONCILED" not in text


def test_a_failover_that_nobody_provoked_is_not_hidden() -> None:
    assert "not provoked" not in shown(report())
    assert "2 (1 not provoked" in shown(replace(report(), failovers=2))


def test_the_table_shows_what_does_not_agree() -> None:
    text = shown(report(BAD))
    assert "NOT RECONCILED" in text
    assert "O-3: the caller was told nothing" in text


@pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)])
def test_a_percentile_is_one_of_the_values(percent: int, expected: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == expected


def test_a_percentile_of_nothing_is_none_and_shown_as_a_dash() -> None:
    assert percentile([], 99) is None
    nothing = replace(report(), quote_p50_ms=None, quote_p99_ms=None)
    assert "p50 –, p99 –" in shown(nothing)
    assert json.loads(as_json(nothing))["quote_p99_ms"] is None


def test_a_file_that_is_mostly_refused_does_not_close_with_reconciled() -> None:
    """Four orders of three thousand say nothing about the file."""
    result = report(GOOD, tuple(RefusedRow(n, "time is empty") for n in range(2_997)))
    assert result.exit_code == 5
    assert "MOSTLY REFUSED: 2,997 of 3,000 rows" in shown(result)
    assert "RECONCILED" not in shown(result)
    found = json.loads(as_json(result))
    assert (found["reconciled"], found["closing"]) == (False, "mostly_refused")


def test_an_error_outweighs_refused_rows() -> None:
    assert report(BAD, (RefusedRow(3, "time is empty"),)).exit_code == 1


def test_an_accounts_name_can_not_move_the_cursor() -> None:
    wild = replace(BAD, mismatches=["A\x1b[2J: gave no closing statement"])
    assert "A\\x1b[2J: gave" in shown(report(wild))
