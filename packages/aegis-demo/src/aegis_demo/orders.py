"""An order, and the generator of a trading day.

The same seed gives the same orders, on every machine: the closing check recomputes the day from it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from aegis_demo.amounts import EXACT
from aegis_demo.market import CLOSE_S, GENERATED, OPEN_S, SYMBOLS, Market

ACCOUNTS: Final = 16
_LIMIT_SHARE: Final = 0.4
"""This part of the orders brings its own price; the others ask `pricing`."""
_OPENING_SHARE: Final = 0.35
_CLOSING_SHARE: Final = 0.35
_RUSH_S: Final = 1_800.0
"""Open and close are half an hour each, and carry most of the day."""
_BURST_MAX: Final = 40
_BURST_S: Final = 0.050


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `limit` None means: at the market's price.

    `at_s` counts from midnight, or from 1970 (UTC) when the order's file has dates.
    """

    order_id: str
    at_s: float
    account: str
    side: Side
    quantity: Decimal
    limit: Decimal | None
    symbol: str


def price_for(order: Order, market: Market) -> Decimal:
    """Its limit; without one the market's ask for a buyer, the bid for a seller."""
    if order.limit is not None:
        return order.limit
    bid, ask = market.price_of(order.symbol, order.at_s)
    return ask if order.side is Side.BUY else bid


def account_names(count: int = ACCOUNTS) -> list[str]:
    return [f"ACC-{number:02d}" for number in range(1, count + 1)]


def generate(count: int, seed: int, accounts: Sequence[str] | None = None) -> list[Order]:
    """`count` orders of one trading day, by time: bursts, most of them around open and close."""
    source = random.Random(seed)
    names = list(accounts or account_names())
    times = _burst_times(source, count)
    return [_order(source, number, at_s, names) for number, at_s in enumerate(times, start=1)]


def _burst_times(source: random.Random, count: int) -> list[float]:
    times: list[float] = []
    while len(times) < count:
        start = _moment(source)
        size = min(1 + int(source.expovariate(1 / 8)), _BURST_MAX, count - len(times))
        times += [start + source.uniform(0, _BURST_S) for _ in range(size)]
    return sorted(round(min(at_s, CLOSE_S), 3) for at_s in times)


def _moment(source: random.Random) -> float:
    draw = source.random()
    if draw < _OPENING_SHARE:
        return OPEN_S + min(source.expovariate(4 / _RUSH_S), _RUSH_S)
    if draw < _OPENING_SHARE + _CLOSING_SHARE:
        return CLOSE_S - min(source.expovariate(4 / _RUSH_S), _RUSH_S)
    return source.uniform(OPEN_S + _RUSH_S, CLOSE_S - _RUSH_S)


def _order(source: random.Random, number: int, at_s: float, accounts: Sequence[str]) -> Order:
    side = Side.BUY if source.random() < 0.55 else Side.SELL
    symbol = source.choice(SYMBOLS)
    order = Order(
        order_id=f"ORD-{number:06d}",
        at_s=at_s,
        account=source.choice(accounts),
        side=side,
        quantity=Decimal(source.randrange(10, 310, 10)),
        limit=None,
        symbol=symbol,
    )
    if source.random() >= _LIMIT_SHARE:
        return order
    away = EXACT.scaleb(Decimal(source.randrange(-50, 51)), -2)
    return replace(order, limit=EXACT.add(price_for(order, GENERATED), away))


def newcomer_in(orders: Sequence[Order]) -> list[Order]:
    """The same day, in which the last account trades from the middle on."""
    *others, newcomer = accounts_of(orders)
    middle = len(orders) // 2
    return [
        (
            replace(order, account=others[n % len(others)])
            if others and n < middle and order.account == newcomer
            else order
        )
        for n, order in enumerate(orders)
    ]


def accounts_of(orders: Iterable[Order]) -> list[str]:
    return sorted({order.account for order in orders})


def write_orders(path: Path, orders: Iterable[Order]) -> None:
    """A JSON list a line, for the gateway process."""
    path.write_text("".join(json.dumps(_fields(order)) + "\n" for order in orders), "utf-8")


def read_orders(path: Path) -> list[Order]:
    with path.open(encoding="utf-8") as lines:
        return [_order_of(json.loads(line)) for line in lines]


def _fields(order: Order) -> list[str | int | float | None]:
    return [
        order.order_id,
        order.at_s,
        order.account,
        order.side,
        str(order.quantity),
        None if order.limit is None else str(order.limit),
        order.symbol,
    ]


def _order_of(fields: list[Any]) -> Order:
    order_id, at_s, account, side, quantity, limit, symbol = fields
    price = None if limit is None else Decimal(limit)
    return Order(order_id, at_s, account, Side(side), Decimal(quantity), price, symbol)
