"""How long a call takes: one at a time (closed loop), and at fixed offered rates (open loop)."""

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

HELP = "latency of single calls, and by offered rate"
IN_ALL = 1
ACCOUNTS = 64
ON_NATS = ("aegis", "jetstream-durable", "jetstream-light", "core-nats")
"""The others are measured by sequential calls alone; in a quick run by targeted ones."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rates", help="offered rates a second, comma-separated")


def parts(rates: list[float], *, quick: bool) -> list[Part]:
    """Short blocks and many of them: what others do on the machine then meets all systems alike."""
    repeats = 8
    duration_s = 0.25 if quick else 0.8
    few = ON_NATS if quick else None
    targeted = Block("targeted", "closed", duration_s, spread="even")
    group = Block("group", "closed", duration_s, spread="even")
    return [
        Part(targeted, repeats),
        Part(group, repeats // 2, few),
        *(Part(block, 2 if quick else 3, ON_NATS) for block in offered(rates, quick=quick)),
    ]


def offered(rates: list[float], *, quick: bool) -> list[Block]:
    """The trading mix at each rate, and a whole day at the rate in the middle."""
    duration_s = 0.8 if quick else 1.5
    blocks = [Block("mix", "open", duration_s, rate_per_s=rate) for rate in rates]
    if not quick:
        middle = rates[len(rates) // 2]
        blocks.append(Block("mix", "open", duration_s * 3, rate_per_s=middle, shape="day"))
    return blocks


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    rates = [float(rate) for rate in (parsed.rates or "").split(",") if rate]
    rates = rates or ([250, 1000] if options.quick else [100, 250, 500, 1000, 2000])
    accounts = account_names(ACCOUNTS)
    beds = [options.bed(name, accounts) for name in options.systems or SYSTEM_NAMES]
    results = await run_side_by_side(
        beds,
        parts(rates, quick=options.quick),
        warm_up_s=0.4 if options.quick else 1.5,
        seed=options.seed,
    )
    wanted = targets.bounds(nodes=options.nodes, sync=options.sync)
    return make_document("latency", options, results, targets.alone(results.rows, wanted))
