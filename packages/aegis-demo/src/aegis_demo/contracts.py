"""The contracts of the demo's two services: what a caller and a service both import."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from aegis_sdk import Method
from pydantic import BaseModel, Field

from aegis_demo.orders import Side

CASH_KEY: Final = "cash"
VERSION_KEY: Final = "version"
POSITION_PREFIX: Final = "position/"
"""The keys of an account's state; a position's key ends with its symbol."""


class QuoteRequest(BaseModel):
    symbol: str
    at_s: float


class Quote(BaseModel):
    symbol: str
    bid: Decimal
    ask: Decimal


class Fill(BaseModel):
    """An order with its price, to be booked on the account that the request names as resource."""

    order_id: str
    side: Side
    quantity: Decimal = Field(gt=0)
    price: Decimal = Field(gt=0)
    symbol: str


class Booked(BaseModel):
    """The account after the booking. `version` counts all bookings that ever took effect on it."""

    order_id: str
    request_id: str
    symbol: str
    position: Decimal
    cash: Decimal
    version: int


class StatementRequest(BaseModel):
    """Asks for the account that the request names as resource."""


class Statement(BaseModel):
    account: str
    cash: Decimal
    positions: dict[str, Decimal]
    version: int


QUOTE = Method("pricing", "quote", request=QuoteRequest, reply=Quote)
BOOK = Method("accounts", "book", request=Fill, reply=Booked)
STATEMENT = Method("accounts", "statement", request=StatementRequest, reply=Statement)
