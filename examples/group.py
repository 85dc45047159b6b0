"""A group service: three instances share its requests, and any of them answers.

    aegis-control serve --embedded        # in another terminal
    python examples/group.py

Instances take requests when they have room, so a slow one gets fewer. Here they live in one
process to keep the example short; in production each is its own.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import aegis_sdk
from aegis_sdk import Context, Method, Service
from pydantic import BaseModel


class QuoteRequest(BaseModel):
    symbol: str


class Quote(BaseModel):
    symbol: str
    price: float
    answered_by: str


QUOTE = Method("pricing", "quote", request=QuoteRequest, reply=Quote)

pricing = Service("pricing")


@pricing.handles(QUOTE)
async def quote(ctx: Context, asked: QuoteRequest) -> Quote:
    price = 100.0 + len(asked.symbol)
    return Quote(symbol=asked.symbol, price=price, answered_by=ctx.instance_id)


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with aegis_sdk.connect(url, name="group") as aegis:
        for number in (1, 2, 3):
            await aegis.serve(pricing, instance_id=f"pricing-{number}")
        asked = QuoteRequest(symbol="AAPL")
        quotes = await asyncio.gather(
            *(aegis.request(QUOTE, asked, timeout_s=2.0) for _ in range(60))
        )
        shares = Counter(quote.answered_by for quote in quotes)
        for instance_id, count in sorted(shares.items()):
            print(f"{instance_id} answered {count} of {len(quotes)}")


if __name__ == "__main__":
    asyncio.run(main())
