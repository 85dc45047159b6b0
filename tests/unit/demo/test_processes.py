"""Children of the demo: heard, told apart when they fail, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from aegis_demo.events import Event, Ready
from aegis_demo.processes import Child, ChildFailed, Crew

DEADLINE_S = 20.0
READY = 'print(\'{"event":"ready","instance_id":"x"}\', flush=True)'
FOREVER = "import signal; signal.pause()"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module that a child can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(source: str) -> str:
        (tmp_path / "child_of_the_test.py").write_text(textwrap.dedent(source))
        return "child_of_the_test"

    return make


@pytest.fixture
async def crew(tmp_path: Path) -> AsyncIterator[Crew]:
    crew = Crew(tmp_path)
    yield crew
    await crew.stop()


def ignore(_: Event) -> None:
    return None


async def start(crew: Crew, module: str, on_event: Callable[[Event], None] = ignore) -> Child:
    return await crew.start("child", module, [], on_event=on_event)


async def test_a_child_is_ready_when_it_says_so(crew: Crew, module: Callable[[str], str]) -> None:
    heard: list[Event] = []
    child = await start(crew, module(f"{READY}\n{FOREVER}"), heard.append)
    await crew.until_ready(child)
    assert heard == [Ready(instance_id="x")]


async def test_a_child_that_fails_to_start_is_told_with_its_last_log_lines(
    crew: Crew, module: Callable[[str], str]
) -> None:
    child = await start(crew, module("raise SystemExit('the port is taken')"))
    with pytest.raises(ChildFailed, match=r"(?s)child ended with code 1.*the port is taken"):
        await crew.until_ready(child)


async def test_a_child_that_prints_nonsense_is_ended_and_told(
    crew: Crew, module: Callable[[str], str]
) -> None:
    child = await start(crew, module(f"print('hello', flush=True)\n{FOREVER}"))
    with pytest.raises(ChildFailed, match="child ended with code -9"):
        await crew.until_ready(child)


async def test_a_failure_ends_any_wait(crew: Crew, module: Callable[[str], str]) -> None:
    child = await start(crew, module(f"{READY}\ninput()\nraise SystemExit('no more')"))
    await crew.until_ready(child)
    child.tell("go")
    with pytest.raises(ChildFailed, match="no more"):
        await crew.attended(asyncio.Event().wait())


async def test_a_child_that_finished_its_work_may_end(
    crew: Crew, module: Callable[[str], str]
) -> None:
    child = await start(
        crew, module("""print('{"event":"finished","session_s":1,"held_s":0}', flush=True)""")
    )
    async with asyncio.timeout(DEADLINE_S):
        await child.ended.wait()
    assert await crew.attended(asyncio.sleep(0, "fine")) == "fine"


async def test_a_killed_child_is_no_failure(crew: Crew, module: Callable[[str], str]) -> None:
    child = await start(crew, module(f"{READY}\n{FOREVER}"))
    await crew.until_ready(child)
    child.kill()
    async with asyncio.timeout(DEADLINE_S):
        await child.ended.wait()
    assert await crew.attended(asyncio.sleep(0, "fine")) == "fine"


async def test_a_child_that_ignores_sigterm_and_a_paused_one_are_ended_all_the_same(
    tmp_path: Path, module: Callable[[str], str]
) -> None:
    crew = Crew(tmp_path)
    stubborn = module(
        f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{READY}\n{FOREVER}"
    )
    children = [await start(crew, stubborn), await start(crew, stubborn)]
    await crew.until_ready(*children)
    children[0].pause()
    async with asyncio.timeout(DEADLINE_S):
        await crew.stop()
    assert not any(psutil.pid_exists(child.pid) for child in children)


async def test_a_signal_to_a_child_that_has_just_ended_says_nothing(
    crew: Crew, module: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio must find the exit status: otherwise it logs `Unknown child process pid`."""
    for _ in range(3):
        child = await start(crew, module("""print('{"event":"ready"}', flush=True)"""))
        await crew.until_ready(child)
        child.may_end = True
        while child.running:  # also while it is ending, which is the moment that matters
            child.kill()
            await asyncio.sleep(0)
        assert child.exit_code in (0, -signal.SIGKILL)
    assert caplog.text == ""


async def test_the_users_settings_do_not_reach_the_demo(
    crew: Crew, module: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEGIS_URL", "nats://production:4222")
    child = await start(
        crew, module(f"import os, sys\nassert 'AEGIS_URL' not in os.environ\n{READY}\n{FOREVER}")
    )
    await crew.until_ready(child)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_children_die_with_a_parent_that_is_killed(
    tmp_path: Path, module: Callable[[str], str]
) -> None:
    name = module(f"{READY}\n{FOREVER}")
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_PARENT), str(tmp_path), name],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(DEADLINE_S)
    parent.stdout.close()
    with contextlib.suppress(psutil.NoSuchProcess):
        child.wait(DEADLINE_S)
    assert not child.is_running()


_PARENT = """
    import asyncio, sys
    from pathlib import Path
    from aegis_demo.processes import Crew

    async def main():
        crew = Crew(Path(sys.argv[1]))
        child = await crew.start("child", sys.argv[2], [], on_event=lambda event: None)
        await crew.until_ready(child)
        print(child.pid, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
"""
