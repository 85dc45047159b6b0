"""Whatever can be called with a context and a request is a handler, or is refused with what to write."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from aegis_sdk import Context, ContractError, HandlerFailed, Method, ResourceContext, Service
from aegis_sdk.testing import harness

if TYPE_CHECKING:
    from aegis_sdk import ResourceContext as OnlyForTypeCheckers

ADD = Method("sums", "add", request=int, reply=int)


async def add(ctx: ResourceContext, n: int) -> int:
    total: int = (ctx.state.get("total", int) or 0) + n
    ctx.state.set("total", total)
    return total


async def add_by(by: int, ctx: ResourceContext, n: int, *, times: int = 1) -> int:
    return await add(ctx, n * by * times)


def noted(function: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Awaitable[int]:
        return function(*args, **kwargs)

    return wrapper


def bare(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Desk:
    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, ctx: ResourceContext, n: int) -> int:
        self.calls += 1
        return await add(ctx, n)

    async def bound(self, ctx: ResourceContext, n: int) -> int:
        return await add(ctx, n)

    @classmethod
    async def of_class(cls, ctx: ResourceContext, n: int) -> int:
        return await add(ctx, n)

    @staticmethod
    async def static(ctx: ResourceContext, n: int) -> int:
        return await add(ctx, n)

    def plain(self, ctx: ResourceContext, n: int) -> Awaitable[int]:
        return add(ctx, n)


class Later:
    """Awaitable, and no coroutine."""

    def __init__(self, ctx: ResourceContext, n: int) -> None:
        self._call = add(ctx, n)

    def __await__(self) -> Any:
        return self._call.__await__()


def returns_later(ctx: ResourceContext, n: int) -> Later:
    return Later(ctx, n)


async def with_annotated(ctx: Annotated[ResourceContext, "of an account"], n: int) -> int:
    return await add(ctx, n)


async def known_by_name(ctx: OnlyForTypeCheckers, n: int) -> int:
    return await add(ctx, n)


known_by_name.__annotations__["ctx"] = "elsewhere.ResourceContext"


@pytest.mark.parametrize(
    "handler",
    [
        functools.partial(add_by, 1),
        functools.partial(add_by, 1, times=1),
        functools.partial(functools.partial(add_by, 1), times=1),
        functools.partial(Desk()),
        noted(add),
        noted(noted(add)),
        Desk(),
        Desk().bound,
        Desk().plain,
        Desk.of_class,
        Desk.static,
        returns_later,
        with_annotated,
        known_by_name,
    ],
    ids=lambda handler: re.sub(" at 0x[0-9a-f]+", "", repr(handler)),
)
async def test_whatever_takes_a_context_and_a_request_serves_and_is_awaited(handler: Any) -> None:
    service = Service("sums")
    service.handles(ADD)(handler)
    assert service.handlers["add"].targeted
    async with harness(service, resources={"R"}) as aegis:
        assert await aegis.request(ADD, 2, resource="R") == 2
        assert await aegis.request(ADD, 3, resource="R") == 5


async def unannotated(ctx, n):  # type: ignore[no-untyped-def]
    return n


async def of_any(ctx: Any, n: int) -> int:
    return n


async def of_both(ctx: Context | ResourceContext, n: int) -> int:
    return n


async def of_int(ctx: int, n: int) -> int:
    return n


async def of_nothing_known(ctx: Elsewhere, n: int) -> int:  # type: ignore[name-defined] # noqa: F821
    return n


async def of_one(ctx: Context) -> int:
    return 1


async def of_three(ctx: Context, n: int, more: int) -> int:
    return n


async def by_name_alone(*, ctx: Context, n: int) -> int:
    return n


async def yields_later(ctx: Context, n: int) -> AsyncIterator[int]:
    yield n


def yields(ctx: Context, n: int) -> Iterator[int]:
    yield n


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (unannotated, "annotate its first parameter as Context .* ResourceContext"),
        (lambda ctx, n: n, "annotate"),
        (bare(add), "annotate"),
        (of_any, "annotate"),
        (of_both, "annotate"),
        (of_int, "annotate"),
        (of_nothing_known, "annotate .* 'Elsewhere'"),
        (of_one, "expected \\(context, request\\)"),
        (of_three, "expected \\(context, request\\)"),
        (by_name_alone, "expected \\(context, request\\)"),
        (Desk.bound, "bound method"),
        (Desk.__dict__["of_class"], "bound method"),
        (functools.partial(of_three, more=1, n=2), "expected"),
        (yields_later, "yields"),
        (yields, "yields"),
        (7, "can't be called"),
        (None, "can't be called"),
        (print, "annotate|expected"),
    ],
)
@pytest.mark.parametrize("pure", [False, True])
def test_a_handler_that_does_not_say_what_it_takes_is_refused(
    handler: Any, said: str, pure: bool
) -> None:
    """Never a handler of the group by silence: its requests would lose their order and their state."""
    service = Service("sums")
    with pytest.raises(ContractError, match=said) as caught:
        service.handles(ADD, pure=pure)(handler)
    assert "handler " in str(caught.value)
    assert not service.handlers


async def test_a_pure_handler_that_returns_something_to_await_has_failed() -> None:
    service = Service("sums")
    service.handles(ADD, pure=True)(noted(add))
    async with harness(service, resources={"R"}) as aegis:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(HandlerFailed, match="register it without pure=True"):
                await aegis.request(ADD, 2, resource="R")


async def test_an_error_of_what_a_plain_handler_returned_is_its_outcome() -> None:
    async def fails(ctx: ResourceContext, n: int) -> int:
        ctx.state.set("total", n)
        raise ValueError("no")

    service = Service("sums")
    service.handles(ADD)(noted(fails))
    async with harness(service, resources={"R"}) as aegis:
        with pytest.raises(HandlerFailed, match="ValueError: no"):
            await aegis.request(ADD, 2, resource="R")
