"""Shows a person how the session goes: a live bar on a terminal, plain lines elsewhere.

It writes to standard error alone, so that standard output stays the result's.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

_LINE_EVERY_S: Final = 1.0


class LiveScreen:
    """A progress bar with the rate and the failovers, and what happens above it."""

    def __init__(self, console: Console, total: int) -> None:
        self._progress = Progress(
            TextColumn("orders"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TextColumn("{task.fields[failovers]} failovers"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("orders", total=total, rate=0.0, failovers=0)
        self._rate = Rate()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def advance(self, done: int, failovers: int) -> None:
        rate = self._rate.at(done)
        self._progress.update(self._task, completed=done, rate=rate, failovers=failovers)


class PlainScreen:
    """A line for each thing that happens, and one a second while orders flow."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._rate = Rate()
        self._shown_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def advance(self, done: int, failovers: int) -> None:
        rate = self._rate.at(done)
        now_s = time.monotonic()
        if done and (done == self._total or now_s - self._shown_s >= _LINE_EVERY_S):
            self._shown_s = now_s
            self.say(f"{done}/{self._total} orders, {rate:,.0f}/s, {failovers} failovers")


class Rate:
    """Orders per second since the first one."""

    def __init__(self) -> None:
        self._first_s: float | None = None

    def at(self, done: int) -> float:
        if not done:
            return 0.0
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
        return done / max(now_s - self._first_s, 0.001) if done > 1 else 0.0


def screen_for(console: Console, total: int) -> LiveScreen | PlainScreen:
    """The live one where it can move the cursor."""
    return LiveScreen(console, total) if console.is_terminal else PlainScreen(console, total)
