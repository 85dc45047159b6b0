"""How latency, throughput and memory change with resources, instances and callers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench import targets
from bench.bed import BedSettings
from bench.block import Block
from bench.document import make_document
from bench.memory import growth
from bench.options import Options, listed
from bench.runner import Part, Results, run_side_by_side, say
from bench.workload import account_names

HELP = "curves over resources, instances and callers; memory of each"
IN_ALL = 3
DEFAULT_SYSTEMS = ("aegis", targets.RIVAL)
ACCOUNTS = 64
RATE_PER_S = 300.0
"""Fixed over all points: what changes is how many there are, not what they do."""
RIVALS_MAX = {"resources": 1000, "instances": 10, "callers": 10}
"""10,000 resources, and 50 processes of each kind, are asked of AegisIPC alone."""
POINTS = {
    "resources": (1, 10, 100, 1000, 10_000),
    "instances": (1, 10, 50),
    "callers": (1, 10, 50),
}
QUICK_POINTS = {"resources": (1, 1000), "instances": (1, 4), "callers": (1, 4)}


@dataclass(frozen=True, slots=True)
class Point:
    """One place on one axis."""

    axis: str
    count: int

    def beds(self, systems: Sequence[str], options: Options) -> list[BedSettings]:
        accounts = account_names(self.count if self.axis == "resources" else ACCOUNTS)
        more = {} if self.axis == "resources" else {self.axis: self.count}
        chosen = [n for n in systems if n == "aegis" or self.count <= RIVALS_MAX[self.axis]]
        return [options.bed(name, accounts, **more) for name in chosen]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--axes", type=listed(POINTS), default=list(POINTS), help=f"of: {','.join(POINTS)}"
    )


def points(axes: Sequence[str], *, quick: bool) -> list[Point]:
    of_axis = QUICK_POINTS if quick else POINTS
    return [Point(axis, count) for axis in axes for count in of_axis[axis]]


def ends_first(points: Sequence[Point]) -> list[Point]:
    """Axis by axis, its least and its most one after the other: the targets compare them, and a machine's
    speed drifts in minutes.
    """
    axes = [list(group) for _, group in groupby(points, key=lambda point: point.axis)]
    return [point for first, *others in axes for point in (first, *others[-1:], *others[:-1])]


def parts(*, quick: bool) -> list[Part]:
    open_s, repeats = (1.0, 3) if quick else (2.0, 4)
    return [
        Part(Block("targeted", "open", open_s, rate_per_s=RATE_PER_S, spread="even"), repeats),
        Part(Block("targeted", "closed", 1.0, targets.IN_FLIGHT, spread="even"), repeats // 2),
    ]


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    wanted = points(parsed.axes, quick=options.quick)
    found = {point: await _measure(point, options) for point in ends_first(wanted)}
    results = Results()
    for point in wanted:
        results.extend(found[point], **{point.axis: point.count})
    return make_document(
        "scale",
        options,
        results,
        targets.flat(results.rows),
        memory=[each for each in results.memory if each["system"] == "aegis"],
        memory_growth=growth(results.memory),
    )


async def _measure(point: Point, options: Options) -> Results:
    say(f"{point.axis}: {point.count}")
    beds = point.beds(options.systems or DEFAULT_SYSTEMS, options)
    if not beds:
        return Results()
    return await run_side_by_side(
        beds, parts(quick=options.quick), warm_up_s=0.6, seed=options.seed
    )
