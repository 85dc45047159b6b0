"""Every command that takes part, one after the other, with one report."""

from __future__ import annotations

import argparse
from typing import Any

from bench.commands import commands
from bench.options import Options
from bench.report import write_report
from bench.runner import say

HELP = "all of them"
IN_ALL = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own: each command runs with its defaults."""


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    documents = {}
    taking_part = {name: each for name, each in commands().items() if each.IN_ALL}
    for name, command in sorted(taking_part.items(), key=lambda item: item[1].IN_ALL):
        say(f"== {name}")
        defaults = argparse.ArgumentParser()
        command.add_arguments(defaults)
        document = await command.run(options, defaults.parse_args([]))
        if options.report is not None:
            write_report(document, options.report)
        documents[name] = document
    return {
        "command": "all",
        "again": options.command_line("all"),
        "documents": documents,
        "passed": all(document["passed"] for document in documents.values()),
    }
