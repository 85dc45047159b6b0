"""A registered contract as an AsyncAPI document: valid by AsyncAPI's own schema, and of the same values as pydantic's."""

from __future__ import annotations

import json
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pytest
from aegis_control.domain.operators.asyncapi import document
from aegis_sdk import Context, Event, Method, ReadContext, ResourceContext, Service
from aegis_sdk.contract.control import MethodSpec, ServiceRecord
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import BaseModel, Field, create_model

# @asyncapi/specs 6.11.1, Apache License 2.0: schemas/3.0.0-without-$id.json without descriptions, examples, and
# the bindings of other protocols.
SCHEMA: Final = json.loads((Path(__file__).parent / "files" / "asyncapi-3.0.0.json").read_text())


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class Limit(BaseModel):
    kind: Literal["limit"]
    price: Annotated[Decimal, Field(gt=0)]


class Market(BaseModel):
    kind: Literal["market"]


class Order(BaseModel):
    """What a trader wants."""

    side: Side
    quantity: int = Field(ge=1, le=1_000, description="shares")
    how: Annotated[Limit | Market, Field(discriminator="kind")]
    discriminator: str = "a field of this name"
    tags: dict[str, str] = {}
    span: tuple[int, str] = (1, "a")
    legs: list[Order] = []


class Filled(BaseModel):
    order: Order
    at: list[Decimal] = []


FILLED: Final = Event("desk", "filled", Filled)


def desk() -> Service:
    service = Service("desk", version="1.4.2", emits=[FILLED])

    @service.handles()
    async def place(ctx: ResourceContext, order: Order) -> Filled:
        raise NotImplementedError

    @service.handles()
    async def quote(ctx: Context, symbol: str) -> Decimal | None:
        raise NotImplementedError

    @service.reads()
    def last(ctx: ReadContext, query: None) -> Filled:
        raise NotImplementedError

    return service


def documented(service: Service, prefix: str = "aegis") -> dict[str, Any]:
    record = ServiceRecord(
        service=service.name,
        methods=service.specs(),
        events=service.event_specs(),
        version=service.version,
    )
    # As control gives it: through JSON.
    return document(ServiceRecord.model_validate_json(record.model_dump_json()), prefix)


def complaints(found: Any) -> list[str]:
    return [
        f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}"
        for e in Draft7Validator(SCHEMA).iter_errors(found)
    ]


def payload(found: dict[str, Any], message: str) -> Draft7Validator:
    """What checks a message's payload by the document alone."""
    schema = found["components"]["messages"][message]["payload"]
    return Draft7Validator(schema | {"components": found["components"]})


def test_it_is_valid_by_asyncapis_own_schema() -> None:
    found = documented(desk())
    assert complaints(found) == []
    assert complaints(found | {"operations": {"place": {"action": "fly"}}}), "the schema bites"


def test_each_method_is_an_operation_with_its_address() -> None:
    found = documented(desk(), prefix="test")
    assert {name: c["address"] for name, c in found["channels"].items()} == {
        "resource": "test.at.desk.{resource}",
        "group": "test.any.desk.{instance}",
        "read": "test.read.desk.active.{resource}",
        "replies": "test.rep.{caller}.{number}",
        "event.filled": "test.evt.desk.filled.{resource}.{caller}.{number}.{place}",
    }
    ways = {name: o["channel"]["$ref"] for name, o in found["operations"].items()}
    assert ways == {
        "place": "#/channels/resource",
        "quote": "#/channels/group",
        "last": "#/channels/read",
        "event.filled": "#/channels/event.filled",
    }
    assert found["operations"]["event.filled"]["action"] == "send"
    assert found["operations"]["place"]["bindings"] == {"nats": {"bindingVersion": "0.1.0"}}
    assert (found["info"]["title"], found["info"]["version"]) == ("desk", "1.4.2")


def test_it_takes_and_refuses_what_pydantics_schema_does() -> None:
    found = documented(desk())
    takes = payload(found, "place.request")
    good = {"side": "buy", "quantity": 1, "how": {"kind": "market"}, "legs": []}
    bad: list[Any] = [
        good | {"side": "hold"},
        good | {"quantity": 0},
        good | {"how": {"kind": "limit"}},
        good | {"span": [1, 2]},
        good | {"span": [1, "a", 3]},
        good | {"legs": [good | {"quantity": 5_000}]},
        {"side": "buy"},
    ]
    itself = Draft202012Validator(Method("desk", "x", request=Order, reply=int).request.schema())
    for value in (good, *bad):
        assert takes.is_valid(value) == itself.is_valid(value) == (value is good), value


def test_what_is_no_reference_stays_as_it_is() -> None:
    order = documented(desk())["components"]["schemas"]["Order"]
    assert order["properties"]["discriminator"]["default"] == "a field of this name"
    assert order["properties"]["how"]["discriminator"] == "kind"
    default = {"$ref": "#/$defs/Side"}
    schema = {"type": "object", "properties": {"$ref": {"default": default}}, "default": default}
    record = ServiceRecord(service="desk", methods=[MethodSpec(name="x", request_schema=schema)])
    assert document(record, "aegis")["components"]["messages"]["x.request"]["payload"] == schema


def test_two_types_of_one_name_are_two_and_one_type_is_one() -> None:
    """A type that is the same by its words, and holds another one of the same name, is another type."""
    first = create_model("Inner", n=(int, ...))
    second = create_model("Inner", n=(str, ...))
    service = Service("desk")
    for name, inner in (("a", first), ("b", second), ("c", first)):
        outer = create_model("Outer", inner=(inner, ...))

        async def handler(ctx: Context, asked: Any) -> None:
            raise NotImplementedError

        method: Method[Any, Any] = Method("desk", name, request=list[outer], reply=None)  # type: ignore[arg-type]
        service.handles(method)(handler)
    found = documented(service)
    assert complaints(found) == []
    assert sorted(found["components"]["schemas"]) == ["Inner", "Inner-2", "Outer", "Outer-2"]
    takes = {name: payload(found, f"{name}.request") for name in "abc"}
    assert [takes[name].is_valid([{"inner": {"n": 1}}]) for name in "abc"] == [True, False, True]


@pytest.mark.parametrize("schema", [{}, {"type": "integer"}, {"$ref": "#/$defs/Gone"}])
def test_whatever_another_version_registered_makes_a_document(schema: dict[str, Any]) -> None:
    record = ServiceRecord(
        service="desk",
        methods=[MethodSpec(name="x", request_schema=schema, reply_schema=schema)],
    )
    assert document(record, "aegis")["info"]["version"] == "unversioned"
