"""One instance of `pricing`, a group service: any instance answers any request.

python -m aegis_demo.pricing URL INSTANCE_ID MARKET_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import aegis_sdk
from aegis_sdk import Context, Service

from aegis_demo import child
from aegis_demo.contracts import QUOTE, Quote, QuoteRequest
from aegis_demo.events import Ready
from aegis_demo.market import Market


def pricing(market: Market) -> Service:
    """The service that quotes `market`."""
    service = Service("pricing")

    @service.handles(QUOTE)
    async def quote(ctx: Context, asked: QuoteRequest) -> Quote:
        """The market's bid and ask."""
        bid, ask = market.price_of(asked.symbol, asked.at_s)
        return Quote(symbol=asked.symbol, bid=bid, ask=ask)

    return service


async def serve(url: str, instance_id: str, service: Service) -> None:
    """Serve until the demo ends this process."""
    events = child.EventPipe()
    async with aegis_sdk.connect(url, name=instance_id, wait_s=child.CONNECT_WAIT_S) as aegis:
        instance = await aegis.serve(service, instance_id=instance_id, wait_s=child.CONNECT_WAIT_S)
        events.send(Ready(instance_id=instance.id))
        await instance.serve_forever()


if __name__ == "__main__":
    url, instance_id, market_file = sys.argv[1:4]
    market = Market.model_validate_json(Path(market_file).read_bytes())
    child.run(serve(url, instance_id, pricing(market)))
