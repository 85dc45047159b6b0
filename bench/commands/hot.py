"""What one hot resource can take, with pure handlers and with ones that wait, block by block in turns.

Any number of pure ones share a turn; those that wait are run one after the other, each on stored state.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench import targets
from bench.block import Block
from bench.document import make_document
from bench.options import Options
from bench.rows import find_rows
from bench.runner import Part, run_side_by_side
from bench.workload import account_names

HELP = "what pure handlers bring to one hot resource"
IN_ALL = 0
ACCOUNTS = 16
SYSTEMS = ("aegis", targets.WAITING)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def parts(*, quick: bool) -> list[Part]:
    duration_s, repeats = (0.8, 4) if quick else (2.0, 10)
    hot = account_names(1)[0]
    return [
        Part(Block("targeted", "closed", duration_s, in_flight, account=hot), repeats)
        for in_flight in (1, 4, 16, targets.IN_FLIGHT)
    ]


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    beds = [options.bed(name, account_names(ACCOUNTS)) for name in SYSTEMS]
    results = await run_side_by_side(
        beds,
        parts(quick=options.quick),
        warm_up_s=0.5 if options.quick else 1.5,
        seed=options.seed,
    )
    crowd = find_rows(results.rows, in_flight=targets.IN_FLIGHT)
    wanted = targets.bounds(nodes=options.nodes, sync=options.sync)
    return make_document("hot", options, results, targets.hot_rate(crowd, wanted))
