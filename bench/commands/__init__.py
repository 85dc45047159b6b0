"""The subcommands, one module each: to add one, add a module with the four names of `Command`."""

from __future__ import annotations

import argparse
import pkgutil
from importlib import import_module
from typing import Any, Protocol, cast

from bench.options import Options


class Command(Protocol):
    """What a module in this package has."""

    HELP: str
    """One line for `--help`."""
    IN_ALL: int
    """Its place in `all`, from 1; 0 keeps it out."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Arguments of its own, beside the shared ones."""

    @staticmethod
    async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
        """The run's document (see bench.document); `passed` decides the exit code."""
        ...


def commands() -> dict[str, Command]:
    """Every subcommand by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: cast(Command, import_module(f"{__name__}.{name}")) for name in names}
