"""A service in two versions: `python -m tests.scenarios.trader URL ID VERSION`. It says JSON lines.

Version 2 knows more of each book and of each of its orders, and keeps its limit in another form.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any, Final

import aegis_sdk
from aegis_sdk import Method, ResourceContext, Role, Service
from pydantic import BaseModel

ACCOUNT: Final = "ACC-1"


class Order1(BaseModel):
    quantity: int


class Book1(BaseModel):
    quantity: int = 0
    orders: dict[str, Order1] = {}
    fills: list[Order1] = []


class Limit1(BaseModel):
    lots: int


class Order2(Order1):
    venue: str = ""


class Book2(BaseModel):
    quantity: int = 0
    orders: dict[str, Order2] = {}
    fills: list[Order2] = []
    venues: dict[str, int] = {}


class Limit2(BaseModel):
    shares: int


class Ask(BaseModel):
    id: str
    quantity: int


PLACE: Final = Method("traders", "place", request=Ask, reply=dict[str, Any])


def traders(version: int) -> Service:
    """Each reply is all of the state as it is stored, and the limit as this version reads it."""
    service = Service("traders", version=str(version))
    if version == 2:

        @service.migrates(Limit1, Limit2)
        def in_shares(old: Limit1) -> Limit2:
            return Limit2(shares=old.lots * 100)

    @service.handles(PLACE)
    async def place(ctx: ResourceContext, ask: Ask) -> dict[str, Any]:
        limit = _placed_1(ctx, ask) if version == 1 else _placed_2(ctx, ask)
        return {"version": version, "limit": limit, "book": ctx.state.get("book")}

    return service


def _placed_1(ctx: ResourceContext, ask: Ask) -> int | None:
    book = ctx.state.get("book", Book1) or Book1()
    order = Order1(quantity=ask.quantity)
    ctx.state.set(
        "book",
        Book1(
            quantity=book.quantity + ask.quantity,
            orders=book.orders | {ask.id: order},
            fills=[*book.fills, order],
        ),
    )
    if ctx.state.get("limit") is None:
        ctx.state.set("limit", Limit1(lots=3))
    return None


def _placed_2(ctx: ResourceContext, ask: Ask) -> int | None:
    book = ctx.state.get("book", Book2) or Book2()
    order = Order2(quantity=ask.quantity, venue="XETR")
    book.quantity += ask.quantity
    book.orders[ask.id] = order
    book.fills.append(order)
    book.venues["XETR"] = book.venues.get("XETR", 0) + 1
    ctx.state.set("book", book)
    limit = ctx.state.get("limit", Limit2)
    return limit.shares if limit else None


async def main(url: str, instance_id: str, version: str) -> None:
    async with aegis_sdk.connect(url) as aegis:
        service = traders(int(version))
        offered = {ACCOUNT: Role.AUTO}
        instance = await aegis.serve(service, resources=offered, instance_id=instance_id)
        await instance.ready()
        os.write(1, json.dumps({"event": "ready"}).encode() + b"\n")
        await instance.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
