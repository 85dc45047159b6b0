"""Whatever a callback raises or does, the resource is served, and not before its promotion's callbacks have ended."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest
from aegis_sdk import Method, ResourceContext, Service, testing
from aegis_sdk.application import callbacks as callbacks_module

from tests.adverse.test_handlers_end import ACTS, do, do_now

ADD = Method("ledger", "add", request=int, reply=int)
WAIT_S: Final = 10.0


def ledger() -> Service:
    service = Service("ledger")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, n: int) -> int:
        total: int = (ctx.state.get("total", int) or 0) + n
        ctx.state.set("total", total)
        return total

    return service


@pytest.mark.parametrize("is_async", [False, True])
async def test_whatever_callbacks_raise_the_resource_is_served(is_async: bool) -> None:
    """G1, G8: at each promotion and demotion; the callbacks behind it are called, too."""
    service, act = ledger(), 0
    told: list[str] = []

    async def raise_async(resource: str) -> None:
        await do(act)

    def raise_now(resource: str) -> None:
        do_now(act)

    for on in (service.on_promoted, service.on_demoted):
        on(raise_async if is_async else raise_now)
        on(told.append)
    for n in range(len(ACTS)):
        act = n
        async with testing.harness(service, resources={"A"}) as aegis, asyncio.timeout(WAIT_S):
            assert await aegis.request(ADD, 1, resource="A") == 1
            await aegis.serve(service, resources={"A"}, instance_id="other")
            aegis.bus.control.grant("ledger", "A", "other")
            assert await aegis.request(ADD, 1, resource="A") == 2
    assert len(told) >= 2 * len(ACTS)


async def test_an_async_callback_has_ended_before_the_first_request() -> None:
    """As its docstring says: it may load what the handlers need."""
    service, loaded = ledger(), asyncio.Event()
    begun, order = asyncio.Event(), []

    @service.on_promoted
    async def load(resource: str) -> None:
        begun.set()
        await loaded.wait()
        order.append("loaded")

    @service.handles(Method("ledger", "get", request=int, reply=int))
    async def get(ctx: ResourceContext, n: int) -> int:
        order.append("served")
        return n

    async with testing.harness(service, resources={"A"}) as aegis:
        asked = asyncio.create_task(
            aegis.request(Method("ledger", "get", request=int, reply=int), 1, resource="A")
        )
        await begun.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        loaded.set()
        assert await asked == 1
    assert order == ["loaded", "served"]


async def test_a_callback_that_hangs_is_told_of_and_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """G8: the resource is served in the end."""
    monkeypatch.setattr(callbacks_module, "SLOW_S", 0.02)
    monkeypatch.setattr(callbacks_module, "CALLBACK_S_MAX", 0.08)
    service = ledger()

    @service.on_promoted
    async def hang(resource: str) -> None:
        await asyncio.Event().wait()

    async with testing.harness(service, resources={"A"}) as aegis:
        assert await aegis.request(ADD, 1, resource="A") == 1
    assert "callback_runs_long" in caplog.text
    assert "callback_given_up" in caplog.text


async def test_a_demotion_ends_what_is_left_of_the_promotion() -> None:
    """A late end of it would undo what the demotion's callback did."""
    service, order = ledger(), []
    begun = asyncio.Event()

    @service.on_promoted
    async def hang(resource: str) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            order.append("promotion ended")

    demoted = asyncio.Event()

    @service.on_demoted
    def note(resource: str) -> None:
        order.append("demoted")
        demoted.set()

    async with testing.harness(service, resources={"A"}) as aegis:
        await begun.wait()
        await aegis.serve(service, resources={"A"}, instance_id="other")
        aegis.bus.control.grant("ledger", "A", "other")
        async with asyncio.timeout(WAIT_S):
            await demoted.wait()
    assert order[:2] == ["promotion ended", "demoted"]
