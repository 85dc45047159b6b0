"""A desk closes at 16:00 in New York, and an order that nobody fills is taken back: timers.

    aegis-control serve --embedded        # in another terminal
    python examples/close.py

A timer is part of the state: it is set with the handler's outcome, it fires once, and a standby that takes over fires it. Here
the desk closes in a second instead of at 16:00, so that the example ends.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import aegis_sdk
from aegis_sdk import Method, Rejected, ResourceContext, Service

NEW_YORK = ZoneInfo("America/New_York")

OPEN = Method("desks", "open", request=datetime, reply=str)
PLACE = Method("desks", "place", request=str, reply=str)
FILL = Method("desks", "fill", request=str, reply=str)
EXPIRE = Method("desks", "expire", request=str, reply=str)
CLOSE = Method("desks", "close", request=str, reply=str)
SHOW = Method("desks", "show", request=str, reply=dict[str, str])

desks = Service("desks")


@desks.handles(OPEN)
async def open_desk(ctx: ResourceContext, closes_at: datetime) -> str:
    here = closes_at.astimezone(NEW_YORK)
    ctx.later(CLOSE, "for today", at=here, name="close")
    return f"open until {here:%H:%M %Z}"


@desks.handles(PLACE)
async def place(ctx: ResourceContext, order: str) -> str:
    if ctx.state.get("closed", bool):
        raise Rejected("closed", "the desk is closed")
    ctx.state.set(f"order/{order}", "working")
    ctx.later(EXPIRE, order, after_s=0.3, name=f"expire/{order}")
    return "working"


@desks.handles(FILL)
async def fill(ctx: ResourceContext, order: str) -> str:
    ctx.drop_timer(f"expire/{order}")
    ctx.state.set(f"order/{order}", "filled")
    return "filled"


@desks.handles(EXPIRE)
async def expire(ctx: ResourceContext, order: str) -> str:
    ctx.state.set(f"order/{order}", "expired")
    return "expired"


@desks.handles(CLOSE)
async def close(ctx: ResourceContext, why: str) -> str:
    ctx.state.set("closed", True)
    return "closed"


@desks.reads(SHOW)
def show(ctx: aegis_sdk.ReadContext, prefix: str) -> dict[str, str]:
    keys = [key for key in ctx.state.keys() if key.startswith(prefix)]  # noqa: SIM118 - no dict
    return {key: ctx.state.get(key, str) or "" for key in keys}


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with aegis_sdk.connect(url, name="desk") as aegis:
        await aegis.serve(desks, resources={"D-1": aegis_sdk.Role.AUTO}, instance_id="desks-1")

        async def ask(method: Method[str, str], payload: str) -> str:
            return await aegis.request(method, payload, resource="D-1", timeout_s=10.0)

        closes_at = datetime.now(UTC) + timedelta(seconds=1.0)
        opened = await aegis.request(OPEN, closes_at, resource="D-1", timeout_s=10.0)
        print("the desk is", opened.split(" until ")[0])
        await ask(PLACE, "A")
        await ask(PLACE, "B")
        await ask(FILL, "B")
        await asyncio.sleep(0.6)
        orders = await aegis.read(SHOW, "order/", resource="D-1")
        print("orders:", ", ".join(f"{key[6:]} {what}" for key, what in orders.items()))
        await asyncio.sleep(0.8)
        try:
            await ask(PLACE, "C")
        except Rejected as refused:
            print("an order after the close:", refused.code)


if __name__ == "__main__":
    asyncio.run(main())
