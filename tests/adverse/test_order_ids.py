"""Order ids in handlers that run again: by a retry, after a kill, at another instance, in any order of calls."""

from __future__ import annotations

import asyncio
import random
import secrets
import string

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import (
    Context,
    HandlerFailed,
    Instance,
    Method,
    ResourceContext,
    Retries,
    Role,
    Service,
)
from aegis_sdk.testing import harness

from tests.integration.control.support import control

LEGS: Method[list[str], dict[str, str]] = Method(
    "desk", "legs", request=list[str], reply=dict[str, str]
)
NAMES = [f"leg-{n}" for n in range(20)]


async def _ids(ctx: Context, names: list[str], seed: int) -> dict[str, str]:
    """Asked for side by side, in another order each time."""

    async def one(name: str) -> tuple[str, str]:
        for _ in range(random.Random(f"{seed}{name}").randrange(5)):
            await asyncio.sleep(0)
        return name, ctx.order_id(name, length=18, alphabet=string.digits)

    shuffled = random.Random(seed).sample(names, len(names))
    return dict(await asyncio.gather(*(one(name) for name in shuffled)))


async def test_a_retry_has_the_ids_of_the_run_before_it_in_any_order() -> None:
    service = Service("desk")
    seen: list[dict[str, str]] = []

    @service.handles(LEGS, retries=Retries(attempts=4))
    async def legs(ctx: ResourceContext, names: list[str]) -> dict[str, str]:
        seen.append(await _ids(ctx, names, len(seen)))
        if len(seen) < 4:
            raise RuntimeError("after the venue has them")
        return seen[-1]

    async with harness(service, resources={"R"}) as aegis:
        told = await aegis.request(LEGS, NAMES, resource="R", timeout_s=20.0)
        other = await aegis.request(LEGS, NAMES, resource="R")
    assert seen[:4] == [told] * 4
    assert len(set(told.values()) | set(other.values())) == 2 * len(NAMES)


@pytest.mark.parametrize("resource", ["R", None])
async def test_the_next_instance_has_the_ids_of_the_one_that_died(resource: str | None) -> None:
    """Of a resource, and of the group."""
    async with harness() as aegis:
        seen: list[tuple[str, dict[str, str]]] = []
        begun = asyncio.Event()

        def service() -> Service:
            made = Service("desk")

            async def legs(ctx: Context, names: list[str]) -> dict[str, str]:
                seen.append((ctx.instance_id, await _ids(ctx, names, len(seen))))
                if len(seen) == 1:
                    begun.set()
                    await asyncio.Event().wait()
                return seen[-1][1]

            async def targeted(ctx: ResourceContext, names: list[str]) -> dict[str, str]:
                return await legs(ctx, names)

            made.handles(LEGS)(targeted if resource else legs)
            return made

        for _ in range(2):
            await aegis.serve(service(), resources={"R"})
        asked = asyncio.create_task(
            aegis.request(LEGS, NAMES, resource=resource, key="k", timeout_s=20.0)
        )
        await begun.wait()
        first = seen[0][0]
        await next(each for each in aegis.instances if each.id == first).kill()
        assert await asked == seen[0][1]
        assert {instance for instance, _ in seen} == {each.id for each in aegis.instances}


async def test_a_failover_on_nats_keeps_them(server: EmbeddedNats, prefix: str) -> None:
    """G3, beyond the boundary: the venue is asked twice, and sees the same order."""
    seen: list[dict[str, str]] = []
    begun = asyncio.Event()

    def service() -> Service:
        made = Service("desk")

        @made.handles(LEGS)
        async def legs(ctx: ResourceContext, names: list[str]) -> dict[str, str]:
            seen.append(await _ids(ctx, names, len(seen)))
            if len(seen) == 1:
                begun.set()
                await asyncio.Event().wait()
            return seen[-1]

        return made

    async with control(server.url, prefix), aegis_sdk.connect(server.url, prefix=prefix) as aegis:
        instances: list[Instance] = [
            await aegis.serve(service(), resources={"R": Role.AUTO}) for _ in range(2)
        ]
        asked = asyncio.create_task(aegis.request(LEGS, NAMES, resource="R", timeout_s=20.0))
        await begun.wait()
        await next(each for each in instances if each.active_resources).stop()  # as if killed
        assert await asked == seen[0]
        assert seen == [seen[0], seen[0]]


async def test_an_id_that_a_run_has_already_is_refused_by_its_name() -> None:
    """Two orders under one id would be one to the venue, in silence."""
    service = Service("desk")
    one = Method("desk", "one", request=str, reply=list[str])

    @service.handles(one)
    async def twice(ctx: Context, name: str) -> list[str]:
        return [
            ctx.order_id(name),
            ctx.order_id(name, length=36),
            ctx.order_id(name, alphabet=string.digits),
            ctx.order_id(name + "-2"),
            *([ctx.order_id(name)] if name == "again" else []),
        ]

    async with harness(service) as aegis:
        told = await aegis.request(one, "")
        assert len(set(told)) == 4
        with pytest.raises(HandlerFailed, match="order id of name 'again' already"):
            await aegis.request(one, "again")


async def test_a_pure_handler_and_one_in_a_thread_have_them_too() -> None:
    service = Service("desk")
    for name, pure in (("pure", True), ("plain", False)):

        def made(ctx: ResourceContext, symbol: str) -> str:
            return ctx.order_id(symbol, length=32)

        service.handles(Method("desk", name, request=str, reply=str), pure=pure)(made)
    async with harness(service, resources={"R"}) as aegis:
        for method in (each.method for each in service.handlers.values()):
            key = secrets.token_hex(4)
            first = await aegis.request(method, "A", resource="R", key=key)
            assert len(first) == 32
            assert await aegis.request(method, "A", resource="R", key=key) == first
