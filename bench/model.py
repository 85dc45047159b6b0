"""The work that every measured system does, the same for all: messages, and what a handler does with them.

A request is 256 bytes of JSON, checked by pydantic; a handler updates a position; the reply is about 100
bytes of JSON, checked by the caller. Positions carry count, sum and digest of their fills, so that the
effects can be counted against what was sent. Pure: no loop, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, TypeAdapter

FILL_BYTES: Final = 256
DIGEST_MODULUS: Final = (1 << 61) - 1
"""Sums of squared ids modulo a prime: a loss and a duplicate that cancel out in the count still show."""


class Op(StrEnum):
    """What a caller asks for, and by which route."""

    FILL = "fill"
    """Targeted: changes the position of one account."""
    QUERY = "query"
    """Targeted: reads the position of one account."""
    ORDER = "order"
    """Group: any instance takes it."""


class Fill(BaseModel):
    """An order or a fill; `note` fills it up to FILL_BYTES."""

    id: int
    account: str
    quantity: int
    price: int
    symbol: str = "ESZ6"
    venue: str = "CME"
    note: str = ""


class Lookup(BaseModel):
    """Asks for the position of an account."""

    id: int
    account: str


class Position(BaseModel):
    """The reply to everything: `id` is the id of the request that it answers."""

    id: int
    account: str
    quantity: int = 0
    count: int = 0
    digest: int = 0


_FILL: Final = TypeAdapter(Fill)
_LOOKUP: Final = TypeAdapter(Lookup)
_POSITION: Final = TypeAdapter(Position)


def encode_request(request: Fill | Lookup) -> bytes:
    if isinstance(request, Fill):
        return _FILL.dump_json(request)
    return _LOOKUP.dump_json(request)


def decode_fill(data: bytes) -> Fill:
    """Raises: pydantic.ValidationError."""
    return _FILL.validate_json(data)


def decode_lookup(data: bytes) -> Lookup:
    """Raises: pydantic.ValidationError."""
    return _LOOKUP.validate_json(data)


def encode_position(position: Position) -> bytes:
    return _POSITION.dump_json(position)


def decode_position(data: bytes) -> Position:
    """Raises: pydantic.ValidationError."""
    return _POSITION.validate_json(data)


_BARE_BYTES: Final = len(encode_request(Fill(id=0, account="", quantity=0, price=0))) - 3


def make_fill(request_id: int, account: str, quantity: int, price: int) -> Fill:
    """A fill that is FILL_BYTES long as JSON (ASCII accounts)."""
    used = sum(len(str(value)) for value in (request_id, account, quantity, price))
    note = "x" * (FILL_BYTES - _BARE_BYTES - used)
    return Fill(id=request_id, account=account, quantity=quantity, price=price, note=note)


def digest_after(digest: int, request_id: int) -> int:
    return (digest + request_id * request_id) % DIGEST_MODULUS


def position_after(position: Position | None, fill: Fill) -> Position:
    """The position of `fill.account` after `fill`; None is an account without one."""
    old = position or Position(id=0, account=fill.account)
    return Position(
        id=fill.id,
        account=fill.account,
        quantity=old.quantity + fill.quantity,
        count=old.count + 1,
        digest=digest_after(old.digest, fill.id),
    )


def position_read(position: Position | None, lookup: Lookup) -> Position:
    """The reply to a lookup."""
    if position is None:
        return Position(id=lookup.id, account=lookup.account)
    return position.model_copy(update={"id": lookup.id})


@dataclass(slots=True)
class Book:
    """An instance's state in memory; the rivals keep it this way, AegisIPC in its journal."""

    positions: dict[str, Position] = field(default_factory=dict)
    orders: Position = field(default_factory=lambda: Position(id=0, account=""))

    def fill(self, fill: Fill) -> Position:
        position = self.positions[fill.account] = position_after(
            self.positions.get(fill.account), fill
        )
        return position

    def order(self, order: Fill) -> Position:
        """Orders have no resource: this instance counts those that it took."""
        self.orders = position_after(self.orders, order)
        return Position(id=order.id, account=order.account, quantity=order.quantity)

    def query(self, lookup: Lookup) -> Position:
        return position_read(self.positions.get(lookup.account), lookup)

    def serve(self, op: Op, data: bytes) -> bytes:
        """Bytes in, bytes out: the whole work of a rival's handler. Raises: ValidationError."""
        if op is Op.QUERY:
            return encode_position(self.query(decode_lookup(data)))
        if op is Op.FILL:
            return encode_position(self.fill(decode_fill(data)))
        return encode_position(self.order(decode_fill(data)))
