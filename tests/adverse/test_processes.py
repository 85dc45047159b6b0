"""Processes end when they are told to, and tell of what they can't do; a child does not speak for its parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aegis_sdk
import pytest
from aegis_sdk import Aegis

from tests.adverse.serving import ECHO, FORK, FORK_PLAIN, NAP, OTHER, WEDGE
from tests.scenarios.system import Process, System, running_system

pytestmark = pytest.mark.scenario
NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]


@pytest.fixture
async def system() -> AsyncIterator[System]:
    async with running_system() as running:
        yield running


async def serving(system: System, kind: str, environment: dict[str, str] | None = None) -> Process:
    process = await Process.start(
        kind,
        "-m",
        "tests.adverse.serving",
        system.url,
        kind,
        folder=system.folder,
        environment=environment,
    )
    system.processes.append(process)
    await process.wait_for("ready", timeout_s=30.0)
    return process


async def test_one_signal_drains_all_services_of_a_process(system: System) -> None:
    """G8: what runs is finished, in each of them."""
    process = await serving(system, "two")
    async with aegis_sdk.connect(system.url) as aegis:
        assert await aegis.request(OTHER, 1) == 1
        napping = asyncio.create_task(aegis.request(NAP, 300))
        await process.wait_for("napping")
        assert await process.end() == 0
        assert await napping == 300
    await process.wait_for("ended", service="echo")
    await process.wait_for("ended", service="other")


async def test_a_service_that_begins_after_the_signal_is_drained_too(system: System) -> None:
    process = await serving(system, "late")
    assert await process.end(timeout_s=4.0) == 0
    await process.wait_for("ended", service="other")


async def _wedge(aegis: Aegis, process: Process) -> asyncio.Task[int]:
    asked = asyncio.create_task(aegis.request(WEDGE, 1, timeout_s=60.0))
    await process.wait_for("wedged")
    return asked


async def test_a_second_signal_ends_a_process_at_once(system: System) -> None:
    process = await serving(system, "one")
    async with aegis_sdk.connect(system.url) as aegis:
        asked = await _wedge(aegis, process)
        begun_s = time.monotonic()
        process.send(signal.SIGTERM)
        await _until_logged(process, "draining")
        process.send(signal.SIGTERM)
        assert await process._process.wait() == 128 + signal.SIGTERM
        assert time.monotonic() - begun_s < 3.0
        asked.cancel()


@pytest.mark.slow
async def test_a_wedged_thread_does_not_keep_a_process_from_ending(system: System) -> None:
    """It ends within the drain's bound, by itself and with its own code."""
    process = await serving(system, "one")
    async with aegis_sdk.connect(system.url) as aegis:
        asked = await _wedge(aegis, process)
        assert await process.end(timeout_s=13.0) == 0
        asked.cancel()
    await process.wait_for("ended")


@pytest.mark.slow
async def test_a_thread_that_is_joined_does_not_keep_a_process_from_ending(system: System) -> None:
    process = await serving(system, "joined")
    assert await process.end(timeout_s=10.0) == 1
    assert process.logged("process_did_not_end")


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


async def _until_logged(process: Process, event: str) -> None:
    async with asyncio.timeout(10):
        while not process.logged(event):  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["frozen", "bare", "thread"])
async def test_what_a_platform_lacks_is_one_line_of_the_log_and_no_heartbeat_less(
    system: System, kind: str
) -> None:
    """No guard where there can be none, and never this program once more in its place."""
    process = await serving(system, kind)
    await _until_logged(process, "guard_not_started")
    async with aegis_sdk.connect(system.url) as aegis:
        for _ in range(5):
            await asyncio.sleep(0.3)  # longer in all than a missing heartbeat is waited for
            assert await aegis.request(ECHO, 1) == 1
    assert len(process.logged("guard_not_started")) == 1
    assert not process.logged("heartbeat_failed")
    assert "Traceback" not in process.log_text()
    if kind == "thread":
        await _until_logged(process, "signals_not_handled")


async def test_a_forked_child_neither_hides_the_death_of_its_parent_nor_speaks_for_it(
    system: System,
) -> None:
    """The connection closes with the parent; in the child, the client says at once what is wrong."""
    process = await serving(system, "fork")
    child = process.events[-1]["child"] if process.events[-1]["event"] == "ready" else None
    refused = await process.wait_for("refused")
    assert refused["error"] == "ContractError"
    assert "connect in the child" in refused["text"]
    begun_s = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    control = system.processes[0]
    await _until_logged(control, "instance_lost")
    took_s = time.monotonic() - begun_s
    lost = control.logged("instance_lost")[0]
    assert took_s < 0.5, lost
    if child:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


