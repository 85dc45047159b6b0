"""All resources of one dead instance: how long until each is served again, in both forms of the protocol.

Each resource is called once from `kill -9` on. The time is that to the last reply. The product is in the first form; the second
one is being built beside it (docs/protocol.md).
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any, Final

from bench.bed import BedError
from bench.document import make_document
from bench.failover.gap import steps_ms
from bench.failover.run import run_many
from bench.ledger import Verdict
from bench.options import Options, listed
from bench.runner import Results, say

HELP = "kill -9 to the last reply, by number of resources, in both forms of the protocol"
IN_ALL = 0
FORMS: Final = {"first": "aegis", "second": "aegis-turns-with-control"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resources", type=int, nargs="+", default=[1_000, 5_000, 10_000], help="numbers of them"
    )
    parser.add_argument("--count", type=int, help="failovers of each (default: 5; quick: 1)")
    parser.add_argument(
        "--forms", type=listed(FORMS), default=list(FORMS), help="first,second (default: both)"
    )


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    """Raises: BedError."""
    count = parsed.count or (1 if options.quick else 5)
    losses: dict[str, Verdict | None] = {}
    times: list[dict[str, Any]] = []
    for resources in parsed.resources:
        for form in parsed.forms:
            name = f"{form}-{resources}"
            try:
                found = await run_many(resources, count, options, system=FORMS[form])
            except BedError as error:
                say(f"{name}: {error}")
                continue
            losses[name] = found.verdict
            gaps_s = sorted(found.gaps_s)
            times.append(
                {
                    "resources": resources,
                    "form": form,
                    "median_s": round(median(gaps_s), 3),
                    "all_s": [round(gap_s, 3) for gap_s in gaps_s],
                    "steps_ms": steps_ms(found.steps_s),
                }
            )
            say(f"{name}: {times[-1]['median_s']} s (median of {len(gaps_s)})")
    return make_document(
        "many",
        options,
        Results(losses={name: each for name, each in losses.items() if each is not None}),
        [],
        many=times,
    )
