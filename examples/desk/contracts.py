"""What the desk's services say to each other: imported by all, serves nothing."""

from __future__ import annotations

from decimal import Decimal

from aegis_sdk import Event, Method
from pydantic import AwareDatetime, BaseModel


class Order(BaseModel):
    account: str
    symbol: str
    quantity: int
    """Below zero sells."""
    price: Decimal


class Filled(BaseModel):
    order_id: str
    position: int
    cash: Decimal


class Limits(BaseModel):
    account: str
    notional: Decimal


class Result(BaseModel):
    """An account's profit and loss, by the prices of its own trades."""

    fills: int = 0
    cash: Decimal = Decimal(0)
    positions: dict[str, int] = {}
    prices: dict[str, Decimal] = {}

    @property
    def total(self) -> Decimal:
        worth = (quantity * self.prices[symbol] for symbol, quantity in self.positions.items())
        return self.cash + sum(worth, Decimal(0))


CHECK = Method("risk", "check", request=Limits, reply=bool)
"""Any instance of the group answers."""
OPEN = Method("accounts", "open", request=AwareDatetime, reply=str)
"""Until when the account trades, a moment with its zone."""
PLACE = Method("accounts", "place", request=Order, reply=Filled)
CLOSE = Method("accounts", "close", request=str, reply=str)
"""Asked by a timer."""
FILL = Event("accounts", "fill", Order)
RESULT = Method("pnl", "result", request=str, reply=Result)
"""A read: nothing of it is stored."""
