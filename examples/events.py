"""Other services are told what happened: each event has one effect at each of them, and any NATS client reads it.

    aegis-control serve --embedded        # in another terminal
    python examples/events.py

What a handler emits is stored with its outcome, or not at all. `risk` keeps the exposure of each account, with its state; `audit`
is a group that only looks. Neither knows the other, and `accounts` knows neither.
"""

from __future__ import annotations

import asyncio
import os

import aegis_sdk
import nats
from aegis_sdk import Context, Event, Method, ResourceContext, Role, Service
from pydantic import BaseModel


class Fill(BaseModel):
    account: str
    quantity: int


BOOK = Method("accounts", "book", request=Fill, reply=int)
FILLED = Event("accounts", "filled", Fill)
EXPOSURE = Method("risk", "exposure", request=str, reply=int)

accounts = Service("accounts", emits=[FILLED])
risk = Service("risk")
audit = Service("audit")
seen = asyncio.Queue[str]()


@accounts.handles(BOOK)
async def book(ctx: ResourceContext, fill: Fill) -> int:
    held = (ctx.state.get("held", int) or 0) + fill.quantity
    ctx.state.set("held", held)
    ctx.emit(FILLED, fill)
    return held


@risk.on(FILLED, resource=lambda fill: fill.account)
async def add(ctx: ResourceContext, fill: Fill) -> None:
    ctx.state.set("exposure", (ctx.state.get("exposure", int) or 0) + abs(fill.quantity))


@risk.handles(EXPOSURE)
async def exposure(ctx: ResourceContext, _: str) -> int:
    return ctx.state.get("exposure", int) or 0


@audit.on(FILLED)
async def look(ctx: Context, fill: Fill) -> None:
    seen.put_nowait(f"{fill.account} {fill.quantity:+}")


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with aegis_sdk.connect(url) as aegis:
        await aegis.serve(audit)
        for service in (risk, accounts):
            await aegis.serve(service, resources={"ACC-1": Role.AUTO})
        for quantity in (100, -40):
            await aegis.request(BOOK, Fill(account="ACC-1", quantity=quantity), resource="ACC-1")
        print("audited:", ", ".join(sorted([await seen.get(), await seen.get()])))
        while await aegis.request(EXPOSURE, "", resource="ACC-1") < 140:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        print("risk has an exposure of 140")
    async with await nats.connect(url) as client:
        events = await client.jetstream().subscribe(
            "aegis.evt.accounts.filled.ACC-1.>", ordered_consumer=True
        )
        for _ in range(2):
            print("any NATS client:", (await events.next_msg()).data.decode())


if __name__ == "__main__":
    asyncio.run(main())
