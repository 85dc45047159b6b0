"""Ids that a venue takes, the same whenever a handler runs again.

    aegis-control serve --embedded        # in another terminal
    python examples/order_ids.py

The venue here knows an order by its id, as real ones do. The handler breaks after it has sent its orders, and is run again.
"""

from __future__ import annotations

import asyncio
import os
import string

import aegis_sdk
from aegis_sdk import Method, ResourceContext, Retries, Role, Service

SPREAD = Method("desk", "spread", request=list[str], reply=list[str])

desk = Service("desk")
venue: dict[str, str] = {}
runs: list[list[str]] = []


async def send(order_id: str, symbol: str) -> str:
    venue[order_id] = symbol  # a second one of the same id changes nothing
    return order_id


@desk.handles(SPREAD, retries=Retries(attempts=2))
async def spread(ctx: ResourceContext, symbols: list[str]) -> list[str]:
    ids = {s: ctx.order_id(s, length=18, alphabet=string.digits) for s in symbols}
    sent = await asyncio.gather(*(send(ids[s], s) for s in symbols))
    runs.append(sent)
    if len(runs) == 1:
        raise RuntimeError("the connection to the venue broke, after it had the orders")
    return sent


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with aegis_sdk.connect(url, name="order-ids") as aegis:
        await aegis.serve(desk, resources={"ACC-1": Role.ACTIVE})
        await aegis.request(SPREAD, ["ESZ6", "NQZ6"], resource="ACC-1", timeout_s=10.0)
        print(f"the first run sends {runs[0]}")
        print(f"the second run sends the same two: {runs[0] == runs[1]}")
        print(f"the venue has {len(venue)} orders")


if __name__ == "__main__":
    asyncio.run(main())
