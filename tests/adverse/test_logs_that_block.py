"""Logging never holds a process: whoever does not read a log stops nobody, and is told what it missed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import aegis_sdk
import pytest
from aegis_sdk import log_writer
from aegis_sdk.log_writer import LogWriter, dropped_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenarios.ledger import Booking, Methods
from tests.scenarios.system import new_service, running_system

ENDS_WITHIN_S = 20.0


class Pipe:
    """A pipe that is full from the start, as one that nobody has read for a while."""

    def __init__(self, *, full: bool = True) -> None:
        self.reading, self.writing = os.pipe()
        if full:
            self.fill()

    def fill(self) -> None:
        flags = fcntl.fcntl(self.writing, fcntl.F_GETFL)
        fcntl.fcntl(self.writing, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while os.write(self.writing, b"\n" * size):
                    pass
        fcntl.fcntl(self.writing, fcntl.F_SETFL, flags)

    def read_lines(self) -> list[str]:
        """Those that are not empty, until every writer has closed it."""
        with os.fdopen(self.reading, "rb", closefd=False) as file:
            return [line.decode() for line in file.read().split(b"\n") if line]

    def close_writing(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def close_reading(self) -> None:
        if self.reading >= 0:
            os.close(self.reading)
            self.reading = -1


@pytest.fixture
def full() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close_writing()
    pipe.close_reading()


def run(program: str, *, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def livez(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
        return str(answer.read().decode())


# --- whole systems ---------------------------------------------------------------------------------------


@pytest.mark.scenario
async def test_control_and_instances_whose_logs_nobody_reads_serve_and_fail_over() -> None:
    """All three write into one full pipe, from their first line on, the instances at level debug."""
    pipe, service, port = Pipe(), new_service(), free_port()
    methods = Methods(service)
    async with running_system(controls=0) as system:
        options = ("--http-port", str(port), "--log-level", "debug")
        control = await system.start_control(*options, stderr=pipe.writing)
        noisy = {"AEGIS_LOG_LEVEL": "DEBUG"}
        for name, role in (("old", "active"), ("new", "standby")):
            await system.start_ledger(
                service, {"R": role}, instance_id=name, environment=noisy, stderr=pipe.writing
            )
        old, new = system.processes[1:]
        async with aegis_sdk.connect(system.url) as aegis:
            for n in range(20):
                await aegis.request(methods.book, Booking(op=f"before-{n}"), resource="R")
            assert await asyncio.to_thread(livez, port) == "ok\n"
            await old.kill()
            await new.wait_for("promoted", resource="R")
            total = await aegis.request(methods.book, Booking(op="after"), resource="R")
        assert total.count == 21
        assert await asyncio.to_thread(livez, port) == "ok\n"
        for process in (new, control):
            assert await process.end() == 0, "what can't be written holds no end"
    pipe.close_reading()
    pipe.close_writing()


@pytest.mark.scenario
async def test_a_control_that_cannot_start_says_so_into_a_full_pipe_and_ends(full: Pipe) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aegis_control.entrypoints.service", "serve", "--no-wait"),
        *("--url", "nats://127.0.0.1:1"),
        stderr=full.writing,
    )
    async with asyncio.timeout(ENDS_WITHIN_S):
        assert await process.wait() == 4


# --- one process -------------------------------------------------------------------------------------------


def test_without_any_set_up_a_warning_into_a_full_pipe_waits_for_nobody(full: Pipe) -> None:
    program = (
        "from aegis_sdk.telemetry import log\nfor n in range(9): log.warning('w')\nprint('on')"
    )
    assert run(program, stderr=full.writing).stdout == "on\n"


def test_without_any_set_up_warnings_go_to_standard_error_once() -> None:
    program = "from aegis_sdk.telemetry import log\nlog.info('i'); log.warning('w')"
    lines = run(program).stderr.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["w"]


def test_an_applications_own_set_up_is_left_alone() -> None:
    """Its handlers get the records in the thread that logs, and nothing is written beside them."""
    program = (
        "import logging, sys\nfrom aegis_sdk.telemetry import log\n"
        "logging.basicConfig(stream=sys.stdout, level='INFO', format='mine %(message)s')\n"
        "log.warning('w')"
    )
    done = run(program)
    assert (done.stdout.count("mine"), done.stderr) == (1, "")


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "1/0", "os.kill(os.getpid(), 15)"])
def test_the_last_lines_before_the_end_are_written_whole_and_in_order(end: str) -> None:
    program = (
        "import os, signal, sys, aegis_sdk\nfrom aegis_sdk.telemetry import log\n"
        "signal.signal(15, lambda *_: sys.exit(0))\n"
        "sys.excepthook = lambda *_: None  # Python's own traceback comes in pieces, between lines\n"
        "aegis_sdk.configure_logs()\n"
        f"for n in range(2000): log.info('line', n=n, more='x' * (n % 300))\n{end}"
    )
    lines = [line for line in run(program).stderr.splitlines() if line.startswith("{")]
    assert [json.loads(line)["n"] for line in lines] == list(range(2000))


@pytest.mark.parametrize(
    "fork",
    [
        "for n in range(10):\n  if os.fork() == 0:\n    log.info('child'); sys.exit()\n  os.wait()",
        "import multiprocessing as m\nfor n in range(10):\n"
        "  c = m.get_context('fork').Process(target=log.info, args=('child',)); c.start(); c.join()",
    ],
    ids=["fork", "multiprocessing"],
)
def test_a_forked_child_writes_its_own_lines_and_none_twice(fork: str) -> None:
    program = (
        "import os, sys, aegis_sdk\nfrom aegis_sdk.telemetry import log\naegis_sdk.configure_logs()\n"
        f"for n in range(500): log.info('parent')\n{fork}\nlog.info('parent')"
    )
    events = [json.loads(line)["event"] for line in run(program).stderr.splitlines()]
    assert (events.count("parent"), events.count("child")) == (501, 10)


def test_a_reader_that_leaves_ends_nothing_and_nothing_complains() -> None:
    pipe = Pipe(full=False)
    pipe.close_reading()
    program = (
        "import aegis_sdk\nfrom aegis_sdk.telemetry import log\n"
        "from aegis_sdk.log_writer import dropped_lines\naegis_sdk.configure_logs()\n"
        "for n in range(9): log.warning('w')\n"
        "import logging; logging.getLogger('aegis_sdk').handlers[0].flush(); print(dropped_lines())"
    )
    done = run(program, stderr=pipe.writing)
    pipe.close_writing()
    assert (done.stdout, done.returncode) == ("9\n", 0)


def test_standard_error_that_is_closed_or_full_ends_nothing() -> None:
    for redirection in ("2>&-", "2>/dev/full"):
        program = "import aegis_sdk; from aegis_sdk.telemetry import log; aegis_sdk.configure_logs(); log.warning('w'); print('on')"
        command = f'{sys.executable} -c "{program}" {redirection}'
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=20, check=False
        )
        assert (done.stdout, done.returncode) == ("on\n", 0), redirection


# --- what is dropped -----------------------------------------------------------------------------------------


def logger_on(writer: LogWriter) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(writer)
    return logger


def test_what_does_not_fit_is_dropped_counted_and_told_in_one_line(full: Pipe) -> None:
    """Each line is either written or in the count, which is told when the pipe has moved."""
    before, size = dropped_lines(), 64 * 1024
    lines = 2 * log_writer.QUEUED_BYTES_MAX // size
    stream = os.fdopen(full.writing, "w", closefd=False)
    writer = LogWriter(stream)
    logger = logger_on(writer)
    for n in range(lines):
        logger.warning(f"{n} ".ljust(size, "x"))
    dropped = dropped_lines() - before
    assert 0 < dropped < lines
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(full.read_lines()))
    reader.start()
    writer.flush()
    writer.close()
    full.close_writing()
    reader.join(ENDS_WITHIN_S)
    notices = [json.loads(line) for line in told if line.startswith("{")]
    assert [(line["event"], line["lines"]) for line in notices] == [("log_lines_dropped", dropped)]
    written = [line.split()[0] for line in told if line.endswith("x")]
    assert written == [str(n) for n in range(lines - dropped)], "what was there first is kept"


def test_dropped_lines_are_counted_once_by_the_connections_of_a_process(full: Pipe) -> None:
    log_writer.take_dropped_lines()
    with open(os.devnull, encoding="utf-8") as only_for_reading:  # noqa: PTH123
        writer = LogWriter(only_for_reading)
        logger_on(writer).warning("w")
        writer.flush()
        writer.close()
    assert [log_writer.take_dropped_lines(), log_writer.take_dropped_lines()] == [1, 0]


class Odd:
    """As a value of users may be."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("record", [("%d", "x"), ("%s", Odd()), ("%s %s", 1)])
