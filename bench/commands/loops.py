"""uvloop beside asyncio: the same calls on both event loops, block by block in turns."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from bench.block import Block
from bench.document import make_document
from bench.options import Options
from bench.runner import Part, run_side_by_side
from bench.targets import IN_FLIGHT
from bench.workload import account_names

HELP = "what uvloop gains over asyncio"
IN_ALL = 7
ACCOUNTS = 16
ON_ASYNCIO = "aegis-on-asyncio"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own; `--loop` is what this command varies itself."""


def parts(*, quick: bool) -> list[Part]:
    duration_s, repeats = (0.5, 4) if quick else (1.0, 6)
    one = Block("targeted", "closed", duration_s, spread="even")
    many = Block("targeted", "closed", duration_s, IN_FLIGHT, spread="even")
    return [Part(one, repeats), Part(many, repeats)]


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    accounts = account_names(ACCOUNTS)
    beds = [
        replace(options.bed("aegis", accounts), loop="uvloop"),
        replace(options.bed(ON_ASYNCIO, accounts), loop="asyncio"),
    ]
    results = await run_side_by_side(
        beds, parts(quick=options.quick), warm_up_s=1.0, seed=options.seed
    )
    return make_document("loops", options, results, [])
