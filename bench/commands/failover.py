"""How long callers wait when the active goes: killed, paused, or moved on purpose."""

from __future__ import annotations

import argparse
from typing import Any

from aegis_control.infrastructure.admin_client import AdminError

from bench import targets
from bench.bed import BedError
from bench.document import make_document
from bench.failover.gap import steps_ms, summary_ms
from bench.failover.rolling import run_rolling
from bench.failover.run import Failovers, Plan, run_kind, run_many
from bench.failover.strikes import Kind
from bench.options import Options, listed
from bench.runner import Results, say

HELP = "the gap that callers see when the active is killed, paused or moved"
IN_ALL = 5
MANY = "many"
"""Beside the kinds: all resources of one dead instance, --many of them."""
WORST_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, help="failovers of each kind (default: 100; quick: 3)")
    parser.add_argument(
        "--kinds",
        type=listed(Kind),
        default=list(Kind),
        help=f"of: {','.join(Kind)} (default: all)",
    )
    parser.add_argument("--resources", type=int, default=16, help="of the active (default: 16)")
    parser.add_argument("--rate", type=float, default=400.0, help="calls a second (default: 400)")
    parser.add_argument(
        "--many",
        type=int,
        default=1000,
        help="resources of one dead instance (default: 1000; 0: don't)",
    )
    parser.add_argument("--many-count", type=int, help="how often (default: 5; quick: 1)")


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    """Raises: BedError when a process broke, or a failover did not come to an end."""
    plan = Plan(parsed.count or (3 if options.quick else 100), parsed.resources, parsed.rate)
    many_count = parsed.many_count or (1 if options.quick else 5)
    found: dict[str, Failovers] = {}
    try:
        for kind in map(Kind, parsed.kinds):
            say(f"{kind}: {plan.count} failovers at {plan.rate_per_s:g} calls/s")
            if kind is Kind.ROLLING:
                found |= await run_rolling(plan, options)
            else:
                found[kind.value] = await run_kind(kind, plan, options)
        if parsed.many:
            found[MANY] = await run_many(parsed.many, many_count, options)
    except AdminError as error:
        raise BedError(f"control refused: {error}") from error
    losses = {name: each.verdict for name, each in found.items() if each.verdict is not None}
    shown = {name: _shown(each) for name, each in found.items()}
    return make_document(
        "failover",
        options,
        Results(losses=losses),
        targets.failover({name: each["gap_ms"] for name, each in shown.items()}),
        failovers=shown,
        load={
            "resources": plan.resources,
            "rate_per_s": plan.rate_per_s,
            "many": parsed.many,
        },
        again=_again(options, parsed),
    )


def _shown(found: Failovers) -> dict[str, Any]:
    return {
        "count": len(found.gaps_s),
        "gap_ms": summary_ms(found.gaps_s),
        "gaps_ms": [round(gap * 1e3, 2) for gap in found.gaps_s],
        "longest_ms": [[round(at * 1e3, 2) for at in wait] for wait in found.waits],
        "steps_ms": steps_ms(found.steps_s),
        "worst": _worst(found),
    }


def _worst(found: Failovers) -> list[dict[str, Any]]:
    """The longest gaps, and when each step came in just these failovers."""
    order = sorted(range(len(found.gaps_s)), key=found.gaps_s.__getitem__, reverse=True)
    return [
        {
            "failover": n + 1,
            "gap_ms": round(found.gaps_s[n] * 1e3, 2),
            "waited_ms": [round(at_s * 1e3, 2) for at_s in found.waits[n]],
            "steps_ms": {
                step: round(at_s * 1e3, 2)
                for step, at_s in sorted(found.steps_s[n].items(), key=lambda item: item[1])
            },
        }
        for n in order[:WORST_SHOWN]
    ]


def _again(options: Options, parsed: argparse.Namespace) -> str:
    words = [options.command_line("failover")]
    words += [f"--count {parsed.count}"] if parsed.count else []
    words += [f"--kinds {','.join(parsed.kinds)}"] if parsed.kinds != list(Kind) else []
    words += [f"--resources {parsed.resources}", f"--rate {parsed.rate:g}", f"--many {parsed.many}"]
    return " ".join(words)
