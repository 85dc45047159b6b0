"""Registering handlers: what is wrong is said when the service is written, not when a request comes."""

from __future__ import annotations

import pytest
from aegis_sdk import (
    Context,
    ContractError,
    InvalidName,
    Method,
    ResourceContext,
    Retries,
    Service,
)

ONE = Method("svc", "one", request=int, reply=int)
TWO = Method("svc", "two", request=str, reply=str)
OTHER = Method("other", "one", request=int, reply=int)


class OwnContext(ResourceContext):
    """A user's own kind of context."""


def test_a_method_of_another_service_is_refused() -> None:
    with pytest.raises(ContractError, match="not a method of service svc"):
        Service("svc").handles(OTHER)


def test_a_second_handler_for_a_method_is_refused() -> None:
    service = Service("svc")

    @service.handles(ONE)
    async def one(ctx: Context, n: int) -> int:
        return n

    with pytest.raises(ContractError, match="already"):
        service.handles(ONE)
    assert list(service.handlers) == ["one"]


def test_a_pure_handler_can_only_compute() -> None:
    service = Service("svc")

    async def waits(ctx: ResourceContext, n: int) -> int:
        return n

    def of_the_group(ctx: Context, n: int) -> int:
        return n

    def computes(ctx: ResourceContext, n: int) -> int:
        return n

    for handler, retries in ((waits, None), (of_the_group, None), (computes, Retries())):
        with pytest.raises(ContractError, match="plain def"):
            service.handles(ONE, pure=True, retries=retries)(handler)
    assert not service.handlers
    service.handles(ONE, pure=True)(computes)
    assert service.handlers["one"].pure


def test_a_handler_takes_a_context_and_a_request() -> None:
    service = Service("svc")
    with pytest.raises(ContractError, match="expected"):

        @service.handles(ONE)
        async def one(n: int) -> int:
            return n

    assert not service.handlers


def test_a_service_name_is_checked() -> None:
    with pytest.raises(InvalidName):
        Service("My Service")


def test_the_type_of_the_context_says_what_a_method_needs() -> None:
    service = Service("svc", version="1.2")

    @service.handles(ONE)
    def one(ctx: OwnContext, n: int) -> int:
        return n

    @service.handles(TWO, retries=Retries(attempts=3))
    async def two(ctx: Context, text: str) -> str:
        return text

    handlers = service.handlers
    assert handlers["one"].targeted
    assert not handlers["two"].targeted
    assert (handlers["one"].is_async, handlers["two"].is_async) == (False, True)
    assert (handlers["one"].retries.attempts, handlers["two"].retries.attempts) == (1, 3)


def test_the_handler_stays_callable_as_it_was() -> None:
    service = Service("svc")

    @service.handles(ONE)
    def one(ctx: Context, n: int) -> int:
        return n + 1

    assert one(None, 1) == 2  # type: ignore[arg-type]


def test_the_registry_is_told_methods_and_schemas() -> None:
    service = Service("svc")

    @service.handles(ONE)
    async def one(ctx: ResourceContext, n: int) -> int:
        return n

    (spec,) = service.specs()
    assert (spec.name, spec.targeted) == ("one", True)
    assert spec.request_schema == {"type": "integer"}
    assert spec.reply_schema == {"type": "integer"}


def test_an_urgent_handler_takes_a_resource() -> None:
    """The group's requests wait for nobody."""
    service = Service("accounts")

    async def cancel(ctx: Context, order: int) -> int:
        return order

    with pytest.raises(ContractError, match="an urgent one passes others of its resource"):
        service.handles(Method("accounts", "cancel", request=int, reply=int), urgent=True)(cancel)
