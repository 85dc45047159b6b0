"""The start of each of the demo's processes: its channel to the demo, its log, its end.

Standard output carries events alone; whatever else prints there goes to standard error, the log.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Final

import aegis_sdk

from aegis_demo.events import Event

CONNECT_WAIT_S: Final = 90.0
"""For NATS and control, which start at the same moment; the demo gives up by itself."""


class EventPipe:
    """Writes events to the demo. It owns the process's standard output."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, event: Event) -> None:
        """Raises: BrokenPipeError when the demo is gone."""
        self._file.write(event.model_dump_json() + "\n")
        self._file.flush()


def run(main: Coroutine[None, None, None]) -> None:
    """Run a process's main coroutine; an error ends up in its log, and the process with 1."""
    aegis_sdk.configure_logs()
    try:
        asyncio.run(main)
    except BrokenPipeError:
        sys.exit(1)  # the demo is gone; nobody is left to tell
