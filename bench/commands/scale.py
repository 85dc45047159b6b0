"""How throughput and latency change with resources, instances and callers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench.bed import BedSettings
from bench.block import Block
from bench.document import make_document
from bench.options import Options
from bench.runner import Part, Results, run_side_by_side, say
from bench.workload import account_names

HELP = "curves over resources, instances and callers"
IN_ALL = 3
DEFAULT_SYSTEMS = ("aegis", "jetstream-durable")
BASE = BedSettings("aegis", account_names(64))
IN_FLIGHT = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--axes", default="resources,instances,callers", help="comma-separated")


def steps(axis: str, *, quick: bool) -> Iterator[tuple[int, BedSettings]]:
    """Each point of an axis, and the bed for it. Raises: SystemExit for an unknown axis."""
    if axis == "resources":
        for count in (1, 64) if quick else (1, 4, 16, 64, 256, 1000):
            yield count, replace(BASE, accounts=account_names(count))
    elif axis == "instances":
        for count in (1, 2) if quick else (1, 2, 4, 8):
            yield count, replace(BASE, instances=count)
    elif axis == "callers":
        for count in (1, 2) if quick else (1, 2, 4, 8):
            yield count, replace(BASE, callers=count)
    else:
        raise SystemExit(f"bench: unknown axis {axis!r}: use resources, instances or callers")


def parts(*, quick: bool) -> list[Part]:
    duration_s = 1.0 if quick else 4.0
    repeats = 1 if quick else 3
    return [
        Part(Block("targeted", "closed", duration_s, IN_FLIGHT, spread="even"), repeats),
        Part(Block("mix", "open", duration_s, rate_per_s=500.0), repeats),
    ]


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    results = Results()
    for axis in parsed.axes.split(","):
        for count, settings in steps(axis.strip(), quick=options.quick):
            say(f"{axis}: {count}")
            beds = [
                replace(settings, system=name, loop=options.loop, sync_interval=options.sync)
                for name in options.systems or DEFAULT_SYSTEMS
            ]
            point = await run_side_by_side(
                beds,
                parts(quick=options.quick),
                warm_up_s=0.4 if options.quick else 2.0,
                seed=options.seed,
            )
            results.extend(point, **{axis: count})
    return make_document("scale", options, results, [])
