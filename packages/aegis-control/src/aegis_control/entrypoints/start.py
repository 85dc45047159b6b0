"""The program's first lines. As the first process of a container it would ignore SIGTERM until somebody handles it, so
that is done before all else is imported, which takes most of a second.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """`aegis-control`. SIGTERM before it serves ends it, and what it has started by then."""
    signal.signal(signal.SIGTERM, _end)
    from aegis_control.entrypoints.service import main as program

    program()


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
