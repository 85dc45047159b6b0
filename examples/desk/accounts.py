"""Accounts: a resource each, with a state. An order asks risk, changes the position, and tells others by an event."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from aegis_sdk import Rejected, ResourceContext, Service
from contracts import CHECK, CLOSE, FILL, OPEN, PLACE, Filled, Limits, Order

accounts = Service("accounts", emits=[FILL])


@accounts.handles(OPEN)
async def open_account(ctx: ResourceContext, closes_at: datetime) -> str:
    ctx.state.set("open", True)
    ctx.later(CLOSE, "end of day", at=closes_at, name="close")
    return f"{ctx.resource} trades"


@accounts.handles(CLOSE)
async def close(ctx: ResourceContext, why: str) -> str:
    ctx.state.set("open", False)
    return f"{ctx.resource} closed: {why}"


@accounts.handles(PLACE)
async def place(ctx: ResourceContext, order: Order) -> Filled:
    if not ctx.state.get("open", bool):
        raise Rejected("closed", f"{order.account} does not trade now")
    notional = abs(order.quantity) * order.price
    if not await ctx.request(CHECK, Limits(account=order.account, notional=notional)):
        raise Rejected("risk", f"{notional} is more than one order may be worth")
    key = f"position/{order.symbol}"
    position = (ctx.state.get(key, int) or 0) + order.quantity
    cash = (ctx.state.get("cash", Decimal) or Decimal(0)) - order.quantity * order.price
    ctx.state.set(key, position)
    ctx.state.set("cash", cash)
    ctx.emit(FILL, order)
    return Filled(order_id=ctx.order_id(length=18), position=position, cash=cash)
