"""Two versions of a service on one bus: what is stored through them, and what is told."""

from __future__ import annotations

import json

import pytest
from aegis_sdk import HandlerFailed, Method, ResourceContext, Service
from aegis_sdk.log_line import Line
from aegis_sdk.testing import MemoryAegis, harness
from pydantic import BaseModel


class Position(BaseModel):
    quantity: int = 0


class PositionAtVenue(Position):
    venue: str = ""


ADD = Method("accounts", "add", request=int, reply=int)
RESET = Method("accounts", "reset", request=int, reply=int)
STORED = Method("accounts", "stored", request=int, reply=str)


def accounts(model: type[Position], *, pure: bool = False) -> Service:
    service = Service("accounts")

    @service.handles(ADD, pure=pure)
    def add(ctx: ResourceContext, quantity: int) -> int:
        position = ctx.state.get("position", model) or model()
        more = {"venue": "XETR"} if model is PositionAtVenue else {}
        position = model(
            **{**position.model_dump(), "quantity": position.quantity + quantity, **more}
        )
        ctx.state.set("position", position)
        return position.quantity

    @service.handles(RESET)
    def reset(ctx: ResourceContext, quantity: int) -> int:
        ctx.state.set("position", model(quantity=quantity))
        return quantity

    @service.handles(STORED)
    def stored(ctx: ResourceContext, _: int) -> str:
        return json.dumps(ctx.state.get("position"))

    return service


async def stored(aegis: MemoryAegis) -> object:
    text = await aegis.request(STORED, 0, resource="A")
    return json.loads(text)


@pytest.mark.parametrize("pure", [False, True])
async def test_a_failover_to_the_old_version_and_back_loses_nothing(pure: bool) -> None:
    """G6."""
    async with harness(accounts(PositionAtVenue), resources={"A"}) as aegis:
        assert await aegis.request(ADD, 1, resource="A") == 1
        await aegis.serve(accounts(Position, pure=pure), resources={"A"})
        await aegis.instances[0].kill()
        assert await aegis.request(ADD, 2, resource="A") == 3
        assert await stored(aegis) == {"quantity": 3, "venue": "XETR"}
        await aegis.serve(accounts(PositionAtVenue), resources={"A"})
        await aegis.instances[1].drain()
        assert await stored(aegis) == {"quantity": 3, "venue": "XETR"}


async def test_a_key_that_is_set_unread_is_replaced_and_the_log_names_what_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with harness(accounts(PositionAtVenue), resources={"A"}) as aegis:
        await aegis.request(ADD, 1, resource="A")
        await aegis.serve(accounts(Position), resources={"A"})
        await aegis.instances[0].kill()
        await aegis.request(RESET, 7, resource="A")
        assert await stored(aegis) == {"quantity": 7}
    told = [record.msg for record in caplog.records if isinstance(record.msg, Line)]
    [line] = [line for line in told if line["event"] == "state_fields_dropped"]
    assert (line["key"], line["fields"], line["method"]) == ("position", ["venue"], "reset")


async def test_a_migration_that_fails_is_the_answer_and_the_state_stays() -> None:
    service = accounts(Position)

    @service.migrates(str, Position)
    def from_text(old: str) -> Position:
        raise LookupError(old)

    text = Service("accounts")

    @text.handles(ADD)
    def add(ctx: ResourceContext, quantity: int) -> int:
        ctx.state.set("position", "seven")
        return 7

    async with harness(text, resources={"A"}) as aegis:
        await aegis.request(ADD, 1, resource="A")
        await aegis.serve(service, resources={"A"})
        await aegis.instances[0].kill()
        with pytest.raises(HandlerFailed, match=r"state 'position': migration .*from_text failed"):
            await aegis.request(ADD, 1, resource="A")
        assert await stored(aegis) == "seven"
