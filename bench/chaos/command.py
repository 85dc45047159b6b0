"""`python -m bench chaos`: a run under faults drawn from a seed, judged by all checkers.

It prints one JSON object, and for people a few lines on stderr: seed, seconds, nodes,
operations, outcomes, unknown, faults, recovery_s_max, violations, passed, history.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

from aegis_control.infrastructure.embedded_nats import EmbeddedNatsError

from bench.bed import BedError
from bench.chaos.breaks import BREAKS
from bench.chaos.check import describe, summary
from bench.chaos.checkers import check_all
from bench.chaos.children import ChildError
from bench.chaos.clocks import LIBRARY, NoLibrary
from bench.chaos.nemesis import ACCIDENTS, NAMED_ALONE, Kind
from bench.chaos.run import Plan, attack
from bench.chaos.workloads import WORKLOADS
from bench.options import Options, listed

HELP = "workloads under kills, pauses and partitions, judged by checkers"
IN_ALL = 0
FOUND_WITHIN_S = 600.0
SLOW = ("recovery", "enough")
"""Checkers that a busy machine fails, too: they find no broken rule."""
KEPT = Path(__file__).resolve().parents[1] / "report" / "chaos"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command; `--seed`, `--nodes` and `--json` are shared by all."""
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults strike")
    parser.add_argument(
        "--faults",
        type=_faults,
        default=_possible(),
        help=f"all, or of: usual (without accidents), accidents (what operators destroy), none, {','.join(Kind)}",
    )
    parser.add_argument(
        "--workloads",
        type=listed(WORKLOADS),
        default=list(WORKLOADS),
        help=f"of: {','.join(WORKLOADS)}",
    )
    parser.add_argument("--history", type=Path, help="where the history is kept")
    parser.add_argument("--folder", type=Path, help="where the processes' files and logs stay")
    parser.add_argument(
        "--break",
        dest="broken",
        choices=BREAKS,
        default="",
        help="break this rule of docs/protocol.md, and run with one seed after the other"
        f" until that is found, for {FOUND_WITHIN_S / 60:g} minutes at most",
    )


async def perform(seed: int, parsed: argparse.Namespace) -> dict[str, Any]:
    """What the arguments ask for; the object that `--json` prints, with `passed`."""
    if not parsed.broken:
        return await _attacked(seed, parsed)
    began_s = time.monotonic()
    for n in itertools.count():
        result = await _attacked(seed + n, parsed)
        took_s = round(time.monotonic() - began_s, 1)
        broken = [each for each in result["violations"] if not each.startswith(SLOW)]
        if broken or took_s > FOUND_WITHIN_S:
            found = bool(broken) and took_s <= FOUND_WITHIN_S
            said = {"broken": parsed.broken, "runs": n + 1, "took_s": took_s, "passed": found}
            print(
                f"{parsed.broken}: {'found' if found else 'not found'} in {took_s} s",
                file=sys.stderr,
            )
            return {**result, **said}
    raise AssertionError("unreachable")


async def _attacked(seed: int, parsed: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    kept = parsed.history or KEPT / f"seed-{seed}-nodes-{parsed.nodes}.jsonl"
    history = await attack(
        Plan(
            seed=seed,
            seconds=parsed.seconds,
            nodes=parsed.nodes,
            faults=parsed.faults,
            workloads=parsed.workloads,
            kept=kept,
            folder=parsed.folder,
            broken=parsed.broken,
        )
    )
    violations = check_all(history)
    print(f"{describe(history, violations)}\nhistory: {kept}", file=sys.stderr)
    return {**summary(history, violations), "passed": not violations, "history": str(kept)}


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    """As a command of `python -m bench`. Raises: BedError when the system could not be run at all."""
    try:
        result = await perform(options.seed, parsed)
    except (ChildError, EmbeddedNatsError, NoLibrary, TimeoutError) as error:
        raise BedError(f"chaos: {error}") from error
    # For people everything is said already: a document of no documents prints nothing more.
    return result if options.json else {**result, "documents": {}}


def _faults(text: str) -> list[Kind]:
    sets = {"usual": _usual(), "accidents": list(ACCIDENTS), "all": _possible(), "none": []}
    return sets[text] if text in sets else [Kind(name) for name in listed(Kind)(text)]


def _usual() -> list[Kind]:
    """All but what takes an operator."""
    return [kind for kind in _possible() if kind not in ACCIDENTS]


def _possible() -> list[Kind]:
    """All kinds that can be drawn; without libfaketime, no jumps of clocks."""
    kinds = (kind for kind in Kind if kind not in NAMED_ALONE)
    return [kind for kind in kinds if kind is not Kind.JUMP_CLOCK or LIBRARY is not None]
