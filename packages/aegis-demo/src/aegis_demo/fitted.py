"""The market that fits a file's orders: pure.

A file is taken as what really happened, so by itself no order of it is rejected: each account can pay
for all that it buys in the file without counting on its sales, and hold all that it trades of a symbol.
A market's price stays near the prices that the file has for the symbol, with as many decimals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

from aegis_demo.amounts import EXACT, rounded_up
from aegis_demo.market import Market
from aegis_demo.orders import Order, Side, price_for


def fitted_market(orders: Sequence[Order]) -> Market:
    """One market for all accounts; its limits are round numbers that none of `orders` reaches."""
    market = Market(
        opening_cash=Decimal(0), position_max=Decimal(0), references=_references(orders)
    )
    return market.model_copy(
        update={
            "opening_cash": rounded_up(_most_spent(orders, market)),
            "position_max": rounded_up(_most_traded(orders)),
        }
    )


def _references(orders: Sequence[Order]) -> dict[str, Decimal]:
    """By symbol: the file's first price, written with the most decimals that its prices have."""
    first: dict[str, Decimal] = {}
    ticks: dict[str, Decimal] = {}
    for order in orders:
        if order.limit is not None:
            first.setdefault(order.symbol, order.limit)
            tick = _tick(order.limit)
            ticks[order.symbol] = min(tick, ticks.get(order.symbol, tick))
    return {symbol: EXACT.quantize(price, ticks[symbol]) for symbol, price in first.items()}


def _tick(price: Decimal) -> Decimal:
    exponent = price.as_tuple().exponent
    assert isinstance(exponent, int)  # a price is a number
    return EXACT.scaleb(Decimal(1), min(exponent, 0))


def _most_spent(orders: Sequence[Order], market: Market) -> Decimal:
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for order in orders:
        if order.side is Side.BUY:
            cost = EXACT.multiply(order.quantity, price_for(order, market))
            spent[order.account] = EXACT.add(spent[order.account], cost)
    return max(spent.values(), default=Decimal(0))


def _most_traded(orders: Sequence[Order]) -> Decimal:
    traded: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for order in orders:
        held = order.account, order.symbol
        traded[held] = EXACT.add(traded[held], order.quantity)
    return max(traded.values(), default=Decimal(0))
