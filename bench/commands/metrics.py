"""What the SDK's metrics cost: the same calls with and without them, block by block in turns."""

from __future__ import annotations

import argparse
from typing import Any

from bench.block import Block
from bench.document import make_document
from bench.options import Options
from bench.runner import Part, run_side_by_side
from bench.workload import account_names

HELP = "what the SDK's metrics cost a call"
IN_ALL = 0
ACCOUNTS = 64
IN_FLIGHT = 64
SYSTEMS = ("aegis", "aegis-without-metrics")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def parts(*, quick: bool) -> list[Part]:
    """Many short blocks: the difference is small beside what else happens on a machine."""
    duration_s, repeats = (0.5, 10) if quick else (2.0, 20)
    one = Block("targeted", "closed", duration_s, spread="even")
    many = Block("targeted", "closed", duration_s, IN_FLIGHT, spread="even")
    return [Part(one, repeats), Part(many, repeats)]


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    accounts = account_names(ACCOUNTS)
    beds = [options.bed(name, accounts) for name in SYSTEMS]
    results = await run_side_by_side(
        beds,
        parts(quick=options.quick),
        warm_up_s=0.4 if options.quick else 3.0,
        seed=options.seed,
    )
    return make_document("metrics", options, results, [])
