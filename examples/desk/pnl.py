"""Profit and loss: another service's events, each with one effect, in the order of their account."""

from __future__ import annotations

from decimal import Decimal

from aegis_sdk import ReadContext, ResourceContext, Service
from contracts import FILL, RESULT, Order, Result

pnl = Service("pnl")


@pnl.on(FILL, resource=lambda order: order.account, begin="all")
async def on_fill(ctx: ResourceContext, order: Order) -> None:
    result = ctx.state.get("result", Result) or Result()
    result.fills += 1
    result.cash -= order.quantity * order.price
    result.positions[order.symbol] = result.positions.get(order.symbol, 0) + order.quantity
    result.prices[order.symbol] = Decimal(order.price)
    ctx.state.set("result", result)


@pnl.reads(RESULT)
def result(ctx: ReadContext, _: str) -> Result:
    return ctx.state.get("result", Result) or Result()
