"""A system of real processes with its console, and a real browser that looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aegis_sdk
import pytest
from aegis_control.bootstrap import Control
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from playwright.async_api import Browser, Page, async_playwright

from tests.console.instance import ADD
from tests.integration.control.support import control

TOKEN: Final = "correct-horse-battery"
START_TIMEOUT_S: Final = 30.0
CALL_TIMEOUT_S: Final = 15.0
_LOOK_EVERY_S: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1


def chromium() -> str:
    """The browser's program. Without one these tests skip on a developer's machine and fail in CI."""
    found = os.environ.get("AEGIS_CHROMIUM") or shutil.which("chromium")
    if found is not None:
        return found
    why = "chromium is missing: apt-get install chromium, or set AEGIS_CHROMIUM"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = await playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield opened
        await opened.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Desk:
    """A control with `desk` beside it, and a caller. `instances` are processes by their ids."""

    server: EmbeddedNats
    prefix: str
    control: Control
    caller: aegis_sdk.Aegis
    instances: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.control.http_port}"

    async def start(self, instance_id: str, resources: Sequence[str]) -> None:
        """Returns when it serves."""
        program = str(Path(__file__).with_name("instance.py"))
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, program, self.server.url, self.prefix, instance_id),
            json.dumps(list(resources)),
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            preexec_fn=_die_with_parent,
        )
        self.instances[instance_id] = process
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            assert await process.stdout.readline() == b"ready\n"

    async def kill(self, instance_id: str) -> None:
        """kill -9."""
        process = self.instances.pop(instance_id)
        process.kill()
        await process.wait()

    async def add(self, amount: int, resource: str) -> int:
        return await self.caller.request(ADD, amount, resource=resource, timeout_s=CALL_TIMEOUT_S)


@asynccontextmanager
async def desk(server: EmbeddedNats, prefix: str, **settings: Any) -> AsyncIterator[Desk]:
    settings = {"system_url": server.system_url} | settings
    async with (
        control(server.url, prefix, **settings) as replica,
        aegis_sdk.connect(server.url, prefix=prefix) as caller,
    ):
        made = Desk(server, prefix, replica, caller)
        try:
            yield made
        finally:
            for instance_id in list(made.instances):
                with contextlib.suppress(ProcessLookupError):
                    await made.kill(instance_id)


@dataclass
class Look:
    """An open page; `complaints` is what the browser's console said, refused by the policy among it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    """Requests that left for somewhere else."""

    async def until(self, script: str, what: str, *, within_s: float = 15.0) -> None:
        """Until the script is true in the page. Raises: AssertionError with what the page shows."""
        try:
            async with asyncio.timeout(within_s):
                # Not wait_for_function: it compiles in the page, which the page's policy forbids.
                while not await self.page.evaluate(script):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError:
            shown = await self.page.inner_text("body")
            raise AssertionError(f"{what}: not within {within_s:g} s\n{shown[:3000]}") from None

    async def until_text(self, selector: str, words: str, *, within_s: float = 15.0) -> None:
        found = f"(document.querySelector({json.dumps(selector)})?.innerText ?? '')"
        await self.until(
            f"{found}.includes({json.dumps(words)})", f"{words!r} in {selector}", within_s=within_s
        )

    async def text(self, selector: str) -> str:
        return await self.page.inner_text(selector)


@asynccontextmanager
async def looking(
    opened: Browser, url: str, *, width: int = 1280, height: int = 900, dark: bool = False
) -> AsyncIterator[Look]:
    """The console at `url`, which may have a `#part`; whatever the browser complains about fails the test in the end."""
    context = await opened.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    page = await context.new_page()
    look = Look(page)
    page.on("console", lambda m: look.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: look.complaints.append(str(error)))
    page.on("request", _note_foreign(look, url.partition("/#")[0]))
    await page.goto(url)
    try:
        yield look
    finally:
        await context.close()
    assert not look.complaints + look.foreign, look.complaints + look.foreign


def _note_foreign(look: Look, url: str) -> Callable[[Any], None]:
    def note(request: Any) -> None:
        if not request.url.startswith(url):
            look.foreign.append(request.url)

    return note
