"""A service with state and its caller, in one file.

    aegis-control serve --embedded        # in another terminal
    python examples/quickstart.py

`book` changes the account and answers in one stored message: both happen or neither does.
"""

from __future__ import annotations

import asyncio
import os

import aegis_sdk
from aegis_sdk import Method, ResourceContext, Role, Service
from pydantic import BaseModel


class Fill(BaseModel):
    symbol: str
    quantity: int
    price: float


class Position(BaseModel):
    quantity: int = 0
    cost: float = 0.0


BOOK = Method("accounts", "book", request=Fill, reply=Position)  # both sides import this

accounts = Service("accounts")


@accounts.handles(BOOK)
async def book(ctx: ResourceContext, fill: Fill) -> Position:
    position = ctx.state.get(fill.symbol, Position) or Position()
    position.quantity += fill.quantity
    position.cost += fill.quantity * fill.price
    ctx.state.set(fill.symbol, position)
    return position


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with aegis_sdk.connect(url, name="quickstart") as aegis:
        await aegis.serve(accounts, resources={"ACC-1": Role.ACTIVE})
        for quantity in (100, -40):
            fill = Fill(symbol="AAPL", quantity=quantity, price=190.5)
            position = await aegis.request(BOOK, fill, resource="ACC-1", timeout_s=2.0)
            print(f"ACC-1 holds {position.quantity} AAPL, cost {position.cost:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
