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
from bench.commands import Command, commands
from bench.compiled import use_compiled
from bench.options import Options
from bench.report import markdown, write_report
from bench.runner import say


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
    command = commands()[parsed.command]
    options = options_of(parsed)
    if not options.pure:
        options = replace(options, pure=not use_compiled())
    try:
        document = asyncio.run(command.run(options, parsed))
    except BedError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    if options.report is not None and "rows" in document:
        write_report(document, options.report)
    if options.report is not None and not {"rows", "documents"}.isdisjoint(document):
        say(f"the report is in {options.report}")
    print(json.dumps(document) if options.json else markdown(document))
    return 0 if document["passed"] else 1


def options_of(parsed: argparse.Namespace) -> Options:
    """The shared options of a command line."""
    command = commands()[parsed.command]
    return Options.of(parsed, narrowed=_narrowed(command, parsed))


def _narrowed(command: Command, parsed: argparse.Namespace) -> bool:
    """Whether any of the command's own arguments is not its default."""
    own = argparse.ArgumentParser(add_help=False)
    command.add_arguments(own)
    return any(
        getattr(parsed, name) != default for name, default in vars(own.parse_args([])).items()
    )
