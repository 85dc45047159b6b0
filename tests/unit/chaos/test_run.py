"""What a run does beside its faults."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from bench.chaos import run
from bench.chaos.history import operation_lines
from tests.unit.chaos.support import Story

HEARTBEAT_TIMEOUT_S = 0.7


async def test_instances_are_heard_while_a_long_history_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "QUIET_S", 0.0)
    story = Story(workload="register", service="s")
    file = tmp_path / "client-c1.jsonl"
    operations = [story.ask("read") for _ in range(120_000)]
    file.write_text("".join(f"{line}\n" for one in operations for line in operation_lines(one)))
    story.fault(0.0, 1.0)
    longest_s = 0.0

    async def listen() -> None:
        nonlocal longest_s
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(0.01)
            longest_s = max(longest_s, time.monotonic() - before_s)

    listening = asyncio.create_task(listen())
    await run.recovered([file], story.faults)
    await asyncio.sleep(0.1)
    listening.cancel()
    assert longest_s < HEARTBEAT_TIMEOUT_S
