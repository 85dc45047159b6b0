"""Resources that come and go while an instance runs, on real NATS and control."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aegis_sdk
import pytest
from aegis_control.infrastructure.admin_client import AdminClient, AdminError
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import (
    Aegis,
    Cancelled,
    InvalidArgument,
    NoRoute,
    NotExecuted,
    PayloadTooLarge,
    Role,
    Unavailable,
)
from aegis_sdk.contract.control import LeaseState, RetireResource

from tests.integration.control.support import control
from tests.integration.sdk.counters import ADD, counters

WAIT_S = 20.0


@contextlib.asynccontextmanager
async def environment() -> AsyncIterator[Aegis]:
    with EmbeddedNats() as server:
        async with control(server.url, "aegis"), aegis_sdk.connect(server.url) as aegis:
            yield aegis


async def test_an_account_comes_at_noon_and_goes_at_one() -> None:
    async with environment() as aegis:
        instance = await aegis.serve(counters(), resources={"A": Role.AUTO})
        assert await aegis.request(ADD, 1, resource="A") == 1
        began_s = time.perf_counter()
        await instance.add(["B"])
        assert await aegis.request(ADD, 5, resource="B") == 5
        assert time.perf_counter() - began_s < 1.0
        assert instance.active_resources == ["A", "B"]
        await instance.remove(["B"])
        assert instance.active_resources == ["A"]
        with pytest.raises(NotExecuted):
            await aegis.request(ADD, 1, resource="B", timeout_s=1.0)
        await instance.add(["B"])
        assert await aegis.request(ADD, 1, resource="B") == 6


async def test_under_calls_a_resource_wanders_between_two_instances_and_loses_nothing() -> None:
    """G1, G3, G7."""
    async with environment() as aegis:
        first = await aegis.serve(counters(), resources={"A": Role.AUTO}, instance_id="a")
        second = await aegis.serve(counters(), instance_id="b")
        done, stop = 0, asyncio.Event()

        async def call() -> None:
            nonlocal done
            while not stop.is_set():
                done += 1
                assert await aegis.request(ADD, 1, resource="A", timeout_s=WAIT_S) == done

        caller = asyncio.create_task(call())
        for _ in range(5):
            for gives, takes in ((first, second), (second, first)):
                await takes.add(["A"])
                await gives.remove(["A"])
                assert gives.active_resources == []
                before = done
                while done < before + 10 and not caller.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        stop.set()
        await caller


async def test_what_waits_for_a_resource_of_nobody_is_served_when_it_is_added() -> None:
    """Also by an instance that passed these requests long ago."""
    async with environment() as aegis:
        service = counters()
        first = await aegis.serve(service, resources={"A": Role.AUTO, "B": Role.AUTO})
        second = await aegis.serve(service, resources={"C": Role.AUTO})
        assert await aegis.request(ADD, 1, resource="A") == 1
        await first.stop()  # as if killed: its resources wait for its return
        tickets = [await aegis.submit(ADD, 1, resource="A") for _ in range(3)]
        ticket = await aegis.submit(ADD, 7, resource="C")
        assert await aegis.attach(ticket.id, ADD) == 7  # so the second one has passed those before
        await second.add(["A"])
        assert [await aegis.attach(t.id, ADD, timeout_s=WAIT_S) for t in tickets] == [2, 3, 4]
        assert await aegis.request(ADD, 1, resource="A") == 5


async def test_a_control_that_comes_back_with_empty_buckets_is_told_what_is_offered_now() -> None:
    with EmbeddedNats() as server:
        async with aegis_sdk.connect(server.url) as aegis:
            async with control(server.url, "aegis"):
                instance = await aegis.serve(
                    counters(), resources={"A": Role.AUTO, "B": Role.AUTO}, instance_id="a"
                )
                await instance.add(["C"])
                await instance.remove(["B"])
            with pytest.raises(Unavailable, match="control"):
                await instance.add(["D"], timeout_s=0.2)
            for name in ("registry", "leases"):
                await aegis._link.api(f"STREAM.DELETE.KV_aegis_{name}", {})
            async with control(server.url, "aegis"), AdminClient(server.url) as operator:
                await _until_routes(operator, {"A": "a", "C": "a"})
                assert await aegis.request(ADD, 1, resource="C") == 1
                await instance.add(["D"])
                assert await aegis.request(ADD, 1, resource="D") == 1


async def _until_routes(operator: AdminClient, wanted: dict[str, str]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(AdminError):
                found = await operator.describe("counters")
                held = {r.resource: r.active for r in found.routes if r.state is LeaseState.HELD}
                if held == wanted:
                    return
            await asyncio.sleep(0.05)


async def test_more_than_one_record_can_hold_is_refused_with_how_many_fit() -> None:
    async with environment() as aegis:
        instance = await aegis.serve(counters(), resources={"A": Role.AUTO})
        with pytest.raises(PayloadTooLarge, match="at most about"):
            await instance.add([f"ACC-{n:0100}" for n in range(20_000)])
        with pytest.raises(InvalidArgument, match="does not offer 'Z'"):
            await instance.remove(["Z"])
        assert await aegis.request(ADD, 1, resource="A") == 1


async def test_a_retired_resource_keeps_its_state_and_comes_back_with_it() -> None:
    """G6; a call to it meanwhile is a clear error, and stored requests refuse the retirement."""
    with EmbeddedNats() as server:
        async with (
            control(server.url, "aegis"),
            aegis_sdk.connect(server.url) as aegis,
            AdminClient(server.url) as operator,
        ):
            instance = await aegis.serve(
                counters(), resources={"A": Role.AUTO, "B": Role.AUTO}, instance_id="a"
            )
            for _ in range(5):
                await aegis.request(ADD, 1, resource="B")
            ticket = await aegis.submit(ADD, 10, resource="B")
            assert await aegis.attach(ticket.id, ADD) == 15
            order = RetireResource(resource="B", by="ann", reason="closed")
            with pytest.raises(AdminError, match="'B' is offered by a"):
                await operator.retire(order)
            await instance.remove(["B"])
            retired = await operator.retire(order)
            assert retired.state == {"total": 15}
            assert retired.outcomes == 6
            with pytest.raises(NoRoute, match="'B' of service 'counters' was retired"):
                await _until_noroute(aegis)
            assert (await operator.status()).resources == {"held": 1, "retired": 1}
            await instance.add(["B"])
            assert await aegis.request(ADD, 1, resource="B") == 16


async def _until_noroute(aegis: Aegis) -> None:
    """The lease follows the log in a moment."""
    while True:
        with contextlib.suppress(Cancelled):
            await aegis.request(ADD, 1, resource="B", timeout_s=0.2)


async def test_requests_that_wait_refuse_a_retirement() -> None:
    with EmbeddedNats() as server:
        async with (
            control(server.url, "aegis", return_grace_s=1.0),
            aegis_sdk.connect(server.url) as aegis,
            AdminClient(server.url) as operator,
        ):
            instance = await aegis.serve(counters(), resources={"A": Role.AUTO}, instance_id="a")
            await aegis.request(ADD, 1, resource="A")
            await instance.stop()
            ticket = await aegis.submit(ADD, 1, resource="A")
            async with asyncio.timeout(WAIT_S):
                while True:
                    with pytest.raises(AdminError) as refused:
                        await operator.retire(RetireResource(resource="A"))
                    if "1 stored requests wait for 'A'" in str(refused.value):
                        break
                    await asyncio.sleep(0.05)
            assert ticket.id in str(refused.value)


@pytest.mark.slow
async def test_ten_thousand_are_added_in_one_go() -> None:
    """Within 2 s on an idle machine; the bound here is for a busy one."""
    async with environment() as aegis:
        instance = await aegis.serve(counters(), resources={"A": Role.AUTO})
        names = [f"ACC-{n}" for n in range(10_000)]
        began_s = time.perf_counter()
        await instance.add(names)
        registered_s = time.perf_counter() - began_s
        await instance.ready()
        assert len(instance.active_resources) == 10_001
        served_s = time.perf_counter() - began_s
        assert await aegis.request(ADD, 1, resource="ACC-9999") == 1
        assert registered_s <= served_s < WAIT_S
        await instance.remove(names)
        assert instance.active_resources == ["A"]
