"""Rows, targets, report and command line: what a run shows, and when it fails."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench import cli, targets
from bench.bed import Measured
from bench.block import Block, Told
from bench.commands import commands
from bench.commands.scale import Point, ends_first, points
from bench.commands.soak import MEMORY_GROWTH_MIB_MAX, plan_for, steady
from bench.commands.throughput import half_of_highest
from bench.document import Document, make_document
from bench.failover.gap import steps_ms, summary_ms
from bench.latencies import Latencies
from bench.ledger import Ledger, Verdict
from bench.machine import Noise
from bench.memory import growth
from bench.options import REPORT, SHORT_REPORT, Options
from bench.report import ORDER, markdown, write_report
from bench.rows import Row, compare, make_row
from bench.runner import Results
from bench.targets import Target

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


def made(system: str, block: Block, **figures: float) -> Row:
    """A row with these medians."""
    row = make_row([measured(system, 1.0, block)])
    row["throughput_per_s"]["median"] = figures.get("per_s", 100.0)
    row["cpu_us_per_call"]["total"] = figures.get("cpu_us", 100.0)
    row["latency_ms"]["p50"]["median"] = figures.get("p50_ms", 1.0)
    return row


def test_alone_its_time_is_held_against_the_rivals() -> None:
    theirs = made(targets.RIVAL, SEQUENTIAL)

    for p50_ms, met in ((0.66, False), (0.64, True)):
        mine = made("aegis", SEQUENTIAL, p50_ms=p50_ms)
        (only,) = targets.alone([mine, theirs], targets.ONE_NODE)
        assert only.met is met


def test_a_target_against_a_rival_that_was_not_measured_is_not_claimed() -> None:
    assert targets.alone([made("aegis", SEQUENTIAL)], targets.ONE_NODE) == []


def test_handlers_that_wait_need_more_throughput_than_the_rival_and_less_cpu() -> None:
    crowd = Block("targeted", "closed", 1.0, in_flight=64)
    theirs = made(targets.RIVAL, crowd)
    slow = made(targets.WAITING, crowd, per_s=179.0, cpu_us=59.0)
    dear = made(targets.WAITING, crowd, per_s=181.0, cpu_us=61.0)

    for mine, met in ((slow, [False, True]), (dear, [True, False])):
        found = targets.throughput([mine, theirs], targets.ONE_NODE)
        assert [target.met for target in found] == met


def test_the_hot_resource_is_no_row_of_the_crowd() -> None:
    hot = Block("targeted", "closed", 1.0, in_flight=64, account="ACC-0000")
    rows = [made("aegis", hot, per_s=99.0), made(targets.RIVAL, hot)]

    (only,) = targets.throughput(rows, targets.ONE_NODE)
    assert only.name.startswith("one hot resource")
    assert not only.met
    (only,) = targets.throughput(rows, targets.ALWAYS_SYNCED)
    assert only.measured == "99/s"


def test_a_runs_settings_choose_its_bounds() -> None:
    assert targets.bounds(nodes=1, sync=None) is targets.ONE_NODE
    assert targets.bounds(nodes=1, sync="always") is targets.ALWAYS_SYNCED
    assert targets.bounds(nodes=3, sync=None) is targets.THREE_NODES


def test_many_resources_have_bounds_by_their_number() -> None:
    found = targets.many({1_000: 0.19, 5_000: 0.61, 7: 99.0})

    assert [target.met for target in found] == [True, False]


def test_flat_compares_the_ends_of_an_axis_at_a_fixed_rate() -> None:
    rows = [
        make_row([measured("aegis", ms, OFFERED)]) | {"axis": {"resources": count}}
        for count, ms in ((100, 9.0), (10_000, 1.3), (1, 1.0))
    ]

    (only,) = targets.flat(rows)

    assert not only.met
    assert only.measured.startswith("1.30 x")
    assert targets.flat(rows[1:2]) == []


def test_half_of_the_highest_throughput_is_offered_in_both_modes() -> None:
    rows = []
    group = Block("group", "closed", 1.0, in_flight=64)
    for block, rate in ((SEQUENTIAL, 3000.0), (SEQUENTIAL, 2000.0), (group, 1000.0)):
        row = make_row([measured("aegis", 1.0, block)])
        row["throughput_per_s"]["median"] = rate
        rows.append(row)
    faster_rival = make_row([measured("zmq", 1.0, Block("targeted", "closed", 1.0))])
    faster_rival["throughput_per_s"]["median"] = 90_000.0

    offered = [part.block for part in half_of_highest([*rows, faster_rival], quick=True)]

    assert [(block.mix, block.mode, block.rate_per_s) for block in offered] == [
        ("targeted", "open", 1500.0),
        ("group", "open", 500.0),
    ]


def test_each_kind_of_failover_has_its_own_bounds() -> None:
    gaps: dict[str, dict[str, float]] = {
        "kill": {"p50": 18.0, "p99": 35.0},
        "pause": {"p50": 600.0, "p99": 1201.0},
        "many": {},
    }

    assert [(target.name, target.met) for target in targets.failover(gaps)] == [
        ("gap of kill, p50", False),
        ("gap of kill, p99", True),
        ("gap of pause, p99", False),
    ]


def test_memory_is_the_growth_between_the_ends_of_an_axis() -> None:
    def end(count: int, instance_mib: float) -> dict[str, Any]:
        mib = {"instance": instance_mib, "control": 50.0}
        processes = {"instance": 1, "control": 1}
        return {"system": "aegis", "axis": {"resources": count}, "mib": mib, "processes": processes}

    rival = end(1, 999.0) | {"system": targets.RIVAL}
    (only,) = growth([end(1, 40.0), end(10, 99.0), end(1001, 41.0), rival])

    assert only["bytes_each"] == {"instance": round(2**20 / 1000), "control": 0}
    assert only["mib_a_process"] == {"instance": 41.0, "control": 50.0}


def failover_document(verdict: Verdict = CLEAN) -> Document:
    gaps_s = [0.01, 0.015, 0.03]
    shown: dict[str, Any] = {
        "count": 3,
        "gap_ms": summary_ms(gaps_s),
        "gaps_ms": [gap * 1e3 for gap in gaps_s],
        "steps_ms": steps_ms([{"control decides": 0.004}, {"control decides": 0.006}, {}]),
    }
    return make_document(
        "failover",
        Options(),
        Results(losses={"kill": verdict}),
        targets.failover({"kill": shown["gap_ms"]}),
        failovers={"kill": shown},
    )


def test_the_failovers_report_has_gaps_steps_and_a_plot(tmp_path: Path) -> None:
    write_report(failover_document(), tmp_path)

    text = (tmp_path / "failover.md").read_text()
    assert "| kill | 3 | 15.00 | 30.00 | 30.00 | 30.00 |" in text
    assert "| kill | control decides | 4.00 | 6.00 | 2 |" in text
    assert "failover-gaps.svg" in text


def test_a_plot_that_this_run_did_not_draw_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "failover-of-old.svg").write_text("")

    write_report(failover_document(), tmp_path)

    assert [path.name for path in tmp_path.glob("*.svg")] == ["failover-gaps.svg"]


def test_a_failover_that_lost_a_call_fails_the_run() -> None:
    assert failover_document()["passed"]
    assert not failover_document(LOSSY)["passed"]


def test_one_page_shows_all_results_of_the_folder_with_what_was_missed(tmp_path: Path) -> None:
    write_report(failover_document(), tmp_path)
    write_report(
        document() | {"targets": [asdict(Target("speed", "< 1", "2", met=False))]}, tmp_path
    )
    (tmp_path / "chaos.json").write_text('{"command": "chaos"}')

    page = (tmp_path / "report.md").read_text()

    assert "3 of 4 targets met, 1 missed" in page
    assert "| latency | speed | < 1 | 2 | **MISSED** |" in page
    assert page.index("## latency") < page.index("## failover")
    assert "python -m bench latency --seed 9 --quick" in page
    assert "(latency-by-rate.svg)" in page
    assert "(failover-gaps.svg)" in page


def test_the_commands_of_all_have_their_place_in_the_report() -> None:
    places = [command.IN_ALL for command in commands().values() if command.IN_ALL]
    taking_part = {name for name, command in commands().items() if command.IN_ALL}

    assert taking_part == set(ORDER)
    assert sorted(places) == list(range(1, len(ORDER) + 1)), "no two at one place"


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

    assert {"latency", "throughput", "scale", "soak", "failover", "payload", "all"} <= found.keys()
    for command in found.values():
        assert command.HELP
        command.add_arguments(argparse.ArgumentParser())


def test_every_command_takes_the_shared_options() -> None:
    for name in commands():
        parsed = cli.parser().parse_args([name, "--quick", "--json", "--seed", "4"])

        expected = Options(quick=True, json=True, seed=4, report=SHORT_REPORT)
        assert cli.options_of(parsed) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["latency", "--systems", "nope"],
        ["failover", "--kinds", "kill,nope"],
        ["chaos", "--faults", "nope"],
        ["chaos", "--workloads", "nope"],
    ],
)
def test_an_unknown_name_is_a_usage_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Not 1, which says that something was lost."""
    with pytest.raises(SystemExit) as raised:
        cli.parser().parse_args(words)
    assert raised.value.code == 2
    assert "unknown: nope; use " in capsys.readouterr().err


