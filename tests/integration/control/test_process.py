"""`aegis-control` as a process: exit codes, signals, and a leader that is paused and wakes up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats, free_port
from aegis_sdk.contract.control import Role

from tests.integration.control.conftest import Start
from tests.integration.control.support import Broker, until

PROGRAM = [sys.executable, "-m", "aegis_control.entrypoints.service"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | environment,
        check=False,
    )


class Replica:
    """A control process; its log is read as JSON."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*PROGRAM, "serve", "--http-port", "0", *arguments], stderr=file
            )

    def events(self) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    async def until_event(self, name: str) -> dict[str, Any]:
        async def there() -> bool:
            assert self.process.poll() is None, self._log.read_text()
            return any(line["event"] == name for line in self.events())

        await until(there, f"log event {name}", deadline_s=90)
        return next(line for line in self.events() if line["event"] == name)

    def signal(self, what: signal.Signals) -> None:
        self.process.send_signal(what)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def replicas(tmp_path: Path, server: EmbeddedNats, prefix: str) -> Iterator[list[Replica]]:
    running: list[Replica] = []
    yield running
    for replica in running:
        replica.end()


def test_without_nats_it_says_where_it_looked_and_exits_4() -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    ended = run("serve", "--url", url, "--no-wait", "--http-port", "0")
    assert ended.returncode == 4
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"aegis-control: no NATS server answered at {url}")
    assert "Traceback" not in ended.stderr


async def test_without_nats_it_waits_and_says_so(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "log", "--url", f"nats://127.0.0.1:{free_port()}")
    try:
        line = await replica.until_event("nats_not_reached")
        assert "Connect call failed" in line["reason"]
        replica.signal(signal.SIGTERM)
        assert await asyncio.to_thread(replica.process.wait, 10) == 0
    finally:
        replica.end()


def test_a_wrong_setting_is_one_line_and_exit_2() -> None:
    ended = run("serve", "--http-port", "high")
    assert ended.returncode == 2
    assert ended.stderr == (
        "aegis-control: setting http_port is 'high' (from flag): Input should be a valid integer,"
        " unable to parse string as an integer\n"
    )


def test_config_shows_every_setting_and_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "control.toml"
    file.write_text("replicas = 3\n")
    ended = run(
        "config", "--config", str(file), "--prefix", "dev", AEGIS_PASSWORD="x", AEGIS_REPLICAS="5"
    )
    assert ended.returncode == 0
    rows = {words[0]: words[1:] for words in map(str.split, ended.stdout.splitlines())}
    assert rows["replicas"] == ["3", str(file)]
    assert rows["prefix"] == ["dev", "flag"]
    assert rows["password"] == ["***", "environment"]
    assert rows["ack_wait_s"] == ["1.0", "default"]


async def test_sigterm_is_a_clean_stop_and_the_embedded_server_goes_with_it(
    tmp_path: Path,
) -> None:
    replica = Replica(
        tmp_path / "log", "--embedded", "--embedded-port", "0", "--data-dir", str(tmp_path / "data")
    )
    try:
        await replica.until_event("leader_elected")
        replica.signal(signal.SIGTERM)
        assert await asyncio.to_thread(replica.process.wait, 15) == 0
        names = [line["event"] for line in replica.events()]
        assert names[0] == "embedded_nats_started"
        assert names[-1] == "control_stopped"
        assert all({"timestamp", "level"} <= line.keys() for line in replica.events())
    finally:
        replica.end()


async def test_a_paused_leader_that_wakes_up_undoes_nothing(
    tmp_path: Path,
    server: EmbeddedNats,
    prefix: str,
    broker: Broker,
    start: Start,
    replicas: list[Replica],
) -> None:
    """G5: the revisions and the fences are the server's to check, whatever a sleeper believes."""
    arguments = ("--url", server.url, "--prefix", prefix)
    first = Replica(tmp_path / "first", *arguments)
    replicas.append(first)
    await first.until_event("leader_elected")
    second = Replica(tmp_path / "second", *arguments)
    replicas.append(second)
    await second.until_event("http_listening")
    a, b, c = await start("a"), await start("b"), await start("c")
    assert (await a.register(Role.ACTIVE)).ok
    assert (await b.register(Role.STANDBY)).ok
    assert (await c.register(Role.STANDBY)).ok

    first.signal(signal.SIGSTOP)
    a.fall_silent()
    await second.until_event("leader_elected")
    await broker.until_owner("b 2 held")
    first.signal(signal.SIGCONT)
    await first.until_event("leader_stepped_down")
    status = await broker.admin("status")
    assert status.data["leader"] == (await second.until_event("leader_elected"))["leader"]
    assert await broker.owner() == "b 2 held"
    assert [line for line in first.events() if line["event"] == "failover_begun"] == []


async def test_a_killed_leader_leaves_work_and_no_damage(
    tmp_path: Path,
    server: EmbeddedNats,
    prefix: str,
    broker: Broker,
    start: Start,
    replicas: list[Replica],
) -> None:
    """G6: the successor finds leases, fences and instances, and finishes what was begun."""
    names = [f"R{i}" for i in range(200)]
    arguments = ("--url", server.url, "--prefix", prefix, "--system-url", server.system_url)
    for name in ("first", "second"):
        replicas.append(Replica(tmp_path / name, *arguments))
        await replicas[-1].until_event("http_listening")
    await replicas[0].until_event("leader_elected")
    a, b = await start("a"), await start("b")
    assert (await a.register(Role.ACTIVE, names)).ok
    assert (await b.register(Role.STANDBY, names)).ok
    await a.close()
    replicas[0].signal(signal.SIGKILL)
    for name in names:
        await broker.until_owner("b 2 held", name)
