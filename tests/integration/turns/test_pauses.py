"""A resource is paused before it is given away. No pause is for good, whatever control says and does meanwhile."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from tests.integration.turns.support import WAIT_S, Told, World, adder, give

RUN_S: Final = 0.6
"""How long the handler runs that a pause waits for."""


@pytest.mark.parametrize("ends_by", ["resume", "its lease"])
async def test_a_pause_that_ends_before_the_handler_does_is_over(
    small_world: World, ends_by: str
) -> None:
    """G8: two controls may both lead for a moment, and one says `resume` of what the other waits for."""
    has_begun = asyncio.Event()
    service = adder(wait_s=RUN_S, before=has_begun.set)
    instance = await small_world.instance("accounts-1", ["A"], service)
    await give(small_world, instance, ["A"])
    client, told = await small_world.client(), Told()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        group.create_task(told.call(client, "A", "add_slowly"))
        await has_begun.wait()
        lease_s = RUN_S / 4 if ends_by == "its lease" else 60.0
        pausing = group.create_task(instance.pause(["A"], timeout_s=WAIT_S, lease_s=lease_s))
        await instance.host.until(lambda: "A" in instance.host.paused)
        if ends_by == "resume":
            instance.resume(["A"])
        await instance.host.until(lambda: "A" not in instance.host.paused)
        assert not await pausing
        outcome = await told.call(client, "A", "add_slowly")
        assert outcome is not None
        assert b'"count":2' in outcome.body
