"""What control says of two versions of a contract, held against what pydantic then reads."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from aegis_control.domain.leading.contracts import differences
from aegis_sdk import Method
from aegis_sdk.contract.control import MethodSpec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model


def model(**fields: Any) -> Any:
    return create_model("Fill", **fields)


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class Sides(StrEnum):
    BUY = "buy"
    SELL = "sell"
    SHORT = "short"


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int


class Node(BaseModel):
    n: int
    below: list[Node] = []


class NodeOfText(BaseModel):
    n: str
    below: list[NodeOfText] = []


N = model(n=(int, ...))
# What is written, as what; what reads it; what is said of it, in part ("" for nothing).
CASES: list[tuple[Any, Any, Any, str]] = [
    ({"n": 1}, N, N, ""),
    ({"n": 1}, N, model(n=(int, ...), m=(int, 0)), ""),
    ({"n": 1}, N, model(n=(int, ...), m=(int, ...)), ".m: "),
    ({"n": 1, "m": 2}, model(n=(int, ...), m=(int, ...)), N, ""),
    ({"n": 1, "m": 2}, model(n=(int, ...), m=(int, ...)), Closed, ".m: "),
    ({"n": 1}, N, model(n=(float, ...)), ""),
    ({"n": 1.5}, model(n=(float, ...)), N, ".n: "),
    ({"n": "a"}, model(n=(str, ...)), N, ".n: "),
    ({"n": 1}, N, model(n=(int | None, None)), ""),
    ({"n": None}, model(n=(int | None, None)), N, ".n: "),
    ({"n": None}, model(n=(int | None, None)), model(n=(str | int | None, None)), ""),
    ({"n": "short"}, model(n=(Sides, ...)), model(n=(Side, ...)), "'short'"),
    ({"n": "buy"}, model(n=(Side, ...)), model(n=(Sides, ...)), ""),
    ({"n": "buy"}, model(n=(Side, ...)), model(n=(str, ...)), ""),
    ({"n": "c"}, model(n=(Literal["a", "c"], ...)), model(n=(Literal["a", "b"], ...)), "'c'"),
    ({"n": "x"}, model(n=(str, ...)), model(n=(Side, ...)), ".n: "),
    ({"n": 0}, N, model(n=(Annotated[int, Field(gt=0)], ...)), "exclusiveMinimum"),
    ({"n": 5}, model(n=(Annotated[int, Field(gt=3)], ...)), N, ""),
    ({"n": "abc"}, model(n=(str, ...)), model(n=(Annotated[str, Field(max_length=2)], ...)), "max"),
    ({"n": [1]}, model(n=(list[int], ...)), model(n=(list[float], ...)), ""),
    ({"n": ["a"]}, model(n=(list[str], ...)), model(n=(list[int], ...)), ".n[]: "),
    ({"n": {"k": "a"}}, model(n=(dict[str, str], ...)), model(n=(dict[str, int], ...)), ".n{}: "),
    ({"n": ["a", 1]}, model(n=(tuple[str, int], ...)), model(n=(tuple[int, int], ...)), ".n[0]: "),
    ({"n": {"n": "a"}}, model(n=(model(n=(str, ...)), ...)), model(n=(N, ...)), ".n.n: "),
    ({"n": 1, "below": [{"n": 2}]}, Node, Node, ""),
    ({"n": "a", "below": [{"n": "b"}]}, NodeOfText, Node, ".n: "),
    ({"n": "x"}, model(n=(str, ...)), model(n=(datetime, ...)), "format"),
    ({"n": "2026-01-01T00:00:00"}, model(n=(datetime, ...)), model(n=(str, ...)), ""),
    ({"n": "2026-01-01T10:00:00"}, model(n=(datetime, ...)), model(n=(date, ...)), "format"),
    ({"n": "1.5"}, model(n=(Decimal, ...)), model(n=(Decimal, ...)), ""),
    ({"n": 1}, N, model(n=(Any, ...)), ""),
    ({"n": "a"}, model(n=(Any, ...)), N, ".n: "),
    (1, int, int, ""),
    ("a", str, int, "string from"),
]


def spec(request: Any, reply: Any, name: str = "book") -> MethodSpec:
    method = Method("desk", name, request=request, reply=reply)
    return MethodSpec(
        name=name, request_schema=method.request.schema(), reply_schema=method.reply.schema()
    )


@pytest.mark.parametrize(("value", "writer", "reader", "said"), CASES)
def test_what_is_told_is_what_can_not_be_read(
    value: Any, writer: Any, reader: Any, said: str
) -> None:
    """A request is written by the old version and read by the new one, a reply the other way round."""
    written = TypeAdapter(writer).dump_json(TypeAdapter(writer).validate_python(value))
    try:
        TypeAdapter(reader).validate_json(written)
    except ValidationError:
        readable = False
    else:
        readable = True
    of_request = differences([spec(writer, int)], [spec(reader, int)])
    of_reply = differences([spec(int, reader)], [spec(int, writer)])
    assert bool(of_request) is bool(of_reply) is not readable
    if said:
        [one], [other] = of_request, of_reply
        assert said in one
        assert one.startswith("book.request")
        assert said in other
        assert other.startswith("book.reply")


def test_a_method_that_is_gone_is_told_and_a_new_one_is_not() -> None:
    one, two = spec(int, int), spec(int, int, "tally")
    assert differences([one, two], [one]) == ["tally: the method is gone"]
    assert differences([one], [one, two]) == []


def test_each_field_is_told() -> None:
    old, new = model(a=(int, ...), b=(int, ...)), model(a=(str, ...), b=(str, ...), c=(int, ...))
    assert len(differences([spec(old, int)], [spec(new, int)])) == 3
