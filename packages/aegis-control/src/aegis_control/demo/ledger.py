"""What every account must hold in the end, worked out from the orders alone.

It never sees a reply of a service: prices come from the market's function, the rules are applied
here a second time, one order after the other. The service's own code is not imported, so an error
in one of them shows as a difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from aegis_control.demo.market import OPENING_CASH_CENTS, POSITION_SHARES_MAX
from aegis_control.demo.orders import Order, Side, market_price_cents


class Verdict(StrEnum):
    """How an order must end."""

    EXECUTED = "executed"
    INSUFFICIENT_CASH = "insufficient_cash"
    POSITION_LIMIT = "position_limit"


@dataclass(slots=True)
class LedgerAccount:
    cash_cents: int = OPENING_CASH_CENTS
    positions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    bookings: int = 0
    """Orders that took effect."""


@dataclass(slots=True)
class Ledger:
    accounts: dict[str, LedgerAccount]
    verdicts: dict[str, Verdict]
    """By order id."""


def keep_ledger(orders: Iterable[Order]) -> Ledger:
    """The books after `orders`, taken in this order."""
    ledger = Ledger({}, {})
    for order in orders:
        account = ledger.accounts.setdefault(order.account, LedgerAccount())
        ledger.verdicts[order.order_id] = _enter(account, order)
    return ledger


def _enter(account: LedgerAccount, order: Order) -> Verdict:
    price = order.limit_cents if order.limit_cents is not None else market_price_cents(order)
    direction = 1 if order.side is Side.BUY else -1
    cash_after = account.cash_cents - direction * order.quantity * price
    position_after = account.positions[order.symbol] + direction * order.quantity
    if cash_after < 0 and order.side is Side.BUY:
        return Verdict.INSUFFICIENT_CASH
    if abs(position_after) > POSITION_SHARES_MAX:
        return Verdict.POSITION_LIMIT
    account.cash_cents = cash_after
    account.positions[order.symbol] = position_after
    account.bookings += 1
    return Verdict.EXECUTED
