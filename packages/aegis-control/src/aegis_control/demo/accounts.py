"""One instance of `accounts`, a targeted service: each account has one active at a time.

    python -m aegis_control.demo.accounts URL INSTANCE_ID ROLE ACCOUNTS_FILE

An account's state is its cash, a position a symbol, and the number of bookings. `book` changes all
three or none: the change is stored with the reply, in one message.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import aegis_sdk
from aegis_sdk import ResourceContext, Role, Service
from aegis_sdk.errors import Rejected

from aegis_control.demo import child
from aegis_control.demo.contracts import (
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
from aegis_control.demo.events import Ready
from aegis_control.demo.market import OPENING_CASH_CENTS, POSITION_SHARES_MAX
from aegis_control.demo.orders import Side

accounts = Service("accounts")


@accounts.handles(BOOK)
async def book(ctx: ResourceContext, fill: Fill) -> Booked:
    """Book a fill. Rejects: insufficient_cash, position_limit."""
    cash = _cash_after(ctx, fill)
    position = _position_after(ctx, fill)
    version = (ctx.state.get(VERSION_KEY, int) or 0) + 1
    ctx.state.set(CASH_KEY, cash)
    ctx.state.set(POSITION_PREFIX + fill.symbol, position)
    ctx.state.set(VERSION_KEY, version)
    return Booked(
        order_id=fill.order_id,
        request_id=ctx.request_id,
        symbol=fill.symbol,
        position=position,
        cash_cents=cash,
        version=version,
    )


def _cash_after(ctx: ResourceContext, fill: Fill) -> int:
    cash = _cash(ctx)
    amount = fill.quantity * fill.price_cents
    if fill.side is Side.SELL:
        return cash + amount
    if amount > cash:
        raise _rejected(ctx, "insufficient_cash", f"needs {amount} cents, has {cash}")
    return cash - amount


def _position_after(ctx: ResourceContext, fill: Fill) -> int:
    held = ctx.state.get(POSITION_PREFIX + fill.symbol, int) or 0
    position = held + fill.quantity if fill.side is Side.BUY else held - fill.quantity
    if not -POSITION_SHARES_MAX <= position <= POSITION_SHARES_MAX:
        message = f"would hold {position}, the limit is {POSITION_SHARES_MAX}"
        raise _rejected(ctx, "position_limit", message)
    return position


def _rejected(ctx: ResourceContext, code: str, message: str) -> Rejected:
    return Rejected(code, message, {"request_id": ctx.request_id})


def _cash(ctx: ResourceContext) -> int:
    cash = ctx.state.get(CASH_KEY, int)
    return OPENING_CASH_CENTS if cash is None else cash


@accounts.handles(STATEMENT)
async def statement(ctx: ResourceContext, asked: StatementRequest) -> Statement:
    """The account as its active holds it; changes nothing."""
    held = [key for key in ctx.state.keys() if key.startswith(POSITION_PREFIX)]  # noqa: SIM118
    return Statement(
        account=ctx.resource,
        cash_cents=_cash(ctx),
        positions={key.removeprefix(POSITION_PREFIX): ctx.state.get(key, int) or 0 for key in held},
        version=ctx.state.get(VERSION_KEY, int) or 0,
    )


async def serve(url: str, instance_id: str, role: Role, names: list[str]) -> None:
    """Serve until the demo ends this process."""
    events = child.EventPipe()
    async with aegis_sdk.connect(url, name=instance_id, wait_s=child.CONNECT_WAIT_S) as aegis:
        resources = dict.fromkeys(names, role)
        instance = await aegis.serve(
            accounts, resources=resources, instance_id=instance_id, wait_s=child.CONNECT_WAIT_S
        )
        events.send(Ready(instance_id=instance.id))
        await instance.serve_forever()


if __name__ == "__main__":
    url, instance_id, role, names_file = sys.argv[1:5]
    names = json.loads(Path(names_file).read_text("utf-8"))
    child.run(serve(url, instance_id, Role(role), names))
