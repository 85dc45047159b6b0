"""One instance of `pricing`, a group service: any instance answers any request.

python -m aegis_control.demo.pricing URL INSTANCE_ID
"""

from __future__ import annotations

import sys

import aegis_sdk
from aegis_sdk import Context, Service

from aegis_control.demo import child
from aegis_control.demo.contracts import QUOTE, Quote, QuoteRequest
from aegis_control.demo.events import Ready
from aegis_control.demo.market import price_of

pricing = Service("pricing")


@pricing.handles(QUOTE)
async def quote(ctx: Context, asked: QuoteRequest) -> Quote:
    """The market's bid and ask."""
    bid, ask = price_of(asked.symbol, asked.at_s)
    return Quote(symbol=asked.symbol, bid_cents=bid, ask_cents=ask)


async def serve(url: str, instance_id: str) -> None:
    """Serve until the demo ends this process."""
    events = child.EventPipe()
    async with aegis_sdk.connect(url, name=instance_id, wait_s=child.CONNECT_WAIT_S) as aegis:
        instance = await aegis.serve(pricing, instance_id=instance_id, wait_s=child.CONNECT_WAIT_S)
        events.send(Ready(instance_id=instance.id))
        await instance.serve_forever()


if __name__ == "__main__":
    child.run(serve(*sys.argv[1:3]))
