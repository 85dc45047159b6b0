"""Rows, targets, report and command line: what a run shows, and when it fails."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from bench import cli, targets
from bench.bed import Measured
from bench.block import Block, Told
from bench.commands import commands
from bench.commands.soak import plan_for
from bench.document import Document, make_document
from bench.latencies import Latencies
from bench.ledger import Ledger, Verdict
from bench.machine import Noise
from bench.options import Options
from bench.report import markdown, write_report
from bench.rows import compare, make_row
from bench.runner import Results

CLEAN = Verdict(10, 10, 0, 0, 0, 0, 0, 0)
LOSSY = Verdict(10, 9, 0, 1, 0, 0, 0, 0)
SEQUENTIAL = Block("targeted", "closed", 1.0)
OFFERED = Block("mix", "open", 1.0, rate_per_s=500.0)


def measured(system: str, ms: float, block: Block = SEQUENTIAL) -> Measured:
    latencies = Latencies.of([ms / 1e3] * 100)
    told = Told(latencies, Latencies(), Ledger(sent=100, ok=100), elapsed_s=0.5)
    cpu_s = {"caller": 0.01, "instance": 0.02, "server": 0.01, "control": 0.0}
    return Measured(system, block, told, cpu_s, Noise(0.5, Latencies.of([0.0001])))


def document(verdict: Verdict = CLEAN) -> Document:
    rows = [
        make_row([measured(system, ms, block) for ms in (1.0, 2.0, 3.0)])
        for block in (SEQUENTIAL, OFFERED)
        for system in ("jetstream-durable", "jetstream-light")
    ]
    results = Results(rows, {"jetstream-durable": verdict})
    return make_document("latency", Options(seed=9, quick=True), results, [])


def test_a_row_has_the_median_of_the_repeats_and_their_spread() -> None:
    row = make_row([measured("aegis", ms) for ms in (1.0, 9.0, 2.0)])

    p50 = row["latency_ms"]["p50"]
    assert p50["median"] == pytest.approx(2.0, rel=0.01)
    assert p50["min"] == pytest.approx(1.0, rel=0.01)
    assert p50["max"] == pytest.approx(9.0, rel=0.01)
    assert row["throughput_per_s"]["median"] == 200
    assert row["cpu_us_per_call"]["total"] == pytest.approx(400)
    assert row["calls"] == 300


def test_the_subject_is_compared_with_each_rival_of_the_same_scenario() -> None:
    rows = [make_row([measured("aegis", 3.0)]), make_row([measured("core-nats", 1.0)])]
    rows.append(make_row([measured("core-nats", 1.0, OFFERED)]))

    (only,) = compare(rows)

    assert only["rival"] == "core-nats"
    assert only["p50_times"] == pytest.approx(3.0, rel=0.01)


def test_a_lossy_run_fails_however_fast_it_was() -> None:
    assert document()["passed"]
    assert not document(LOSSY)["passed"]


def test_a_slow_run_misses_its_target_but_passes() -> None:
    rows = [make_row([measured("aegis", 50.0)]), make_row([measured("aegis", 1.0, OFFERED)])]

    met = [target.met for target in targets.latency(rows)]

    assert met == [False, True]


def test_the_report_has_table_plots_and_the_command_to_repeat(tmp_path: Path) -> None:
    write_report(document(), tmp_path)

    text = (tmp_path / "latency.md").read_text()
    assert "python -m bench latency --seed 9 --quick" in text
    assert "jetstream-durable" in text
    assert json.loads((tmp_path / "latency.json").read_text())["seed"] == 9
    plots = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert plots == ["latency-by-rate.svg", "latency-sequential.svg"]
    assert all(name in text for name in plots)


def test_the_table_shows_losses() -> None:
    assert "FAILED" in markdown(document(LOSSY))


def test_every_command_has_what_the_registry_needs() -> None:
    found = commands()

    assert {"latency", "throughput", "scale", "soak", "all"} <= found.keys()
    for command in found.values():
        assert command.HELP
        assert command.IN_ALL >= 0
        command.add_arguments(argparse.ArgumentParser())


def test_every_command_takes_the_shared_options() -> None:
    for name in commands():
        parsed = cli.parser().parse_args([name, "--quick", "--json", "--seed", "4"])

        assert Options.of(parsed) == Options(quick=True, json=True, seed=4)


def test_an_unknown_system_is_a_usage_error() -> None:
    with pytest.raises(SystemExit, match="unknown system: nope"):
        Options.of(cli.parser().parse_args(["latency", "--systems", "nope"]))


def test_a_soak_has_at_least_two_days_and_ends_in_time() -> None:
    for minutes in (0.5, 5, 30, 240):
        plan = plan_for(minutes, 400.0)
        blocks = plan.blocks(1)

        assert plan.days >= 2
        assert sum(block.duration_s for block in blocks) == pytest.approx(minutes * 60)
        mean = sum(block.rate_per_s for block in blocks) / len(blocks)
        assert mean == pytest.approx(400, rel=0.25)
