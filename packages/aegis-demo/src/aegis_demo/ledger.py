"""What every account must hold in the end, worked out from the orders alone.

It never sees a reply of a service: prices come from the market's function, the rules are applied
here a second time, one order after the other. The service's own code is not imported, so an error
in one of them shows as a difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from aegis_demo.amounts import EXACT
from aegis_demo.market import Market
from aegis_demo.orders import Order, Side, price_for


class Verdict(StrEnum):
    """How an order must end."""

    EXECUTED = "executed"
    INSUFFICIENT_CASH = "insufficient_cash"
    POSITION_LIMIT = "position_limit"


@dataclass(slots=True)
class LedgerAccount:
    cash: Decimal
    positions: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    bookings: int = 0
    """Orders that took effect."""


@dataclass(slots=True)
class Ledger:
    opening_cash: Decimal
    accounts: dict[str, LedgerAccount]
    verdicts: dict[str, Verdict]
    """By order id."""


def keep_ledger(orders: Iterable[Order], market: Market) -> Ledger:
    """The books after `orders`, taken in this order."""
    ledger = Ledger(market.opening_cash, {}, {})
    for order in orders:
        account = ledger.accounts.setdefault(order.account, LedgerAccount(market.opening_cash))
        ledger.verdicts[order.order_id] = _enter(account, order, market)
    return ledger


def _enter(account: LedgerAccount, order: Order, market: Market) -> Verdict:
    change = order.quantity if order.side is Side.BUY else order.quantity.copy_negate()
    cost = EXACT.multiply(change, price_for(order, market))
    cash_after = EXACT.subtract(account.cash, cost)
    position_after = EXACT.add(account.positions[order.symbol], change)
    if cash_after < 0 and order.side is Side.BUY:
        return Verdict.INSUFFICIENT_CASH
    if position_after.copy_abs() > market.position_max:
        return Verdict.POSITION_LIMIT
    account.cash = cash_after
    account.positions[order.symbol] = position_after
    account.bookings += 1
    return Verdict.EXECUTED