async def test_a_child_that_a_handler_forks_never_goes_on_as_a_second_of_its_instance(
    system: System,
) -> None:
    """Whether it returns or exits, it ends, so that its parent's wait for it does."""
    process = await serving(system, "one")
    async with aegis_sdk.connect(system.url) as aegis:
        for method in (FORK, FORK_PLAIN):
            assert await aegis.request(method, 1, timeout_s=5.0) == 2
        assert await aegis.request(ECHO, 1) == 1
    assert len(process.logged("forked_child_ended")) == 1


needs_namespace = pytest.mark.skipif(
    "CI" not in os.environ
    and (
        shutil.which("unshare") is None
        or subprocess.run([*NAMESPACE, "true"], check=False).returncode != 0
    ),
    reason="needs a pid namespace of its own",
)


@needs_namespace
@pytest.mark.parametrize("what", ["control", "instance"])
async def test_the_first_process_of_a_container_ends_on_sigterm_while_it_starts(
    what: str, tmp_path: Path
) -> None:
    """The kernel ignores a signal without a handler there; NATS is not up yet, so that it waits."""
    url = "nats://127.0.0.1:1"
    program = Path(sys.executable).with_name("aegis-control")
    command = (
        [str(program), "serve", "--url", url]
        if what == "control"
        else [sys.executable, "-m", "tests.adverse.serving", url, "one"]
    )
    with (tmp_path / "log").open("wb") as log:
        outer = await asyncio.create_subprocess_exec(*NAMESPACE, *command, stderr=log)
    try:
        waiting = {"control": b"nats_not_reached", "instance": b"waiting_for_nats"}[what]
        async with asyncio.timeout(20):
            while waiting not in (tmp_path / "log").read_bytes():  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.02)
        os.kill(_child_of(outer.pid), signal.SIGTERM)
        async with asyncio.timeout(5):
            await outer.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            outer.kill()


async def _first_of_a_container(
    system: System, name: str, *arguments: str
) -> tuple[Process, asyncio.subprocess.Process]:
    """A Python process that is the first of its namespace, and the one that holds this open."""
    log = system.folder / f"{name}.log"
    with log.open("wb") as file:
        outer = await asyncio.create_subprocess_exec(
            *(*NAMESPACE, "--mount-proc", sys.executable, *arguments),
            stderr=file,
            stdout=asyncio.subprocess.PIPE,
        )
    return Process(name, outer, log), outer


@needs_namespace
@pytest.mark.parametrize("dies", [False, True], ids=["SIGTERM", "kill -9"])
async def test_a_control_that_is_the_first_process_of_its_container_hands_over_when_it_ends(
    system: System, dies: bool
) -> None:
    """What is asked meanwhile is answered, and the next control leads."""
    arguments = ["-m", "aegis_control.entrypoints.service", "serve", "--url", system.url]
    control, outer = await _first_of_a_container(system, "first", *arguments, "--http-port", "0")
    try:
        await _until_logged(control, "control_started")
        await serving(system, "one")
        await system.processes[0].end()
        await system.wait_for_control()
        async with aegis_sdk.connect(system.url) as aegis:
            assert await aegis.request(NAP, 1) == 1
            os.kill(_child_of(outer.pid), signal.SIGKILL if dies else signal.SIGTERM)
            async with asyncio.timeout(5):
                await outer.wait()
            assert dies or outer.returncode == 0
            assert await aegis.request(NAP, 2) == 2
        await system.start_control()
    finally:
        with contextlib.suppress(ProcessLookupError):
            outer.kill()


@needs_namespace
async def test_the_first_process_of_a_container_drains_on_sigterm_while_it_serves(
    system: System,
) -> None:
    """G8: what runs is finished. Nobody else there would collect its guard, and a second signal ends it at once."""
    async with aegis_sdk.connect(system.url) as aegis:
        for kind in ("drains", "wedged"):
            first, outer = await _first_of_a_container(
                system, kind, "-m", "tests.adverse.serving", system.url, "one"
            )
            try:
                await first.wait_for("ready", timeout_s=30.0)
                inner = _child_of(outer.pid)
                if kind == "drains":
                    asked = asyncio.create_task(aegis.request(NAP, 300))
                    await first.wait_for("napping")
                else:
                    asked = await _wedge(aegis, first)
                os.kill(inner, signal.SIGTERM)
                if kind == "wedged":
                    await _until_logged(first, "draining")
                    os.kill(inner, signal.SIGTERM)
                async with asyncio.timeout(5):
                    await outer.wait()
                if kind == "drains":
                    assert outer.returncode == 0
                    assert await asked == 300
                    await first.wait_for("ended")
                asked.cancel()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    outer.kill()
