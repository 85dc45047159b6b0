"""One instance of `accounts`, a targeted service: each account has one active at a time.

    python -m aegis_demo.accounts URL INSTANCE_ID ROLE ACCOUNTS_FILE MARKET_FILE

An account's state is its cash, a position a symbol, and the number of bookings. `book` changes all
three or none: the change is stored with the reply, in one message.
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Final

import aegis_sdk
from aegis_sdk import ResourceContext, Resources, Role, Service
from aegis_sdk.errors import Rejected

from aegis_demo import child
from aegis_demo.amounts import EXACT, plain
from aegis_demo.contracts import (
    BOOK,
    CASH_KEY,
    POSITION_PREFIX,
    STATEMENT,
    VERSION_KEY,
    Booked,
    Fill,
    Statement,
    StatementRequest,
)
from aegis_demo.events import Ready
from aegis_demo.market import Market
from aegis_demo.orders import Side


def accounts(market: Market) -> Service:
    """The service that keeps accounts by the rules of `market`."""
    service = Service("accounts")

    @service.handles(BOOK)
    async def book(ctx: ResourceContext, fill: Fill) -> Booked:
        """Book a fill. Rejects: insufficient_cash, position_limit."""
        return _booked(ctx, fill, market)

    @service.handles(STATEMENT)
    async def statement(ctx: ResourceContext, asked: StatementRequest) -> Statement:
        """The account as its active holds it; changes nothing."""
        return _statement(ctx, market)

    return service


def _booked(ctx: ResourceContext, fill: Fill, market: Market) -> Booked:
    cash = _cash_after(ctx, fill, market)
    position = _position_after(ctx, fill, market)
    version = (ctx.state.get(VERSION_KEY, int) or 0) + 1
    ctx.state.set(CASH_KEY, cash)
    ctx.state.set(POSITION_PREFIX + fill.symbol, position)
    ctx.state.set(VERSION_KEY, version)
    return Booked(
        order_id=fill.order_id,
        request_id=ctx.request_id,
        symbol=fill.symbol,
        position=position,
        cash=cash,
        version=version,
    )


def _cash_after(ctx: ResourceContext, fill: Fill, market: Market) -> Decimal:
    cash = _cash(ctx, market)
    amount = EXACT.multiply(fill.quantity, fill.price)
    if fill.side is Side.SELL:
        return EXACT.add(cash, amount)
    if amount > cash:
        message = f"needs {plain(amount)}, has {plain(cash)}"
        raise _rejected(ctx, "insufficient_cash", message)
    return EXACT.subtract(cash, amount)


def _position_after(ctx: ResourceContext, fill: Fill, market: Market) -> Decimal:
    held = _position(ctx, fill.symbol)
    move = EXACT.add if fill.side is Side.BUY else EXACT.subtract
    position = move(held, fill.quantity)
    if position.copy_abs() > market.position_max:
        message = f"would hold {plain(position)}, the limit is {plain(market.position_max)}"
        raise _rejected(ctx, "position_limit", message)
    return position


def _rejected(ctx: ResourceContext, code: str, message: str) -> Rejected:
    return Rejected(code, message, {"request_id": ctx.request_id})


def _cash(ctx: ResourceContext, market: Market) -> Decimal:
    cash = ctx.state.get(CASH_KEY, Decimal)
    return market.opening_cash if cash is None else cash


def _position(ctx: ResourceContext, symbol: str) -> Decimal:
    return ctx.state.get(POSITION_PREFIX + symbol, Decimal) or Decimal(0)


def _statement(ctx: ResourceContext, market: Market) -> Statement:
    keys = [key for key in ctx.state.keys() if key.startswith(POSITION_PREFIX)]  # noqa: SIM118
    symbols = [key.removeprefix(POSITION_PREFIX) for key in keys]
    return Statement(
        account=ctx.resource,
        cash=_cash(ctx, market),
        positions={symbol: _position(ctx, symbol) for symbol in symbols},
        version=ctx.state.get(VERSION_KEY, int) or 0,
    )


ON_DEMAND: Final = "on-demand"
"""Instead of a role: it takes whatever account is asked for."""


async def serve(url: str, instance_id: str, role: str, names: list[str], service: Service) -> None:
    """Serve until the demo ends this process."""
    events = child.EventPipe()
    async with aegis_sdk.connect(url, name=instance_id, wait_s=child.CONNECT_WAIT_S) as aegis:
        resources = Resources("*") if role == ON_DEMAND else dict.fromkeys(names, Role(role))
        instance = await aegis.serve(
            service, resources=resources, instance_id=instance_id, wait_s=child.CONNECT_WAIT_S
        )
        events.send(Ready(instance_id=instance.id))
        await instance.serve_forever()


if __name__ == "__main__":
    url, instance_id, role, names_file, market_file = sys.argv[1:6]
    names = json.loads(Path(names_file).read_text("utf-8"))
    market = Market.model_validate_json(Path(market_file).read_bytes())
    child.run(serve(url, instance_id, role, names, accounts(market)))
