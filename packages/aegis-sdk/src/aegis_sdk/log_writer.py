"""Log lines are written by a thread of their own, so that whoever logs never waits.

A pipe that nobody reads, a terminal that was stopped or a slow disk blocks the write of a line. Written from
an event loop, such a line stops heartbeats, probes and failovers. So `emit` only puts the line into a
bounded queue, and a thread writes. A line that finds the queue full, or that can't be written, is dropped
and counted. When the queue is empty again, one line tells how many were dropped.

The thread writes to the stream's file descriptor, not through its buffer. Python locks that buffer while it
writes, and would abort at its exit if a thread were still waiting in there.
"""

from __future__ import annotations

import io
import json
import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Final, TextIO

QUEUED_BYTES_MAX: Final = 4 * 1024 * 1024
"""About 15,000 lines: minutes of an unusual day, and no more memory than a process has to spare."""
FLUSH_S_MAX: Final = 1.0
"""How long the end of a process waits for its last lines, when nobody reads them."""
_ATOMIC_BYTES: Final = 4096
"""Up to here lines of several processes that share a pipe are not mixed (PIPE_BUF of Linux)."""

_Queue = SimpleQueue[bytes | threading.Event | None]
"""Lines; events that are set when all before them are written; None ends the thread."""


class _Count:
    """Of all log writers of this process; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = 0
        self._taken = 0

    def add(self, lines: int) -> None:
        with self._lock:
            self.total += lines

    def take(self) -> int:
        with self._lock:
            new, self._taken = self.total - self._taken, self.total
            return new


_dropped: Final = _Count()


def dropped_lines() -> int:
    """How many log lines this process has dropped since it started."""
    return _dropped.total


def take_dropped_lines() -> int:
    """How many more since the last call: of several connections in a process, one counts them."""
    return _dropped.take()


def json_notice(lines: int) -> str:
    """The line about dropped lines."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    said = {"event": "log_lines_dropped", "lines": lines, "level": "warning", "timestamp": now}
    return json.dumps(said)


class LogWriter(logging.Handler):
    """Takes the place of `logging.StreamHandler`; never makes the caller wait.

    Without `stream` it writes to standard error. Lines that it has to drop are counted in
    `aegis_log_lines_dropped_total`.
    """

    def __init__(
        self, stream: TextIO | None = None, *, notice: Callable[[int], str] = json_notice
    ) -> None:
        """`notice` makes the line about so many dropped ones."""
        super().__init__()
        self._stream = stream
        self._notice = notice
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._queue: _Queue = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._put_bytes = 0
        self._written_bytes = 0
        """Each of the two is changed by one side alone, so neither needs a lock."""
        self._refused = 0
        """Lines that found the queue full."""
        self._lost = 0
        """Lines that could not be written."""
        self._told = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held, which nobody keeps for long."""
        if self._pid != os.getpid():
            self._begin()  # a forked child has no thread, and its parent writes what was queued
        line = _encoded(self._formatted(record))
        if self._put_bytes - self._written_bytes + len(line) > QUEUED_BYTES_MAX:
            self._refused += 1
            _dropped.add(1)
            return
        self._put_bytes += len(line)
        self._queue.put(line)
        if self._thread is None:
            self._start()

    def flush(self) -> None:
        """Return when all lines until now are written, or after a second."""
        if self._thread is None or self._pid != os.getpid():
            return
        reached = threading.Event()
        self._queue.put(reached)
        reached.wait(FLUSH_S_MAX)

    def close(self) -> None:
        """End the thread when it has written what waits. A later line starts another."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread = None
        super().close()

    def _formatted(self, record: logging.LogRecord) -> str:
        """logging itself would print the error to standard error, and wait there."""
        try:
            return self.format(record)
        except Exception as error:
            said = {"event": "log_line_unreadable", "logger": record.name, "level": "error"}
            return json.dumps(said | {"error_code": type(error).__name__})

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._run, args=(self._queue,), name="aegis-log", daemon=True
        )
        with suppress(RuntimeError):  # the interpreter ends, and starts no threads any more
            thread.start()
            self._thread = thread
            _before_a_worker_ends(self.flush)

    # --- the thread -------------------------------------------------------------------------------------
    def _run(self, queue: _Queue) -> None:
        """Lines that wait are written together, as far as they stay whole in a shared pipe."""
        lines: list[bytes] = []
        while True:
            if queue.empty():
                self._deliver(lines)
                self._tell()
            item = queue.get()
            if not isinstance(item, bytes):
                self._deliver(lines)
                if item is None:
                    return
                item.set()
                continue
            if sum(map(len, lines)) + len(item) > _ATOMIC_BYTES:
                self._deliver(lines)
            lines.append(item)

    def _deliver(self, lines: list[bytes]) -> None:
        """Write them, and empty the list."""
        data = b"".join(lines)
        if not self._write(data):
            self._lost += len(lines)
            _dropped.add(len(lines))
        self._written_bytes += len(data)
        lines.clear()

    def _tell(self) -> None:
        dropped = self._refused + self._lost
        if dropped == self._told:
            return
        if self._write(_encoded(self._notice(dropped - self._told))):
            self._told = dropped

    def _write(self, data: bytes) -> bool:
        """False when it can't be: the reader has gone, the disk is full, the stream is closed."""
        stream = self._stream or sys.stderr
        try:
            if (fd := _descriptor(stream)) is None:
                stream.write(data.decode())
                stream.flush()
            else:
                _write_all(fd, data)
        except Exception:  # a stream may be anything, and this thread must survive it
            return False
        return True


def write_line(text: str) -> None:
    """One line to standard error, from a program that ends; waits a second at most."""
    writer = LogWriter()
    writer.handle(logging.makeLogRecord({"msg": text}))
    writer.flush()
    writer.close()


def _before_a_worker_ends(flush: Callable[[], None]) -> None:
    """A child process of multiprocessing ends without atexit, and so without logging's own flush."""
    loaded = sys.modules.get("multiprocessing.util")
    if loaded is not None and sys.modules["multiprocessing"].parent_process() is not None:
        loaded.Finalize(None, flush, exitpriority=0)


def _encoded(line: str) -> bytes:
    """Half a surrogate pair is no reason to lose the line."""
    return f"{line}\n".encode("utf-8", "backslashreplace")


def _descriptor(stream: TextIO) -> int | None:
    """The file behind a text stream; None for one that is in memory, or that changes what is written."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return stream.fileno() if isinstance(raw, io.FileIO) else None


def _write_all(fd: int, data: bytes) -> None:
    """Raises: OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # somebody who shares the terminal or pipe made it non-blocking
            select.select([], [fd], [])
