"""Every command that takes part, one after the other, with one report; within 20 minutes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.commands import commands
from bench.options import Options
from bench.report import write_report
from bench.runner import say

HELP = "all of them, within 20 minutes; the report in bench/report/report.md"
IN_ALL = 0
SHORT: Final[Mapping[str, Sequence[str]]] = {
    "failover": ("--count", "15", "--many-count", "3"),
    "soak": ("--minutes", "1.5"),
}
"""Commands whose own full form takes longer: 100 failovers of each kind, days of load."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own: each command runs with its defaults, or in its short form."""


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    documents = {}
    taking_part = {name: each for name, each in commands().items() if each.IN_ALL}
    began_s = time.monotonic()
    for name, command in sorted(taking_part.items(), key=lambda item: item[1].IN_ALL):
        say(f"== {name}, after {(time.monotonic() - began_s) / 60:.1f} min")
        chosen = argparse.ArgumentParser()
        command.add_arguments(chosen)
        short = () if options.quick else SHORT.get(name, ())
        document = await command.run(options, chosen.parse_args(short))
        if options.report is not None:
            write_report(document, options.report)
        documents[name] = document
    say(f"== done after {(time.monotonic() - began_s) / 60:.1f} min")
    return {
        "command": "all",
        "again": options.command_line("all"),
        "documents": documents,
        "passed": all(document["passed"] for document in documents.values()),
    }
