"""What goes on beside leading survives whatever one round of it raises, and says so."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from aegis_control.infrastructure.loops import keep_doing
from aegis_sdk.errors import Unavailable


@pytest.mark.parametrize(
    "error", [ValueError("odd"), KeyError(), RuntimeError("\ud800"), Unavailable("away")]
)
async def test_a_side_loop_survives_any_error(error: Exception) -> None:
    """An operator reads which loop it was; that NATS is away is told elsewhere."""
    rounds = 0
    third = asyncio.Event()

    async def step() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            third.set()
        raise error

    with structlog.testing.capture_logs() as logged:
        going = asyncio.create_task(keep_doing("metrics", step, pause_s=0.0))
        async with asyncio.timeout(5):
            await third.wait()
        going.cancel()
    told = "side_loop_waits" if isinstance(error, Unavailable) else "side_loop_failed"
    assert {(line["event"], line["loop"]) for line in logged} == {(told, "metrics")}
