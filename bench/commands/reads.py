"""What a read costs: at the active, beside a core NATS request and its reply, and beside the same question as a call."""

from __future__ import annotations

import argparse
from typing import Any

from bench import targets
from bench.block import Block
from bench.document import make_document
from bench.options import Options
from bench.runner import Part, run_side_by_side
from bench.workload import account_names

HELP = "reads beside core NATS, and beside calls that ask the same"
IN_ALL = 0
ACCOUNTS = 16
SYSTEMS = (targets.READING, targets.BARE, "aegis")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def parts(*, quick: bool) -> list[Part]:
    """Short blocks and many of them: what others do on the machine then meets all systems alike."""
    duration_s, repeats = (0.5, 6) if quick else (1.0, 12)
    return [
        Part(Block("reads", "closed", duration_s, in_flight, spread="even"), repeats)
        for in_flight in (1, targets.IN_FLIGHT)
    ]


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    accounts = account_names(ACCOUNTS)
    beds = [options.bed(name, accounts) for name in options.systems or SYSTEMS]
    results = await run_side_by_side(
        beds,
        parts(quick=options.quick),
        warm_up_s=0.5 if options.quick else 1.5,
        seed=options.seed,
    )
    return make_document("reads", options, results, targets.reads(results.rows))
