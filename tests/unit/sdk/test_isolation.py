"""A suspect of killing its process runs alone."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk.application.isolation import Isolation

from tests.unit.sdk.support import settle


class _Line:
    """Requests that pass an isolation, each until it is let go."""

    def __init__(self) -> None:
        self.isolation = Isolation()
        self.inside: list[str] = []
        self._go: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def enter(self, request_id: str, *, alone: bool = False) -> None:
        self._go[request_id] = asyncio.Event()
        self._tasks[request_id] = asyncio.create_task(self._pass(request_id, alone))
        await settle()

    async def leave(self, request_id: str) -> None:
        self._go[request_id].set()
        await self._tasks[request_id]
        await settle()

    async def cancel(self, request_id: str) -> None:
        self._tasks[request_id].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._tasks[request_id]
        await settle()

    async def _pass(self, request_id: str, alone: bool) -> None:
        if alone:
            async with self.isolation.alone(request_id):
                await self._be_inside(request_id)
            return
        await self.isolation.admitted(request_id)
        with self.isolation:
            await self._be_inside(request_id)

    async def _be_inside(self, request_id: str) -> None:
        self.inside.append(request_id)
        try:
            await self._go[request_id].wait()
        finally:
            self.inside.remove(request_id)


async def test_others_run_side_by_side() -> None:
    line = _Line()
    await line.enter("c.1")
    await line.enter("c.2")
    assert line.inside == ["c.1", "c.2"]


async def test_a_suspect_waits_until_nothing_runs_and_then_nothing_else_begins() -> None:
    line = _Line()
    await line.enter("c.1")
    await line.enter("c.2", alone=True)
    await line.enter("c.3")
    assert line.inside == ["c.1"]
    await line.leave("c.1")
    assert line.inside == ["c.2"]
    await line.leave("c.2")
    assert line.inside == ["c.3"]


async def test_what_the_suspect_asks_for_itself_is_let_in() -> None:
    """Its nested request may be served here: it would wait for itself."""
    line = _Line()
    await line.enter("c.2", alone=True)
    await line.enter("c~2.1")
    await line.enter("c~2~1.1")
    await line.enter("c~3.1")
    assert line.inside == ["c.2", "c~2.1", "c~2~1.1"]


async def test_a_suspect_that_waits_lets_nested_requests_pass() -> None:
    """What runs here may wait for one of them: both would wait until a deadline."""
    line = _Line()
    await line.enter("c.1")
    await line.enter("c.2", alone=True)
    await line.enter("c~1.1")
    assert line.inside == ["c.1", "c~1.1"]
    await line.leave("c~1.1")
    await line.leave("c.1")
    assert line.inside == ["c.2"]


async def test_two_suspects_run_one_after_the_other() -> None:
    line = _Line()
    await line.enter("c.1", alone=True)
    await line.enter("c.2", alone=True)
    assert line.inside == ["c.1"]
    await line.leave("c.1")
    assert line.inside == ["c.2"]


async def test_a_suspect_that_is_cancelled_holds_nobody_up() -> None:
    line = _Line()
    await line.enter("c.1")
    await line.enter("c.2", alone=True)
    await line.enter("c.3", alone=True)
    await line.enter("c.4")
    await line.cancel("c.2")
    await line.leave("c.1")
    assert line.inside == ["c.3"]
    await line.leave("c.3")
    assert line.inside == ["c.4"]
    await line.enter("c.5")
    assert line.inside == ["c.4", "c.5"]
