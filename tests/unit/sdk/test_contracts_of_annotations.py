"""A contract is read from a handler's annotations, and wrong use is told when the handler is registered."""

from __future__ import annotations

import functools
from collections.abc import Awaitable
from decimal import Decimal
from typing import Annotated, Any

import pytest
from aegis_sdk import Context, ContractError, InvalidName, Method, ReadContext, ResourceContext
from aegis_sdk import Service as ServiceOf
from pydantic import BaseModel, Field, SecretStr


class Fill(BaseModel):
    symbol: str
    quantity: int


class Position(BaseModel):
    quantity: int


class LongPosition(Position):
    """A position that is more than its contract says."""


class Login(BaseModel):
    password: SecretStr


@pytest.fixture
def service() -> ServiceOf:
    return ServiceOf("accounts")


def test_the_annotations_are_the_contract(service: ServiceOf) -> None:
    @service.handles()
    async def book(ctx: ResourceContext, fill: Fill) -> Position:
        return Position(quantity=fill.quantity)

    @service.handles("price-of")
    def price(ctx: Context, symbol: str) -> Annotated[Decimal, Field(gt=0)]:
        return Decimal(1)

    @service.reads("position")
    def position(ctx: ReadContext, query: None) -> Position:
        return Position(quantity=0)

    assert service.methods() == [("book", True), ("price-of", False), ("position", True)]
    declared = Method("accounts", "book", request=Fill, reply=Position)
    found = service.method("book")
    assert (found.service, found.name) == ("accounts", "book")
    assert found.request.schema() == declared.request.schema()
    assert found.reply.schema() == declared.reply.schema()
    assert service.method("price-of").reply.schema()["anyOf"][0]["exclusiveMinimum"] == 0


def test_what_can_be_called_otherwise_says_its_types_too(service: ServiceOf) -> None:
    class Desk:
        async def book(self, ctx: ResourceContext, fill: Fill) -> Position:
            return Position(quantity=fill.quantity)

        def __call__(self, ctx: Context, text: str) -> Awaitable[Position]:
            raise NotImplementedError

    async def with_fee(fee: int, ctx: ResourceContext, fill: Fill) -> Position:
        return Position(quantity=fee)

    service.handles()(Desk().book)
    service.handles("whole")(Desk())
    service.handles("with-fee")(functools.partial(with_fee, 3))
    for name, request in (("book", Fill), ("whole", str), ("with-fee", Fill)):
        assert service.method(name).request.type is request
        assert service.method(name).reply.type is Position


def test_a_method_that_is_not_there_is_named_beside_those_that_are(service: ServiceOf) -> None:
    with pytest.raises(ContractError, match="no method 'book'; it has: none yet"):
        service.method("book")


# --- wrong use ---------------------------------------------------------------------------------------------
async def no_request(ctx: Context, fill) -> Position:  # type: ignore[no-untyped-def]
    raise NotImplementedError


async def no_reply(ctx: Context, fill: Fill):  # type: ignore[no-untyped-def]
    raise NotImplementedError


async def unknown_type(ctx: Context, fill: Nowhere) -> Position:  # type: ignore[name-defined] # noqa: F821
    raise NotImplementedError


async def secret(ctx: Context, login: Login) -> Position:
    raise NotImplementedError


async def unknown_context(ctx: Fill, fill: Fill) -> Position:
    raise NotImplementedError


async def CamelCase(ctx: Context, fill: Fill) -> Position:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (no_request, "no_request: annotate its request"),
        (no_reply, "no_reply: annotate its reply"),
        (unknown_type, "annotated as Nowhere, which its module does not have"),
        (secret, "accounts.secret: Login can't be stored: password"),
        (unknown_context, "annotate its first parameter as Context"),
        (functools.partial(secret), "has no name: write handles"),
    ],
)
def test_what_makes_no_contract_is_refused_by_name(
    service: ServiceOf, handler: Any, said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        service.handles()(handler)
    assert not service.handlers


def test_a_functions_name_that_is_none_of_a_method_is_refused(service: ServiceOf) -> None:
    with pytest.raises(InvalidName, match="CamelCase"):
        service.handles()(CamelCase)


def test_a_decorator_without_parentheses_says_what_to_write(service: ServiceOf) -> None:
    undecorated: Any = no_reply
    with pytest.raises(ContractError, match=r"no_reply: write @service\.handles\(METHOD\)"):
        service.handles(undecorated)
    with pytest.raises(ContractError, match=r"no_reply: write @service\.reads\(METHOD\)"):
        service.reads(undecorated)


def test_a_second_one_of_a_name_is_refused(service: ServiceOf) -> None:
    service.handles("book")(secret_free)
    with pytest.raises(ContractError, match=r"Method\(accounts\.book\) has a handler already"):
        service.handles("book")(secret_free)
    with pytest.raises(ContractError, match="has a handler already"):
        service.reads("book")(read_position)


async def secret_free(ctx: ResourceContext, fill: Fill) -> LongPosition:
    raise NotImplementedError


def read_position(ctx: ReadContext, query: Fill) -> Position:
    raise NotImplementedError


def test_annotations_that_name_another_model_than_the_method_are_refused(
    service: ServiceOf,
) -> None:
    """A kind of the declared one, or what it is a kind of, may be meant so."""
    book = Method("accounts", "book", request=Position, reply=Position)
    with pytest.raises(ContractError, match="the request Position, and its annotation says Fill"):
        service.handles(book)(secret_free)
    with pytest.raises(ContractError, match="the request Position, and its annotation says Fill"):
        service.reads(book)(read_position)
    service.handles(Method("accounts", "book", request=Fill, reply=Position))(secret_free)
    assert service.method("book").reply.type is Position
