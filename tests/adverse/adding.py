"""An instance in a process of its own: `python -m tests.adverse.adding URL PREFIX`. Each of its requests takes a moment."""

from __future__ import annotations

import asyncio
import sys

import aegis_sdk
from aegis_sdk import Context, Method, ResourceContext, Role, Service

from tests.adverse.serving import say

ADD: Method[int, int] = Method("slow_sums", "add", request=int, reply=int)
TOTAL: Method[int, int] = Method("slow_sums", "total", request=int, reply=int)
PRICE: Method[int, int] = Method("slow_sums", "price", request=int, reply=int)
STEP_S = 0.02


def slow_sums() -> Service:
    service = Service("slow_sums")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, n: int) -> int:
        await asyncio.sleep(STEP_S)
        total = (ctx.state.get("total", int) or 0) + n
        ctx.state.set("total", total)
        return total

    @service.handles(TOTAL)
    async def total_(ctx: ResourceContext, n: int) -> int:
        return ctx.state.get("total", int) or 0

    @service.handles(PRICE)
    async def price(ctx: Context, n: int) -> int:
        await asyncio.sleep(STEP_S)
        return n

    return service


async def main(url: str, prefix: str) -> None:
    async with aegis_sdk.connect(url, prefix=prefix) as aegis:
        instance = await aegis.serve(slow_sums(), resources={"R": Role.AUTO})
        await instance.ready()
        say("ready", active=instance.active_resources)
        await instance.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
