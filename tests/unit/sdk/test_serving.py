"""The parts of an instance that serves begin and end in their order."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aegis_sdk.application.serving import Serving


class Group:
    def __init__(self) -> None:
        self.started = 0

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None: ...


async def nothing() -> None: ...


@pytest.mark.parametrize(
    ("stops", "drains", "started"), [(False, False, 1), (True, False, 0), (False, True, 0)]
)
async def test_the_group_begins_when_the_journal_was_read_unless_it_ended_meanwhile(
    stops: bool, drains: bool, started: int
) -> None:
    """G8: an instance that leaves takes no request that another could serve."""
    reads, was_read, group = asyncio.Event(), asyncio.Event(), Group()

    async def caught_up(*, timeout_s: float) -> None:
        reads.set()
        await was_read.wait()

    runner: Any = SimpleNamespace(stop=nothing)
    host: Any = SimpleNamespace(caught_up=caught_up, stop=nothing)
    members: Any = group
    serving = Serving(runner, host, members, has_group=True, resources=[])
    starting = asyncio.create_task(serving.start_group(unless=lambda: drains))
    await reads.wait()
    assert group.started == 0
    if stops:
        await serving.stop()
    was_read.set()
    await starting
    assert group.started == started
