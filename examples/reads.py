"""What a resource's state says is read without storing anything: at its active, or at a standby.

    aegis-control serve --embedded        # in another terminal
    python examples/reads.py

At the active a read misses nothing that anybody was answered before. A standby may be a moment behind; but never behind what
this client has seen, and never behind the position that another one gives it.
"""

from __future__ import annotations

import asyncio
import os

import aegis_sdk
from aegis_sdk import Method, ReadContext, ResourceContext, Role, Service
from pydantic import BaseModel


class Fill(BaseModel):
    symbol: str
    quantity: int


BOOK = Method("holdings", "book", request=Fill, reply=int)
HOLDS = Method("holdings", "holds", request=str, reply=int)  # read, and never handled

holdings = Service("holdings")


@holdings.handles(BOOK)
async def book(ctx: ResourceContext, fill: Fill) -> int:
    quantity = (ctx.state.get(fill.symbol, int) or 0) + fill.quantity
    ctx.state.set(fill.symbol, quantity)
    return quantity


@holdings.reads(HOLDS)
def holds(ctx: ReadContext, symbol: str) -> int:
    return ctx.state.get(symbol, int) or 0


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with (
        aegis_sdk.connect(url, name="first") as first,
        aegis_sdk.connect(url, name="second") as second,
        aegis_sdk.connect(url, name="trader") as trader,
        aegis_sdk.connect(url, name="screen") as screen,
    ):
        await first.serve(holdings, resources={"ACC-1": Role.ACTIVE})
        standby = await second.serve(holdings, resources={"ACC-1": Role.STANDBY})
        await standby.ready()
        await trader.request(BOOK, Fill(symbol="AAPL", quantity=100), resource="ACC-1")
        newest = await trader.read(HOLDS, "AAPL", resource="ACC-1")
        print(f"the active has {newest} AAPL")
        mine = await trader.read(HOLDS, "AAPL", resource="ACC-1", at="standby")
        print(f"its own booking, from a standby: {mine} AAPL")
        seen = trader.position(HOLDS)
        shown = await screen.read(HOLDS, "AAPL", resource="ACC-1", at="standby", at_least=seen)
        print(f"another client, which was given the trader's position: {shown} AAPL")


if __name__ == "__main__":
    asyncio.run(main())
