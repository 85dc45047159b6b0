"""The models' runner: `python -m model [--short | --mutations] [--explain]`.

Exit codes: 0 all as it must be, 1 a model (or a mutation) is not what it must be, 2 usage,
4 the tools are missing or a search did not end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from model.checker import (
    CheckFailed,
    Found,
    ToolMissing,
    has_cycle,
    require_tools,
    search,
    shortest,
)
from model.configurations import (
    CYCLES,
    LONG,
    MUTATIONS,
    PROMISES,
    SHORT,
    Mutation,
    Search,
    Size,
)

SEARCH_TIMEOUT_S = 7_200.0
MUTATION_TIMEOUT_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        require_tools()
        failures = run(
            short=options.short, mutations_only=options.mutations, explain=options.explain
        )
    except (ToolMissing, CheckFailed) as error:
        sys.stderr.write(f"model: {error}\n")
        return 4
    for failure in failures:
        sys.stderr.write(f"FAILED {failure}\n")
    return 1 if failures else 0


def run(*, short: bool, mutations_only: bool, explain: bool) -> list[str]:
    """Search and print as the searches end. Returns what is not as it must be.

    Raises: CheckFailed.
    """
    tasks: list[Callable[[], str]] = []
    if not mutations_only:
        tasks += [partial(_hold, wanted) for wanted in (SHORT if short else LONG)]
        tasks += [partial(check, size) for size in CYCLES for check in (_reaches_rest, _ends)]
    tasks += [partial(_break, mutation, explain) for mutation in MUTATIONS]
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 4)) as workers:
        return [failure for failure in workers.map(lambda task: task(), tasks) if failure]


def _hold(wanted: Search) -> str:
    found = search(
        wanted.budget.model, wanted.budget.flags(), timeout_s=SEARCH_TIMEOUT_S, fast=wanted.fast
    )
    _say(_line(wanted.name, found, "all promises hold"))
    return f"{wanted.name}: {found.broken}" if found.broken else ""


def _reaches_rest(size: Size) -> str:
    """The check at rest is worth something: runs do get there, and there it looks."""
    flags = [*size.flags(), "-DPROBE"]
    found = search(size.model, flags, timeout_s=MUTATION_TIMEOUT_S, fast=False)
    return "" if found.broken else f"{size.model}: no run comes to rest"


def _ends(size: Size) -> str:
    cycle = has_cycle(size.model, size.flags(), timeout_s=MUTATION_TIMEOUT_S)
    if not cycle:
        _say(f"{size.model}: every run comes to rest")
    return f"{size.model}: a run can go round for ever" if cycle else ""


def _break(mutation: Mutation, explain: bool) -> str:
    found = shortest(mutation.budget.model, mutation.flags(), timeout_s=MUTATION_TIMEOUT_S)
    lines = [_line(mutation.name, found, "NOT FOUND")]
    if explain:
        lines += [f"  without: {mutation.rule}", *(f"    {step}" for step in found.steps)]
    _say("\n".join(lines))
    return "" if found.broken else f"{mutation.name}: {PROMISES[mutation.promise]} still holds"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _line(name: str, found: Found, good: str) -> str:
    verdict = f"broken: {found.broken}" if found.broken else good
    return (
        f"{name}: {verdict} [{found.states:,} states, depth {found.depth}, "
        f"{found.memory_mb:,.0f} MB, {found.search_s:.1f} s]"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="the searches that CI runs")
    size.add_argument("--mutations", action="store_true", help="the mutations alone")
    parser.add_argument("--explain", action="store_true", help="print each counterexample")
    return parser


if __name__ == "__main__":
    sys.exit(main())
