"""All resources of one dead instance: how long until each is served again.

Each resource is called once from `kill -9` on. The time is that to the last reply.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from bench import targets
from bench.document import make_document
from bench.failover.gap import steps_ms
from bench.failover.run import run_many
from bench.ledger import Verdict
from bench.options import Options
from bench.runner import Results, say

HELP = "kill -9 to the last reply, by number of resources"
IN_ALL = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resources", type=int, nargs="+", default=[1_000, 5_000, 10_000], help="numbers of them"
    )
    parser.add_argument("--count", type=int, help="failovers of each (default: 5; quick: 1)")


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    """Raises: BedError."""
    count = parsed.count or (1 if options.quick else 5)
    losses: dict[str, Verdict | None] = {}
    times: list[dict[str, Any]] = []
    for resources in parsed.resources:
        found = await run_many(resources, count, options)
        losses[f"{resources}"] = found.verdict
        gaps_s = sorted(found.gaps_s)
        times.append(
            {
                "resources": resources,
                "median_s": round(median(gaps_s), 3),
                "all_s": [round(gap_s, 3) for gap_s in gaps_s],
                "steps_ms": steps_ms(found.steps_s),
            }
        )
        say(f"{resources:,}: {times[-1]['median_s']} s (median of {len(gaps_s)})")
    return make_document(
        "many",
        options,
        Results(losses={name: each for name, each in losses.items() if each is not None}),
        targets.many({each["resources"]: each["median_s"] for each in times}),
        many=times,
    )
