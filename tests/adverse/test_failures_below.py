"""A failure deep in a chain of calls is said once, with the way to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from aegis_sdk import Context, HandlerFailed, Method, Rejected, Service, testing

NAMES: Final = ("first", "second", "third", "fourth")
METHODS: Final[dict[str, Method[int, int]]] = {
    name: Method(name, "go", request=int, reply=int) for name in NAMES
}


async def asked(ctx: Context, method: Method[int, int], n: int) -> int:
    return await ctx.request(method, n)


async def asked_in_a_group(ctx: Context, method: Method[int, int], n: int) -> int:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ctx.request(method, n))
        group.create_task(asyncio.Event().wait())
    return task.result()


def blocking(ctx: Context, method: Method[int, int], n: int) -> int:
    return ctx.request_blocking(method, n)


def service(name: str, below: str | None, ask: Callable[..., Any]) -> Service:
    made = Service(name)
    if below is None:

        @made.handles(METHODS[name])
        async def breaks(ctx: Context, n: int) -> int:
            if n < 0:
                raise Rejected("negative", "no")
            raise ValueError("boom")

        return made
    method = METHODS[below]
    if ask is blocking:

        @made.handles(METHODS[name])
        def waits(ctx: Context, n: int) -> int:
            return blocking(ctx, method, n)

    else:

        @made.handles(METHODS[name])
        async def asks(ctx: Context, n: int) -> int:
            reply: int = await ask(ctx, method, n)
            return reply

    return made


@pytest.fixture(params=[asked, asked_in_a_group, blocking], ids=lambda ask: ask.__name__)
async def aegis(request: pytest.FixtureRequest) -> AsyncIterator[testing.MemoryAegis]:
    async with testing.harness() as aegis:
        for name, below in zip(NAMES, (*NAMES[1:], None), strict=True):
            await aegis.serve(service(name, below, request.param))
        yield aegis


async def test_a_failure_is_said_once_however_deep_it_was(aegis: testing.MemoryAegis) -> None:
    for n, name in enumerate(NAMES):
        with pytest.raises(HandlerFailed) as caught:
            await aegis.request(METHODS[name], 1)
        way = [f"{each}.go" for each in NAMES[n:]]
        assert str(caught.value) == f"{' > '.join(way)}: ValueError: boom"
        assert caught.value.path == tuple(way)
    stored = aegis.bus.outcomes("first")
    ticket = await aegis.submit(METHODS["first"], 1)
    with pytest.raises(HandlerFailed, match=r"^first\.go > second\.go > .*: ValueError: boom$"):
        await aegis.attach(ticket.id, METHODS["first"])
    assert all(b"ValueError: boom" in outcome.body for outcome in stored.values())


async def test_a_refusal_from_below_is_passed_on_as_it_is(aegis: testing.MemoryAegis) -> None:
    with pytest.raises(Rejected) as caught:
        await aegis.request(METHODS["first"], -1)
    assert str(caught.value) == "negative: no"
