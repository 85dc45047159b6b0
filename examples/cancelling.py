"""Giving up on purpose: a cancel has a definite answer, and a caller that leaves takes its request with it.

aegis-control serve --embedded        # in another terminal
python examples/cancelling.py
"""

from __future__ import annotations

import asyncio
import os

import aegis_sdk
from aegis_sdk import Method, OutcomeKind, ResourceContext, Role, Service

WORK = Method("book", "work", request=int, reply=list[int])

book = Service("book")
begun, go_on = asyncio.Event(), asyncio.Event()


@book.handles(WORK)
async def work(ctx: ResourceContext, order: int) -> list[int]:
    if order == 2:  # it waits for a market that does not come
        begun.set()
        await go_on.wait()
    orders = [*(ctx.state.get("orders", list[int]) or []), order]
    ctx.state.set("orders", orders)
    return orders


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with aegis_sdk.connect(url, name="cancelling") as aegis:
        await aegis.serve(book, resources={"ESZ6": Role.ACTIVE})
        first = await aegis.submit(WORK, 1, resource="ESZ6")
        second = await aegis.submit(WORK, 2, resource="ESZ6")
        await begun.wait()

        third = aegis.request(WORK, 3, resource="ESZ6", key="order-3", timeout_s=60.0)
        try:
            async with asyncio.timeout(0.1):  # as a web server does when its client disconnects
                await third
        except TimeoutError:
            pass

        ended = await aegis.cancel(second.id)
        print(f"the working order: {ended}")
        if await aegis.cancel(first.id) is OutcomeKind.EXECUTED:
            print("the one before it: executed")
        print(f"the one that its client left: {await aegis.cancel('key-book.order-3')}")
        go_on.set()
        orders = await aegis.request(WORK, 4, resource="ESZ6")
        print(f"the book holds {orders}")


if __name__ == "__main__":
    asyncio.run(main())
