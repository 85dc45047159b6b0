"""A standby takes over, with the state, when the active leaves.

    aegis-control serve --embedded        # in another terminal
    python examples/standby.py

The caller uses the resource's name and never learns who is active. Here the active leaves on
purpose, by closing its connection; `aegis-control demo --kill` shows the same after a kill -9.
"""

from __future__ import annotations

import asyncio
import os

import aegis_sdk
from aegis_sdk import Method, ResourceContext, Role, Service
from pydantic import BaseModel


class Add(BaseModel):
    amount: int


class Total(BaseModel):
    total: int
    answered_by: str
    epoch: int


ADD = Method("totals", "add", request=Add, reply=Total)

totals = Service("totals")


@totals.handles(ADD)
async def add(ctx: ResourceContext, asked: Add) -> Total:
    total = (ctx.state.get("total", int) or 0) + asked.amount
    ctx.state.set("total", total)
    return Total(total=total, answered_by=ctx.instance_id, epoch=ctx.epoch)


async def ask(caller: aegis_sdk.Aegis, amount: int) -> None:
    total = await caller.request(ADD, Add(amount=amount), resource="T-1", timeout_s=10.0)
    print(f"+{amount} makes {total.total}, by {total.answered_by} in epoch {total.epoch}")


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with (
        aegis_sdk.connect(url, name="caller") as caller,
        aegis_sdk.connect(url, name="second") as second,
    ):
        async with aegis_sdk.connect(url, name="first") as first:
            await first.serve(totals, resources={"T-1": Role.ACTIVE}, instance_id="totals-1")
            await second.serve(totals, resources={"T-1": Role.STANDBY}, instance_id="totals-2")
            await ask(caller, 1)
            await ask(caller, 10)
        await ask(caller, 100)


if __name__ == "__main__":
    asyncio.run(main())
