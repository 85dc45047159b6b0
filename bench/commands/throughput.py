"""How many calls a second, by calls in flight, and what a call costs in CPU."""

from __future__ import annotations

import argparse
from typing import Any

from bench import targets
from bench.block import Block
from bench.document import make_document
from bench.options import Options
from bench.runner import Part, run_side_by_side
from bench.systems import SYSTEM_NAMES
from bench.workload import account_names

HELP = "calls a second by calls in flight, and CPU a call"
IN_ALL = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resources", type=int, default=16, help="accounts (default: 16)")
    parser.add_argument("--callers", type=int, default=1, help="caller processes (default: 1)")
    parser.add_argument("--instances", type=int, default=1, help="instances (default: 1)")


def parts(*, quick: bool) -> list[Part]:
    in_flight = (64,) if quick else (1, 4, 16, 64, 256)
    duration_s = 0.8 if quick else 3.0
    repeats = 3 if quick else 5
    blocks = [
        Block("targeted", "closed", duration_s, in_flight=n, spread="even") for n in in_flight
    ]
    blocks.append(Block("group", "closed", duration_s, in_flight=64, spread="even"))
    if not quick:
        blocks.append(Block("mix", "closed", duration_s, in_flight=64, spread="zipf"))
    return [Part(block, repeats) for block in blocks]


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    beds = [
        options.bed(
            name,
            account_names(parsed.resources),
            callers=parsed.callers,
            instances=parsed.instances,
        )
        for name in options.systems or SYSTEM_NAMES
    ]
    results = await run_side_by_side(
        beds,
        parts(quick=options.quick),
        warm_up_s=0.5 if options.quick else 3.0,
        seed=options.seed,
    )
    return make_document("throughput", options, results, targets.throughput(results.rows))
