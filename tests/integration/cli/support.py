"""What the tests of ipc-cli share: the tool as a real process, and a control that says what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from typing import Any, Self

import nats
import pytest
from aegis_control.entrypoints.cli import main
from aegis_sdk.contract.control import AdminReply
from aegis_sdk.contract.subjects import Subjects
from nats.aio.client import Client
from nats.aio.msg import Msg

RUN_TIMEOUT_S = 30.0
"""Generous: the machine may be busy with other suites; ipc-cli itself gives up after 3 s."""

_MAIN = "from aegis_control.entrypoints.cli import main; main()"


@dataclass(frozen=True, slots=True)
class Result:
    """How one run of ipc-cli ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        body = json.loads(self.err)["error"]
        assert isinstance(body, dict)
        return body


async def start_cli(
    *arguments: str,
    env: dict[str, str] | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
) -> asyncio.subprocess.Process:
    """Start ipc-cli with pipes; without the caller's AEGIS_* settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AEGIS_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _MAIN,
        *arguments,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean,
    )


async def run_process(*arguments: str) -> Result:
    """Run ipc-cli as a process to its end."""
    return await end_of(await start_cli(*arguments))


async def run_cli(*arguments: str, env: dict[str, str] | None = None) -> Result:
    """Run ipc-cli's `main` in a thread with pipes of its own: as a process would, but at once."""
    async with asyncio.timeout(RUN_TIMEOUT_S):
        return await asyncio.to_thread(_run_main, arguments, env or {})


def _run_main(arguments: tuple[str, ...], env: dict[str, str]) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AEGIS_")]:
            patch.delenv(name)
        for name, value in env.items():
            patch.setenv(name, value)
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            main(arguments)
    code = end.value.code
    assert isinstance(code, int)
    return Result(int(code), out.getvalue(), err.getvalue())


async def end_of(process: asyncio.subprocess.Process) -> Result:
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


class ScriptedControl:
    """Answers admin requests from `answers`; a verb that maps to None is heard and never answered.

    An async context manager. `asked` holds every request as (verb, body); `heard` is set by the first.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self.answers: dict[str, AdminReply | bytes | None] = {}
        self.asked: list[tuple[str, Any]] = []
        self.heard = asyncio.Event()
        self._client: Client | None = None

    def args(self) -> list[str]:
        """The options that lead ipc-cli here."""
        return ["--url", self.url, "--prefix", self.prefix]

    async def __aenter__(self) -> Self:
        self._client = await nats.connect(self.url, connect_timeout=5)
        await self._client.subscribe(Subjects(self.prefix).admin("*"), cb=self._answer)
        await self._client.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._client is not None
        await self._client.close()

    async def _answer(self, message: Msg) -> None:
        verb = message.subject.rpartition(".")[2]
        self.asked.append((verb, json.loads(message.data) if message.data else None))
        self.heard.set()
        answer = self.answers[verb]
        if isinstance(answer, AdminReply):
            answer = answer.model_dump_json().encode()
        if answer is not None:
            await message.respond(answer)
