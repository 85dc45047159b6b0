"""The one door from control to its demo, which is a package of its own: who deploys control does not get it.

Control never imports the demo, but when it is asked for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Final

from aegis_sdk.log_writer import write_line

FAILED: Final = 1


def is_installed() -> bool:
    """Looks for the package, and imports nothing of it."""
    return find_spec("aegis_demo") is not None


def in_help() -> str:
    """What `aegis-control --help` says of the command."""
    needs = "" if is_installed() else "; needs the package aegis-demo"
    return f"watch a trading session survive the death of its active{needs}"


def run(arguments: Sequence[str]) -> int:
    """Run the demo and return its exit code; where it isn't installed, say what to install and return 1."""
    if not is_installed():
        version = metadata.version("aegis-control")
        write_line(
            f"aegis-control: the demo is not installed; install the package aegis-demo=={version} from where"
            " aegis-control came from"
        )
        return FAILED
    from aegis_demo.cli import main

    return main(arguments)
