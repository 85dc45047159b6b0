"""State that grows: items under keys of their own, and a word about a change that is large."""

from __future__ import annotations

import pytest
from aegis_sdk import InvalidArgument, Method, ReadContext, ResourceContext, Service
from aegis_sdk.log_line import Line
from aegis_sdk.testing import harness

FILL = Method("book", "fill", request=int, reply=int)
WHOLE = Method("book", "whole", request=int, reply=int)
COUNT = Method("book", "count", request=str, reply=int)


def book(*, pure: bool) -> Service:
    """`fill` stores an item under a key of its own, `whole` all of them under one."""
    service = Service("book", large_change_bytes=1_000)

    @service.handles(FILL, pure=pure)
    def fill(ctx: ResourceContext, n: int) -> int:
        before = len(ctx.state.items("fill/", int))
        ctx.state.set(f"fill/{n:06}", n)
        assert len(ctx.state.items("fill/", int)) == before + 1  # it reads what it wrote
        return before + 1

    @service.handles(WHOLE, pure=pure)
    def whole(ctx: ResourceContext, n: int) -> int:
        ctx.state.set("fills", list(range(n)))
        return n

    @service.reads(COUNT)
    def count(ctx: ReadContext, prefix: str) -> int:
        return len(ctx.state.items(prefix))

    return service


@pytest.mark.parametrize("pure", [False, True])
async def test_items_are_read_by_handlers_by_readers_and_by_the_next_active(pure: bool) -> None:
    """G6."""
    async with harness(book(pure=pure), resources={"A"}) as aegis:
        for n in range(20):
            assert await aegis.request(FILL, n, resource="A") == n + 1
        await aegis.serve(book(pure=pure), resources={"A"})
        await aegis.instances[0].kill()
        assert await aegis.request(FILL, 20, resource="A") == 21
        assert await aegis.read(COUNT, "fill/", resource="A") == 21


@pytest.mark.parametrize("pure", [False, True])
async def test_a_large_change_is_told_once_a_method(
    caplog: pytest.LogCaptureFixture, pure: bool
) -> None:
    async with harness(book(pure=pure), resources={"A"}) as aegis:
        await aegis.request(FILL, 1, resource="A")
        for _ in range(3):
            await aegis.request(WHOLE, 500, resource="A")
    told = [record.msg for record in caplog.records if isinstance(record.msg, Line)]
    [line] = [line for line in told if line["event"] == "change_large"]
    assert (line["method"], line["resource"]) == ("whole", "A")
    assert line["change_bytes"] > 1_000
    assert "ctx.state.items" in line["hint"]


def test_the_bound_is_a_whole_number() -> None:
    with pytest.raises(InvalidArgument, match="large_change_bytes"):
        Service("book", large_change_bytes=0)