def test_a_line_that_has_no_text_is_told_as_such(record: tuple[Any, ...]) -> None:
    out = io.StringIO()
    writer = LogWriter(out)
    logger_on(writer).warning(*record)
    writer.flush()
    writer.close()
    assert json.loads(out.getvalue())["event"] == "log_line_unreadable"


def test_a_value_without_a_text_costs_its_line_and_is_no_error_of_who_logs_it() -> None:
    program = (
        "import aegis_sdk\nfrom aegis_sdk.telemetry import log\naegis_sdk.configure_logs()\n"
        "class Odd:\n  def __repr__(self): raise ValueError\n"
        "log.warning('w', request_id='a.1', error=Odd()); print('on')"
    )
    done = run(program)
    line = json.loads(done.stderr)
    assert (done.stdout, line["event"], line["request_id"]) == ("on\n", "w", "a.1")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(), max_size=6000), max_size=20))
def test_whatever_is_said_arrives_as_it_was_said(texts: list[str]) -> None:
    """Lines of any length, half surrogates among them, through a pipe that others share."""
    pipe = Pipe(full=False)
    writer = LogWriter(os.fdopen(pipe.writing, "w", closefd=False))
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(pipe.read_lines()))
    reader.start()
    for text in texts:
        logger_on(writer).warning("%s", json.dumps(text, ensure_ascii=False))
    writer.flush()
    writer.close()
    pipe.close_writing()
    reader.join(ENDS_WITHIN_S)
    pipe.close_reading()
    expected = [text.encode("utf-8", "backslashreplace").decode() for text in texts]
    assert [json.loads(line) for line in read if line] == expected


