"""A child process of the suite: started, heard, stopped, killed; always by its own process id."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from bench.paths import ROOT, python_path

START_TIMEOUT_S = 60.0
_PR_SET_PDEATHSIG = 1


class ChildError(Exception):
    """A child did not start or did not end; the message has its last words."""


class Child:
    """A Python process whose standard output is read line by line and whose errors go to a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls, name: str, *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
    ) -> Self:
        log = folder / f"{name}.log"
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": python_path()} | dict(environment or {}),
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )
        return cls(name, process, log)

    async def ready(self) -> None:
        """Wait for its first line. Raises: ChildError."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ChildError(f"{self.name} did not start{self._last_words()}") from None
        if not line:
            raise ChildError(f"{self.name} ended{self._last_words()}")

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def pause(self) -> None:
        self._send(signal.SIGSTOP)

    def hesitate(self) -> None:
        """It stops itself before the next turn that it stores; `wake` ends that."""
        self._send(signal.SIGUSR1)

    def change_offer(self) -> None:
        """An instance gives up resources, and offers them again a moment later."""
        self._send(signal.SIGUSR2)

    def wake(self) -> None:
        self._send(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone. Safe twice."""
        self._send(signal.SIGKILL)
        await self._process.wait()

    async def end(self, *, timeout_s: float) -> None:
        """SIGTERM; returns when it has ended by itself. Raises: ChildError."""
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        except TimeoutError:
            await self.kill()
            raise ChildError(f"{self.name} did not end{self._last_words()}") from None

    def _send(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace").strip()
        return f": {text[-2000:]}" if text else ""


def _die_with_parent() -> None:
    """Runs in the child: the kernel kills it when the suite is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
