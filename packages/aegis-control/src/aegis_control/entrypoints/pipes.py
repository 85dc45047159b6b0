"""Output that nobody takes.

A pipe's reader that has seen enough (`head`, `less`) is the end, and no error. A stream that was closed before the start
takes everything. A full disk is told in a line.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO


def read_to_the_end_or_not(run: Callable[[], int]) -> int:
    """What `run` returns; 0 when the reader of its output left before the end, 1 when a disk is full."""
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:
        _forget(sys.stdout, sys.stderr)
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _forget(sys.stdout)
        print(f"the output is not whole: {error.strerror}", file=sys.stderr)
        return 1
    return code


def _nowhere() -> TextIO:
    """In the place of a stream that whoever started us has closed: Python has None there."""
    return Path(os.devnull).open("w", encoding="utf-8")


def _forget(*streams: TextIO) -> None:
    """Python would complain once more at its own exit, of what it could not write."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
