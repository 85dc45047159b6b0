"""`ipc-cli`: the operators' tool. It asks control over NATS and knows nothing that control doesn't say."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence

import typer

from aegis_control.entrypoints.cli.app import app
from aegis_control.entrypoints.cli.errors import Exit, report
from aegis_control.infrastructure.admin_client import AdminError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ipc-cli with `arguments` (default: the command line's) and end the process.

    Raises: SystemExit, always; its codes are those of `errors.Exit`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more at its own exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.DONE
    sys.exit(code)


def _run(given: list[str]) -> int:
    as_json = _wants_json(given)
    try:
        return int(app(args=given, prog_name="ipc-cli", standalone_mode=False) or 0)
    except AdminError as error:
        return report(error, as_json=as_json)
    except typer.TyperException as error:
        return _usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return report(AdminError("interrupted", "interrupted"), as_json=as_json)


def _usage(error: typer.TyperException, *, as_json: bool) -> int:
    message = error.format_message()
    if not message:  # Without a command, typer has shown the help already.
        return Exit.USAGE
    return report(AdminError("usage", message, "see `ipc-cli --help`"), as_json=as_json)


def _wants_json(given: Sequence[str]) -> bool:
    """Told before parsing, because what can't be parsed is answered in the right form too."""
    pairs = itertools.pairwise(given)
    return any(word in ("-ojson", "-o=json", "--output=json") for word in given) or any(
        name in ("-o", "--output") and value == "json" for name, value in pairs
    )
