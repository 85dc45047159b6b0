"""`aegis-control demo` as a user runs it: kills and zombies reconcile (G1 to G8), nothing is left behind."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(180)]

DEADLINE_S: Final = 90.0
FILES: Final = Path(__file__).parents[1] / "unit" / "demo" / "files"
MARK: Final = "DEMO_TEST_MARK"
COMMAND: Final = (sys.executable, "-m", "aegis_control.entrypoints.service", "demo")


@dataclass(slots=True)
class Demo:
    """A running demo; its temporary folders go to `folder`, its processes carry a mark."""

    process: subprocess.Popen[str]
    folder: Path
    mark: str
    said: list[str] = field(default_factory=list)
    _lines: queue.Queue[str] = field(default_factory=queue.Queue)

    def listen(self) -> None:
        def read() -> None:
            assert self.process.stderr is not None
            for line in self.process.stderr:
                self._lines.put(line)
            self._lines.put("")

        threading.Thread(target=read, daemon=True).start()

    def wait_for(self, text: str) -> None:
        """Return when it said `text` on standard error."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line, f"it ended before it said {text!r}: {self.said}"
            self.said.append(line)
            if text in line:
                return

    def wait(self) -> tuple[int, str]:
        """(exit code, standard output)."""
        assert self.process.stdout is not None
        output = self.process.stdout.read()
        return self.process.wait(DEADLINE_S), output

    def children(self) -> list[psutil.Process]:
        """All living processes that it started, at any depth."""
        return [each for each in psutil.process_iter() if self._is_mine(each)]

    def processes(self) -> list[str]:
        """Their command lines."""
        return [" ".join(each.cmdline()) for each in self.children()]

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            return (
                process.pid != self.process.pid
                and process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get(MARK) == self.mark
            )
        except psutil.Error:
            return False

    def folders(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts demos, and makes sure that none outlives the test."""
    started: list[Demo] = []

    def start(*arguments: str) -> Demo:
        mark, folder = uuid.uuid4().hex, tmp_path / "tmp"
        folder.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, MARK: mark, "TMPDIR": str(folder)},
        )
        running = Demo(process, folder, mark)
        running.listen()
        started.append(running)
        return running

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
        each.process.wait(DEADLINE_S)
        assert each.process.stdout is not None
        each.process.stdout.close()


def result(demo: Demo) -> tuple[int, dict[str, Any]]:
    code, output = demo.wait()
    assert output.count("\n") == 1, output
    return code, json.loads(output)


def assert_reconciled(found: dict[str, Any], orders: int) -> None:
    assert found["mismatches"] == []
    assert found["reconciled"] is True
    assert (found["lost"], found["duplicated"]) == (0, 0)
    assert found["orders"] == orders == found["executed"] + found["rejected"]
    assert found["accounts_agreeing"] == found["accounts"]


def assert_nothing_is_left(demo: Demo) -> None:
    assert demo.processes() == []
    assert demo.folders() == []


def test_a_kill_in_mid_stream_loses_and_doubles_nothing(demo: Callable[..., Demo]) -> None:
    """G1, G2, G3, G6, G8: the books agree exactly after a kill -9, and nothing else is said."""
    running = demo("--orders", "600", "--kill", "--json")
    running.wait_for("reconciling")
    code, found = result(running)
    assert not [line for line in running.said if "Unknown child" in line]
    assert_reconciled(found, 600)
    assert code == 0
    assert found["failovers"] == 1
    assert 0 < found["failover_gap_ms"] < 20_000
    assert found["rejected"] > 0
    assert found["seed"] == 1
    assert_nothing_is_left(running)


def test_several_kills_each_find_a_replacement(demo: Callable[..., Demo]) -> None:
    """G5, G6: each replacement follows, takes over, and is killed in its turn."""
    code, found = result(demo("--orders", "900", "--kill", "2", "--kill", "--json"))
    assert_reconciled(found, 900)
    assert code == 0
    assert found["failovers"] == 3
    assert len({each["victim"] for each in found["disruptions"]}) == 3


def test_more_kills_than_orders_are_all_done(demo: Callable[..., Demo]) -> None:
    code, found = result(demo("--orders", "3", "--kill", "4", "--json"))
    assert_reconciled(found, 3)
    assert (code, found["failovers"]) == (0, 4)


def test_a_paused_active_wakes_up_as_a_harmless_zombie(demo: Callable[..., Demo]) -> None:
    """G5: what it still wants to commit is refused by the server."""
    code, found = result(demo("--orders", "600", "--pause", "--json"))
    assert_reconciled(found, 600)
    assert code == 0
    assert found["failovers"] == 1


def test_an_instance_and_an_account_join_and_another_instance_is_killed(
    demo: Callable[..., Demo],
) -> None:
    """G1, G3, G6: three share the accounts, and each is somebody's standby."""
    code, found = result(demo("--orders", "900", "--instances", "3", "--grow", "--kill", "--json"))
    assert code == 0
    assert [each["kind"] for each in found["disruptions"]] == ["grow", "kill"]
    assert found["reconciled"]


def test_heartbeats_alone_are_enough(demo: Callable[..., Demo]) -> None:
    code, found = result(demo("--orders", "400", "--kill", "--heartbeats-only", "--json"))
    assert_reconciled(found, 400)
    assert code == 0


def test_people_read_a_table_that_says_what_happened(demo: Callable[..., Demo]) -> None:
    running = demo("--orders", "200", "--kill")
    code, output = running.wait()
    assert code == 0
    assert "RECONCILED" in output
    assert "accounts-2 took over" in " ".join(output.split())


def test_a_bad_row_is_refused_and_the_rest_reconciles(
    demo: Callable[..., Demo], tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(
        "time,account,side,quantity,price,symbol\n"
        "09:30:00,Ünïcode account/1,buy,10,12.34,AAPL\n"
        "09:30:01,ACC-1,hold,10,12.34,AAPL\n"
        "09:30:02,ACC-1,sell,10,,AAPL\n"
    )
    running = demo("--input", str(file), "--json")
    running.wait_for("line 3: side 'hold' is neither buy nor sell")
    code, found = result(running)
    assert code == 5
    assert_reconciled(found, 2)
    assert found["closing"] == "reconciled_in_part"
    assert found["seed"] is None
    assert [row["line"] for row in found["refused_rows"]] == [3]


@pytest.mark.parametrize(
    ("sample", "accounts"),
    [
        pytest.param("fx", 3, marks=pytest.mark.slow),
        pytest.param("jpy", 2, marks=pytest.mark.slow),
        ("crypto", 3),
    ],
)
def test_a_real_file_trades_as_it_is(demo: Callable[..., Demo], sample: str, accounts: int) -> None:
    """Any decimals, zones and account names: nothing is refused, and nothing is rejected or rounded."""
    code, found = result(demo("--input", str(FILES / f"{sample}.csv"), "--kill", "--json"))
    assert_reconciled(found, found["orders"])
    assert (code, found["accounts"], found["failovers"]) == (0, accounts, 1)
    assert (found["rejected"], found["refused_rows"]) == (0, [])


def test_a_file_that_is_mostly_refused_does_not_close_with_reconciled(
    demo: Callable[..., Demo], tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("09:30,A,buy,1,1,X\n" + "09:30,A,hold,1,1,X\n" * 60)
    running = demo("--input", str(file))
    running.wait_for("most of the file is refused: 60 of 61 rows")
    code, output = running.wait()
    assert code == 5
    assert "MOSTLY REFUSED: 60 of 61 rows" in output
    assert "RECONCILED" not in output
    assert "p50 –, p99 –" in output


def test_the_console_stays_up_until_ctrl_c(demo: Callable[..., Demo]) -> None:
    running = demo("--orders", "50", "--kill", "--console", "--json")
    running.wait_for("the system stays up, with its console at http://127.0.0.1:")
    url = running.said[-1].split(" at ")[1].split()[0]
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as page:
        assert "AegisIPC" in page.read().decode()
    running.process.send_signal(signal.SIGINT)
    code, found = result(running)
    assert code == 0
    assert_reconciled(found, 50)
    assert_nothing_is_left(running)


@pytest.mark.parametrize("content", [None, ""])
def test_an_unusable_file_ends_with_2_and_one_line(
    demo: Callable[..., Demo], tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "orders.csv"
    if content is not None:
        file.write_text(content)
    running = demo("--input", str(file))
    running.wait_for(f"aegis-control demo: {file}: ")
    code, output = running.wait()
    assert (code, output) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--orders", "x"), "Invalid value for '--orders'"),
        (("--orders", "0"), "Invalid value for '--orders'"),
        (("--bogus",), "No such option: --bogus"),
        (("--kill", "x"), "Got unexpected extra argument"),
    ],
)
def test_wrong_arguments_end_with_2_and_one_line(
    demo: Callable[..., Demo], arguments: tuple[str, ...], told: str
) -> None:
    running = demo(*arguments)
    running.wait_for(f"aegis-control demo: {told}")
    code, output = running.wait()
    assert (code, output) == (2, "")


@pytest.mark.parametrize(
    ("moment", "what"),
    [
        ("embedded NATS", signal.SIGINT),
        pytest.param("starting control", signal.SIGINT, marks=pytest.mark.slow),
        ("starting 3 instances", signal.SIGINT),
        pytest.param("trading", signal.SIGINT, marks=pytest.mark.slow),
        ("orders, ", signal.SIGINT),
        pytest.param("starting 3 instances", signal.SIGTERM, marks=pytest.mark.slow),
        ("orders, ", signal.SIGTERM),
        pytest.param("trading", signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_at_any_moment_leaves_nothing_behind(
    demo: Callable[..., Demo], moment: str, what: signal.Signals
) -> None:
    running = demo("--orders", "100000", "--kill", "--json")
    running.wait_for(moment)
    running.process.send_signal(what)
    code, output = running.wait()
    assert (code, output) == (128 + what, "")
    assert_nothing_is_left(running)


def test_a_process_that_fails_ends_the_demo_with_its_last_words(demo: Callable[..., Demo]) -> None:
    running = demo("--orders", "100000", "--json")
    running.wait_for("orders, ")
    (nats,) = [each for each in running.children() if each.name() == "nats-server"]
    nats.kill()
    running.wait_for("aegis-control demo: nats-server ended")
    code, found = result(running)
    assert (code, found["reconciled"], found["error"]) == (1, False, "nats-server ended")
    assert_nothing_is_left(running)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_its_processes_die_with_a_demo_that_is_killed(demo: Callable[..., Demo]) -> None:
    running = demo("--orders", "100000")
    running.wait_for("orders, ")
    children = running.children()
    guards = [each for each in children if "guard_process" in " ".join(each.cmdline())]
    assert len(children) - len(guards) == 8
    running.process.kill()
    running.wait()
    _gone, alive = psutil.wait_procs(children, DEADLINE_S)
    assert alive == []
