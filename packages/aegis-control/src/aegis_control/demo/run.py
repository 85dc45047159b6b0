"""`aegis-control demo ARGUMENTS` as a function, for the control entrypoint."""

from __future__ import annotations

import typer

from aegis_control.demo.cli import mount


def main(argv: list[str]) -> int:
    """Run the demo with a command line's arguments and return the exit code (2: wrong usage)."""
    app = typer.Typer(add_completion=False)
    mount(app)
    try:
        app(args=argv, prog_name="aegis-control demo")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0
