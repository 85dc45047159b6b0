"""What is told of a request whose caller in this client was cancelled meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk.application.turns.open_calls import Waiting
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.errors import OutcomeUnknown


def waiting() -> Waiting:
    request = Request("c.1", "desk", "book", "A", b"1")
    return Waiting(request, asyncio.get_running_loop().create_future())


async def test_one_that_goes_on_without_its_caller_is_unknown_and_holds_nobody_up() -> None:
    """It waited for an answer that was cancelled, without ever letting the event loop go on."""
    asked = waiting()
    telling = asyncio.create_task(asked.told())
    await asyncio.sleep(0)
    asked.answer.cancel()
    with pytest.raises(OutcomeUnknown, match="attach to it later"):
        async with asyncio.timeout(1.0):
            await telling


async def test_one_that_is_ended_with_its_caller_is_told_when_it_has_ended() -> None:
    asked = waiting()
    telling = asyncio.create_task(asked.told())
    await asyncio.sleep(0)
    before, asked.answer = asked.answer, asyncio.get_running_loop().create_future()
    before.cancel()
    await asyncio.sleep(0)
    ended = Outcome(OutcomeKind.CANCELLED, b'"cancelled"')
    asked.deliver(ended)
    assert await telling is ended
