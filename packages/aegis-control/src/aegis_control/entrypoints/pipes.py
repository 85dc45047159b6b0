"""Output into a pipe whose reader has seen enough (`head`, `less`): the end, and no error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def read_to_the_end_or_not(run: Callable[[], int]) -> int:
    """What `run` returns; 0 when the reader of its output left before the end."""
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more at its own exit, of either stream.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return 0
    return code
