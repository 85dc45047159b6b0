"""NATS, control and instances, each a process of its own: for benchmarks that are one file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aegis_control.infrastructure.embedded_nats import EmbeddedNats

END_S = 30.0


class System:
    """NATS at `url`, control, and what is started beside them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._started: list[subprocess.Popen[bytes]] = []
        self.start("aegis_control.entrypoints.service", "serve")

    def start(self, module: str, *arguments: str) -> None:
        """`python -m module arguments`, until the end."""
        environment = {**os.environ, "AEGIS_URL": self.url, "AEGIS_HTTP_PORT": "0"}
        program = [sys.executable, "-m", module, *arguments]
        self._started.append(subprocess.Popen(program, env=environment, stderr=subprocess.DEVNULL))

    def stop(self) -> None:
        """The instances first: control has to hear that they leave."""
        for each in reversed(self._started):
            each.terminate()
            each.wait(END_S)


@contextmanager
def system() -> Iterator[System]:
    """Everything of it is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedNats(Path(folder)) as server:
        made = System(server.url)
        try:
            yield made
        finally:
            made.stop()
