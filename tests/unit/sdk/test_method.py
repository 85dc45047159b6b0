"""A method's contract checks both sides, and says which field is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from aegis_sdk import InvalidName, InvalidPayload, Method
from pydantic import BaseModel, Field


class Leg(BaseModel):
    quantity: int = Field(gt=0)
    price: Decimal


class Order(BaseModel):
    symbol: str
    legs: list[Leg]
    at: datetime


PLACE = Method("orders", "place", request=Order, reply=int)
ORDER = Order(
    symbol="AAPL",
    legs=[Leg(quantity=1, price=Decimal("1.10"))],
    at=datetime(2026, 1, 2, tzinfo=UTC),
)


def test_a_value_comes_back_as_it_was() -> None:
    assert PLACE.request.decode(PLACE.request.encode(ORDER)) == ORDER
    assert b"\n" not in PLACE.request.encode(ORDER)


def test_each_wrong_field_has_its_line() -> None:
    data = b'{"symbol": 5, "legs": [{"quantity": 0, "price": "1"}, {"quantity": 1}]}'
    with pytest.raises(InvalidPayload) as caught:
        PLACE.request.decode(data)
    assert [line.split(":")[0] for line in caught.value.fields] == [
        "symbol",
        "legs.0.quantity",
        "legs.1.price",
        "at",
    ]
    assert str(caught.value).startswith("request of orders.place: ")
    assert "greater than 0" in caught.value.fields[1]


def test_a_value_without_fields_is_called_payload() -> None:
    with pytest.raises(InvalidPayload) as caught:
        PLACE.reply.decode(b'"many"')
    assert caught.value.fields[0].startswith("payload: ")
    assert str(caught.value).startswith("reply of orders.place: ")


def test_rubbish_is_an_invalid_payload() -> None:
    for data in (b"", b"{", b"\xff"):
        with pytest.raises(InvalidPayload):
            PLACE.request.decode(data)


def test_the_sender_is_checked_too() -> None:
    with pytest.raises(InvalidPayload):
        PLACE.request.encode("an order")  # type: ignore[arg-type]
    wrong = Leg.model_construct(quantity=-1, price=Decimal(1))
    with pytest.raises(InvalidPayload):
        Method("orders", "leg", request=dict, reply=int).reply.encode("x")  # type: ignore[arg-type]
    assert wrong.quantity == -1


def test_names_are_checked_when_a_method_is_made() -> None:
    with pytest.raises(InvalidName):
        Method("Orders", "place", request=int, reply=int)
    with pytest.raises(InvalidName):
        Method("orders", "place order", request=int, reply=int)
    assert repr(PLACE) == "Method(orders.place)"


def test_the_schema_is_json_schema() -> None:
    schema = PLACE.request.schema()
    assert schema["required"] == ["symbol", "legs", "at"]
