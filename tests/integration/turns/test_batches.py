"""Outcomes under their own names beside those of a turn: whoever is first has the name, and the others lose nothing by it."""

from __future__ import annotations

import asyncio

from aegis_sdk.contract.envelope import OutcomeKind, Request
from aegis_sdk.infrastructure.requests import NatsRequestLog
from aegis_sdk.infrastructure.turns.log import store_cancel

from tests.integration.turns.support import SERVICE, WAIT_S, Told, World, adder, give, read_log


async def test_a_name_that_is_taken_while_its_handler_runs_holds_up_nobody(world: World) -> None:
    """G2: on three nodes its batch is refused as a whole, and all but that one are stored by the next."""
    begun = asyncio.Event()
    service = adder(wait_s=0.3, before=begun.set)
    await give(world, await world.instance("accounts-1", ["A", "B"], service), ["A", "B"])
    link = await world.link()
    taken = Request("c~1.add_slowly-1", SERVICE, "add_slowly", "A", b'{"n":1}')
    await NatsRequestLog(link, world.subjects).append(taken, timeout_s=5.0)
    await begun.wait()
    client, told = await world.client(), Told()
    beside = asyncio.create_task(told.call(client, "B", "add_slowly"))
    assert (await store_cancel(link, world.names, taken)).kind is OutcomeKind.CANCELLED
    async with asyncio.timeout(WAIT_S):
        outcome = await told.call(client, "A")
        assert outcome is not None
        assert b'"count":1' in outcome.body
        await beside
    stored, order = await read_log(world)
    assert [o.kind for o in stored[taken.request_id]] == [OutcomeKind.CANCELLED]
    assert told.wrong(stored, order) == []
