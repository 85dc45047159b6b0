"""A handler's own refusal is a Rejected at its caller, whatever word it has chosen as its code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest
from aegis_sdk import (
    AegisError,
    Context,
    InvalidPayload,
    Method,
    Rejected,
    ResourceContext,
    Service,
    testing,
)

REFUSE: Final[Method[str, int]] = Method("desk", "refuse", request=str, reply=int)
GROUP: Final[Method[str, int]] = Method("desk", "group", request=str, reply=int)
PURE: Final[Method[str, int]] = Method("desk", "pure", request=str, reply=int)
LARGE: Final[Method[str, int]] = Method("desk", "large", request=str, reply=int)
PASS_ON: Final[Method[str, int]] = Method("front", "pass", request=str, reply=int)


def codes_of(kind: type[AegisError]) -> Iterator[str]:
    if "code" in vars(kind):
        yield kind.code
    for below in kind.__subclasses__():
        yield from codes_of(below)


OURS: Final = sorted({*codes_of(AegisError), "gave_up", "outcome_too_large", "handler", ""})


@pytest.fixture
async def aegis() -> AsyncIterator[testing.MemoryAegis]:
    desk, front = Service("desk"), Service("front")

    @desk.handles(REFUSE)
    async def refuse(ctx: ResourceContext, code: str) -> int:
        raise Rejected(code, "no", {"fields": ["a: b"], "why": code})

    @desk.handles(GROUP)
    def group(ctx: Context, code: str) -> int:
        raise Rejected(code, "no", {"fields": ["a: b"], "why": code})

    @desk.handles(PURE, pure=True)
    def pure(ctx: ResourceContext, code: str) -> int:
        raise Rejected(code, "no", {"fields": ["a: b"], "why": code})

    @desk.handles(LARGE)
    async def large(ctx: ResourceContext, code: str) -> int:
        raise Rejected(code, "no", {"more": "y" * 20_000})

    @front.handles(PASS_ON)
    async def pass_on(ctx: Context, code: str) -> int:
        return await ctx.request(REFUSE, code, resource="A")

    async with testing.harness(desk, resources={"A"}) as aegis:
        await aegis.serve(front)
        yield aegis


def as_raised(error: BaseException, code: str) -> None:
    assert type(error) is Rejected
    assert (error.code, error.message) == (code, "no")
    assert error.details == {"fields": ["a: b"], "why": code}


@pytest.mark.parametrize("code", OURS)
async def test_a_refusal_by_a_code_of_ours_stays_a_refusal_on_every_way(
    aegis: testing.MemoryAegis, code: str
) -> None:
    for method, resource in ((REFUSE, "A"), (PURE, "A"), (GROUP, None), (PASS_ON, None)):
        with pytest.raises(Rejected) as asked:
            await aegis.request(method, code, resource=resource)
        as_raised(asked.value, code)
        ticket = await aegis.submit(method, code, resource=resource)
        with pytest.raises(Rejected) as attached:
            await aegis.attach(ticket.id, method)
        as_raised(attached.value, code)


@pytest.mark.parametrize("code", OURS)
async def test_a_refusal_by_a_code_of_ours_that_is_too_large_stays_one(
    aegis: testing.MemoryAegis, code: str
) -> None:
    aegis.bus.limits.payload_bytes_max = 10_000
    with pytest.raises(Rejected, match="details are left out") as refused:
        await aegis.request(LARGE, code, resource="A")
    assert type(refused.value) is Rejected
    assert refused.value.code == code


async def test_a_refusal_whose_code_is_too_large_stays_one(aegis: testing.MemoryAegis) -> None:
    aegis.bus.limits.payload_bytes_max = 10_000
    ticket = await aegis.submit(REFUSE, "y" * 5_500, resource="A")
    with pytest.raises(Rejected, match="details are left out"):
        await aegis.attach(ticket.id, REFUSE)


async def test_what_the_contract_refuses_keeps_its_own_class(aegis: testing.MemoryAegis) -> None:
    """A payload that the service's version can't read."""
    newer: Method[int, int] = Method("desk", "refuse", request=int, reply=int)
    with pytest.raises(InvalidPayload):
        await aegis.request(newer, 5, resource="A")
