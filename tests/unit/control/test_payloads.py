"""A payload that a person types is compared with the contract: what is wrong is named by its field."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import pytest
from aegis_control.domain.operators.payloads import problems
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter


class Side(Enum):
    BUY = "buy"
    SELL = "sell"


class Leg(BaseModel):
    symbol: str = Field(min_length=1, max_length=8)
    next: Leg | None = None


class Order(BaseModel, extra="forbid"):
    quantity: int = Field(gt=0, le=100)
    side: Side
    price: Decimal | None = None
    kind: Literal["limit", "market"] = "limit"
    legs: list[Leg] = Field(default=[], max_length=2)
    tags: dict[str, int] = {}
    pair: tuple[int, str] = (1, "")
    at: datetime | None = None


SCHEMA = TypeAdapter(Order).json_schema(by_alias=False)
GOOD: dict[str, Any] = {"quantity": 5, "side": "buy"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"quantity": 0}, "quantity: must be greater than 0; got 0"),
        ({"quantity": 101}, "quantity: must be at most 100; got 101"),
        ({"quantity": "5"}, "quantity: must be an integer; got '5'"),
        ({"quantity": True}, "quantity: must be an integer; got True"),
        ({"side": "hold"}, "side: must be one of 'buy', 'sell'; got 'hold'"),
        ({"kind": "stop"}, "kind: must be one of 'limit', 'market'; got 'stop'"),
        ({"price": []}, "price: fits none of the choices (a number or a string or null); got []"),
        ({"legs": [{"symbol": ""}]}, "legs[0].symbol: must have at least 1 characters; has 0"),
        (
            {"legs": [{"symbol": "A", "next": {"symbol": 1}}]},
            "legs[0].next.symbol: must be a string; got 1",
        ),
        ({"legs": [{"symbol": "A"}] * 3}, "legs: must have at most 2 items; has 3"),
        ({"tags": {"a": "b"}}, "tags.a: must be an integer; got 'b'"),
        ({"pair": ["x", "y"]}, "pair[0]: must be an integer; got 'x'"),
        ({"colour": 1}, "colour: is not in the contract"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_by_its_field(fields: dict[str, Any], told: str) -> None:
    assert problems(GOOD | fields, SCHEMA) == [told]


def test_what_is_missing_is_named() -> None:
    assert problems({}, SCHEMA) == ["quantity: is missing", "side: is missing"]
    assert problems([], SCHEMA) == ["payload: must be an object; got []"]


@pytest.mark.parametrize("schema", [{}, {"type": "frob"}, {"$ref": "#/$defs/none"}, {"not": {}}])
def test_what_is_not_understood_of_a_schema_is_not_told(schema: dict[str, Any]) -> None:
    assert problems({"a": 1}, schema) == []


def test_types_that_hold_themselves_and_deep_values_end() -> None:
    around = {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}}
    assert problems(1, around) == []
    deep: dict[str, Any] = {"symbol": "A"}
    for _ in range(500):
        deep = {"symbol": "A", "next": deep}
    assert problems(deep, TypeAdapter(Leg).json_schema()) == []


@given(st.builds(Order, side=st.sampled_from(Side), at=st.none()))
def test_whatever_the_type_writes_fits(order: Order) -> None:
    """A warning that is wrong would keep people from a request that is right."""
    assert problems(order.model_dump(mode="json"), SCHEMA) == []
