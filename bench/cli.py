"""The command line: finds the subcommands, runs one, writes its report, says whether it passed.

Exit codes: 0 nothing lost or doubled, 1 something was (however fast), 2 usage, 3 a process broke, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from bench.bed import BedError
from bench.commands import commands
from bench.compiled import use_compiled
from bench.options import Options
from bench.report import markdown, write_report


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    subparsers = made.add_subparsers(dest="command", required=True)
    for name, command in commands().items():
        sub = subparsers.add_parser(name, help=command.HELP, description=command.HELP)
        Options.add_to(sub)
        command.add_arguments(sub)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    parsed = parser().parse_args(arguments)
    options = Options.of(parsed)
    if not options.pure:
        options = replace(options, pure=not use_compiled())
    command = commands()[parsed.command]
    try:
        document = asyncio.run(command.run(options, parsed))
    except BedError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    if options.report is not None and "rows" in document:
        write_report(document, options.report)
    print(json.dumps(document) if options.json else markdown(document))
    return 0 if document["passed"] else 1
