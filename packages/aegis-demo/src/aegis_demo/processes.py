"""The demo's child processes, seen from the demo: started, heard, stopped, and never left behind.

A child dies with the demo even when the demo is killed (Linux). A child that ends unasked is a
failure, told with the last lines of its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from aegis_demo.events import EVENTS, Event, Finished, Ready

T = TypeVar("T")
EventHandler = Callable[[Event], None]

LOG_LINES_SHOWN: Final = 15
START_TIMEOUT_S: Final = 90.0
"""As for control: a busy machine may take its time, a process that ends is told at once."""
_LINE_BYTES_MAX: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1


class ChildFailed(Exception):
    """A process of the demo did not start or ended by itself; the message ends with its log."""


def last_words(log: Path) -> str:
    """The last lines of a log."""
    try:
        lines = log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return "\n".join(lines[-LOG_LINES_SHOWN:]) or "its log is empty"


class Child:
    """One running process. `on_event` gets what it sends."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, log: Path, on_event: EventHandler
    ) -> None:
        self.name = name
        self.pid = process.pid
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.may_end = False
        """Set before it is killed, or when its work is done."""
        self.paused = False
        self._process = process
        self._log = log
        self._on_event = on_event
        self._listener = asyncio.create_task(self._listen())

    @property
    def running(self) -> bool:
        return not self.ended.is_set()

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self.may_end = True
        self.send(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): to the others it is as silent as if it were dead."""
        self.paused = True
        self.send(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on where it was (SIGCONT)."""
        self.send(signal.SIGCONT)
        self.paused = False

    def send(self, what: signal.Signals) -> None:
        """Send a signal; an ended process is no error.

        Not by the process object, which looks first whether it has ended: up to Python 3.12 that takes the
        exit status away from asyncio's own watcher, which then logs `Unknown child process pid`.
        """
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, what)

    def tell(self, line: str) -> None:
        """Write a line to its standard input; it may have ended."""
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            stdin.write(line.encode() + b"\n")

    def failure(self, what: str) -> ChildFailed:
        """What to raise when it did `what`."""
        return ChildFailed(f"{self.name} {what}\n{last_words(self._log)}")

    async def stop(self) -> None:
        """End it at once (SIGKILL) and return when it is gone."""
        self.kill()
        await self._listener

    async def _listen(self) -> None:
        try:
            await self._hear()
        except ValueError:  # not an event of ours: the watcher tells how it ended
            self.send(signal.SIGKILL)
        await self._process.wait()
        self.ended.set()

    async def _hear(self) -> None:
        if self._process.stdout is None:
            return
        async for line in self._process.stdout:
            event = EVENTS.validate_json(line)
            if isinstance(event, Ready):
                self.ready.set()
            if isinstance(event, Finished):
                self.may_end = True
            self._on_event(event)


class Crew:
    """All processes of one session."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._children: list[Child] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        environment: dict[str, str] | None = None,
        on_event: EventHandler | None = None,
    ) -> Child:
        """Start `python -m module arguments`; its log goes to `name`.log.

        Without `on_event` its standard output is part of the log.
        """
        log = self._log_dir / f"{name}.log"
        with log.open("ab") as log_file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE if on_event else log_file,
                stderr=log_file,
                env=_clean_environment() | (environment or {}),
                limit=_LINE_BYTES_MAX,
                preexec_fn=_die_with_parent(),
                start_new_session=True,  # a Ctrl-C in the terminal is the demo's to handle
            )
        child = Child(name, process, log, on_event or _ignore)
        self._children.append(child)
        self._watchers.append(asyncio.create_task(self._watch(child)))
        return child

    def fail(self, failure: ChildFailed) -> None:
        """End every wait with `failure`; the first one counts."""
        if not self._failure.done():
            self._failure.set_exception(failure)
            self._failure.exception()  # told now, or not at all: nobody may be waiting

    async def attended(self, wait: Awaitable[T]) -> T:
        """Wait, unless a process fails first. Raises: ChildFailed."""
        task = asyncio.ensure_future(wait)
        try:
            both: set[asyncio.Future[Any]] = {task, self._failure}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            return await task
        finally:
            task.cancel()

    async def until_ready(self, *children: Child) -> None:
        """Raises: ChildFailed when one ends, or says nothing for 90 s."""
        for child in children:
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await self.attended(child.ready.wait())
            except TimeoutError as error:
                raise child.failure(f"was not ready within {START_TIMEOUT_S:.0f} s") from error

    async def stop(self) -> None:
        """End all at once: nothing of a session is worth a tidy end, its NATS goes with it."""
        for child in self._children:
            child.kill()
        for child in self._children:
            await child.stop()

    async def _watch(self, child: Child) -> None:
        await child.ended.wait()
        if not child.may_end:
            self.fail(child.failure(f"ended with code {child.exit_code}"))


def _ignore(_: Event) -> None:
    return None


def _clean_environment() -> dict[str, str]:
    """The settings of a real AegisIPC in the user's shell are none of the demo's."""
    return {key: value for key, value in os.environ.items() if not key.startswith("AEGIS_")}


def _die_with_parent() -> Callable[[], None] | None:
    """What a child does before exec: ask Linux for SIGKILL when the demo is gone."""
    if sys.platform != "linux":
        return None
    # Loaded here, in the parent: between fork and exec the child may not load anything.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died just before
            os._exit(1)

    return ask
