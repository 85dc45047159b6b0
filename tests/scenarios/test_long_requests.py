"""Requests that run for long are in progress, not lost: nobody takes them from a living instance."""

from __future__ import annotations

import asyncio

import aegis_sdk
import pytest

from tests.scenarios.ledger import Booking, Echo, Methods
from tests.scenarios.system import System, new_service


@pytest.mark.parametrize(
    "hold_s",
    [6.0, pytest.param(600.0, marks=[pytest.mark.slow, pytest.mark.timeout(700)])],
)
async def test_a_long_request_runs_once_and_moves_nothing(system: System, hold_s: float) -> None:
    """G3, G5: longer than any acknowledgement, heartbeat or stall is waited for, on both routes."""
    service = new_service()
    methods = Methods(service)
    members = [
        await system.start_ledger(service, {"A": "auto", "B": "auto"}, instance_id=name)
        for name in ("one", "two")
    ]
    limit_s = hold_s + 30.0
    async with aegis_sdk.connect(system.url) as aegis:
        targeted = asyncio.create_task(
            aegis.request(
                methods.book,
                Booking(op="targeted", hold_s=hold_s),
                resource="A",
                timeout_s=limit_s,
            )
        )
        group = asyncio.create_task(
            aegis.request(methods.echo, Echo(text="group", hold_s=hold_s), timeout_s=limit_s)
        )
        beside = 0
        while not (targeted.done() and group.done()):
            beside += 1
            booking = Booking(op=f"beside-{beside}")
            assert (await aegis.request(methods.book, booking, resource="B")).count == beside
            await asyncio.sleep(0.1)
        assert (await targeted).ops == ["targeted"]
        assert (await group).text == "group"
        after = await aegis.request(methods.book, Booking(op="after"), resource="A")
    assert after.ops == ["targeted", "after"]
    for op in ("targeted", "group"):
        assert sum(member.count("begun", op=op) for member in members) == 1
    assert [member.count("promoted") for member in members] == [2, 0]
    assert [member.count("demoted") for member in members] == [0, 0]