def test_a_soak_has_at_least_two_days_and_ends_in_time() -> None:
    for minutes in (0.5, 5, 30, 240):
        plan = plan_for(minutes, 400.0)
        blocks = plan.blocks(1)

        assert plan.days >= 2
        assert sum(block.duration_s for block in blocks) == pytest.approx(minutes * 60)
        mean = sum(block.rate_per_s for block in blocks) / len(blocks)
        assert mean == pytest.approx(400, rel=0.25)


@pytest.mark.parametrize(
    ("part", "met"), [("instance", False), ("caller", False), ("server", True)]
)
def test_a_soak_judges_what_the_sdk_keeps_and_shows_what_the_server_holds(
    part: str, met: bool
) -> None:
    parts = dict.fromkeys(("caller", "instance", "server", "control"), 50.0)
    grown = parts | {part: 50.0 + MEMORY_GROWTH_MIB_MAX}
    samples = [{"p99_ms": 1.0, "memory_mib": mib} for mib in (parts, parts, grown)]

    p99, memory = steady("aegis", samples, per_part=1)

    assert (p99.met, memory.met) == (True, met)
    assert f"{part} +64" in memory.measured


def test_what_a_target_compares_is_measured_one_after_the_other() -> None:
    """A machine's speed drifts in minutes."""
    order = ends_first(points(["resources", "callers"], quick=False))
    resources = [Point("resources", count) for count in (1, 10_000, 10, 100, 1000)]
    assert order == [*resources, *(Point("callers", count) for count in (1, 50, 10))]
    assert ends_first([Point("callers", 1)]) == [Point("callers", 1)]


@pytest.mark.parametrize(
    "words",
    ["latency --quick", "soak --minutes 1", "failover --count 3", "latency --systems aegis"],
)
def test_a_run_that_was_shortened_leaves_the_committed_report_alone(words: str) -> None:
    assert cli.options_of(cli.parser().parse_args(words.split())).report == SHORT_REPORT


@pytest.mark.parametrize("words", ["all", "latency", "soak --seed 3", "failover --loop asyncio"])
def test_a_whole_run_writes_the_report(words: str) -> None:
    assert cli.options_of(cli.parser().parse_args(words.split())).report == REPORT


def test_a_folder_that_is_named_is_taken(tmp_path: Path) -> None:
    parsed = cli.parser().parse_args(["soak", "--minutes", "30", "--report", str(tmp_path)])
    assert cli.options_of(parsed).report == tmp_path