# --- output that is piped ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["aegis_control.entrypoints.service", "config"],
        ["aegis_control.entrypoints.service", "--help"],
        ["aegis_control.entrypoints.cli", "--help"],
        ["aegis_control.entrypoints.cli", "version"],
    ],
    ids=" ".join,
)
def test_a_reader_that_has_seen_enough_is_no_error(command: list[str]) -> None:
    """As `| head -1`."""
    pipe = Pipe(full=False)
    pipe.close_reading()
    module, *arguments = command
    program = f"import sys; from {module} import main; main({arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=pipe.writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )
    pipe.close_writing()
    assert (done.returncode in (0, 1), done.stderr) == (True, "")


@pytest.mark.parametrize(
    "module", ["aegis_control.entrypoints.service", "aegis_control.entrypoints.cli"]
)
@pytest.mark.parametrize(("redirection", "code"), [(">&-", 0), (">&- 2>&-", 0), (">/dev/full", 1)])
def test_output_that_nobody_takes_is_no_traceback(module: str, redirection: str, code: int) -> None:
    """Closed by a supervisor, or a full disk: that one is told in a line."""
    verb = "config" if module.endswith("service") else "version"
    program = f"from {module} import main; main(['{verb}'])"
    done = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "$0" {redirection}', program],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == (code * "the output is not whole: No space left on device\n")
