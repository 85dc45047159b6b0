"""How many calls a second, by calls in flight, and what a call costs in CPU."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from bench import targets
from bench.bed import BedSettings
from bench.block import Block
from bench.document import make_document
from bench.options import Options
from bench.rows import Row, find_rows
from bench.runner import Part, Results, run_side_by_side
from bench.systems import ALL_NAMES, SYSTEM_NAMES
from bench.targets import CROWD, IN_FLIGHT, RIVAL, WAITING
from bench.workload import account_names

HELP = "calls a second by calls in flight, and CPU a call"
IN_ALL = 2
PAIR = ("aegis", RIVAL)
TRIO = (*PAIR, WAITING)
SYSTEMS = (*SYSTEM_NAMES, WAITING)
ALL_BUT_WAITING = tuple(name for name in ALL_NAMES if name != WAITING)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resources", type=int, default=16, help="accounts (default: 16)")
    parser.add_argument("--callers", type=int, default=1, help="caller processes (default: 1)")
    parser.add_argument("--instances", type=int, default=1, help="instances (default: 1)")


def parts(*, quick: bool) -> list[Part]:
    in_flight = (64,) if quick else (1, 4, 16, IN_FLIGHT, CROWD)
    duration_s = 0.8 if quick else 1.0
    repeats = 3
    blocks = [
        Block("targeted", "closed", duration_s, in_flight=n, spread="even") for n in in_flight
    ]
    blocks.append(Block("group", "closed", duration_s, in_flight=IN_FLIGHT, spread="even"))
    blocks.append(Block("mix", "closed", duration_s, in_flight=IN_FLIGHT, spread="zipf"))
    hot = Block("targeted", "closed", duration_s, in_flight=IN_FLIGHT, account=account_names(1)[0])
    return [*(Part(block, repeats, _of(block)) for block in blocks), Part(hot, repeats, TRIO)]


def _of(block: Block) -> tuple[str, ...]:
    """Handlers that wait take part where that is asked, and the others everywhere."""
    with_waiting = block.mix == "targeted" and block.in_flight == IN_FLIGHT
    return SYSTEMS if with_waiting else ALL_BUT_WAITING


def half_of_highest(rows: Sequence[Row], *, quick: bool) -> list[Part]:
    """Open loop at half of the subject's highest throughput, for each mode that was measured."""
    parts = []
    for mix in ("targeted", "group"):
        found = [row for row in find_rows(rows, system="aegis", mix=mix) if not row["account"]]
        if found:
            rate = max(row["throughput_per_s"]["median"] for row in found) / 2
            block = Block(
                mix, "open", 1.0 if quick else 2.0, rate_per_s=round(rate, -1), spread="even"
            )
            parts.append(Part(block, 2 if quick else 5))
    return parts


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    beds = [
        options.bed(
            name,
            account_names(parsed.resources),
            callers=parsed.callers,
            instances=parsed.instances,
        )
        for name in options.systems or SYSTEMS
    ]
    results = await run_side_by_side(
        beds,
        parts(quick=options.quick),
        warm_up_s=0.5 if options.quick else 1.5,
        seed=options.seed,
    )
    wanted = targets.bounds(nodes=options.nodes, sync=options.sync)
    found = targets.alone(results.rows, wanted) + targets.throughput(results.rows, wanted)
    half = await _half_load(beds, results.rows, options)
    results.extend(half, load="half of the highest")
    found += targets.half_load(half.rows)
    return make_document("throughput", options, results, found)


async def _half_load(beds: Sequence[BedSettings], rows: Sequence[Row], options: Options) -> Results:
    parts = half_of_highest(rows, quick=options.quick)
    pair = [each for each in beds if each.system in PAIR]
    if not parts:
        return Results()
    return await run_side_by_side(pair, parts, warm_up_s=1.0, seed=options.seed)
