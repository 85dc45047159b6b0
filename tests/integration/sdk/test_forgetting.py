"""`ipc-cli forget`: a service that was tried once is removed from everywhere, on real NATS and control."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import aegis_sdk
import nats
import pytest
from aegis_control.infrastructure.admin_client import AdminClient, AdminError
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Aegis, Context, Method, ResourceContext, Role, Service, UnknownService
from aegis_sdk.contract.control import AcceptLoss, ForgetService
from nats.aio.client import Client

from tests.integration.cli.support import run_cli
from tests.integration.control.support import control, until
from tests.integration.sdk.counters import ADD, counters

ECHO = Method("counters", "echo", request=int, reply=int)
ORDER = ForgetService(service="counters", by="ann")


def echoing() -> Service:
    service = counters()

    @service.handles(ECHO)
    async def echo(ctx: Context, n: int) -> int:
        return n

    return service


async def tried_once(aegis: Aegis) -> None:
    instance = await aegis.serve(echoing(), resources={"A": Role.AUTO, "B": Role.AUTO})
    assert await aegis.request(ADD, 1, resource="A") == 1
    ticket = await aegis.submit(ADD, 2, resource="A")
    assert await aegis.attach(ticket.id, ADD) == 3
    assert await aegis.request(ECHO, 5) == 5
    await instance.drain()


async def left_of_it(client: Client, prefix: str) -> list[str]:
    """Every stream, key and dead letter of the service."""
    js = client.jetstream()
    found: list[str] = []
    for stream in await js.streams_info():
        if prefix.casefold() not in str(stream.config.name).casefold():
            continue
        if "counters" in str(stream.config.name):
            found.append(str(stream.config.name))
        info = await js.stream_info(str(stream.config.name), subjects_filter=">")
        subjects = info.state.subjects or {}
        for subject in [s for s in subjects if "counters" in s and ".evt." not in s]:
            last = await js.get_last_msg(str(stream.config.name), subject)
            if "KV-Operation" not in (last.headers or {}):
                found.append(subject)
    return found


async def test_nothing_is_left_and_its_name_begins_anew_also_with_another_leader(
    server: EmbeddedNats, prefix: str
) -> None:
    """G1 of the new one: a service that comes within the same second keeps all that is its own."""
    at = ("--url", server.url, "--prefix", prefix)
    async with AsyncExitStack() as stack:
        first = AsyncExitStack()
        await first.enter_async_context(control(server.url, prefix))
        await stack.enter_async_context(control(server.url, prefix))
        client = await nats.connect(server.url)
        stack.push_async_callback(client.close)
        aegis = await stack.enter_async_context(aegis_sdk.connect(server.url, prefix=prefix))
        operator = await stack.enter_async_context(AdminClient(server.url, prefix=prefix))
        await tried_once(aegis)
        assert len(await left_of_it(client, prefix)) > 5
        dry = await run_cli("forget", "counters", "--dry-run", *at)
        assert (dry.code, dry.out.splitlines()[0]) == (
            0,
            "dry run: counters would be forgotten",
        )
        forgotten = await operator.forget(ORDER)
        assert forgotten.streams[f"{prefix.upper()}_JOURNAL_counters"] > 3
        assert (forgotten.leases, forgotten.records) == (2, 2)
        assert await left_of_it(client, prefix) == []
        for resource in ("A", None):
            with pytest.raises(UnknownService, match="'counters' was never registered here"):
                await aegis.request(ADD if resource else ECHO, 1, resource=resource)
        assert (await operator.status()).services == 0
        assert (await run_cli("forget", "counters", "--yes", *at)).code == 3
        again = await aegis.serve(echoing(), resources={"A": Role.AUTO})
        assert await aegis.request(ADD, 10, resource="A") == 10
        ticket = await aegis.submit(ADD, 5, resource="A")
        assert await aegis.attach(ticket.id, ADD) == 15
        await first.aclose()  # the other replica leads now, if it did not before
        assert await aegis.request(ADD, 1, resource="A") == 16
        with pytest.raises(AdminError, match=f"{again.id} of counters is registered"):
            await operator.forget(ORDER)
        told = (await run_cli("events", "-o", "json", *at)).out
        assert '"verb":"forget"' in told.replace(" ", "")
        await again.drain()
        assert (await operator.forget(ORDER)).leases == 1


async def test_requests_without_an_outcome_refuse_it_of_a_resource_and_of_the_group(
    server: EmbeddedNats, prefix: str
) -> None:
    """G1."""
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
        AdminClient(server.url, prefix=prefix) as operator,
    ):
        instance = await aegis.serve(echoing(), resources={"A": Role.AUTO})
        await aegis.request(ADD, 1, resource="A")
        begun, go_on = asyncio.Event(), asyncio.Event()
        await instance.drain()
        blocked = Service("counters")

        @blocked.handles(ADD)
        async def add(ctx: ResourceContext, delta: int) -> int:
            begun.set()
            await go_on.wait()
            return delta

        @blocked.handles(ECHO)
        async def echo(ctx: Context, n: int) -> int:
            await go_on.wait()
            return n

        instance = await aegis.serve(blocked, resources={"A": Role.AUTO})
        one, two = await aegis.submit(ADD, 1, resource="A"), await aegis.submit(ECHO, 7)
        await begun.wait()
        await instance.drain(timeout_s=0.1)
        with pytest.raises(AdminError, match="2 stored requests of counters have no outcome") as no:
            await operator.forget(ORDER)
        assert one.id in str(no.value) or two.id in str(no.value)
        instance = await aegis.serve(echoing(), resources={"A": Role.AUTO})
        assert await aegis.attach(one.id, ADD) == 2
        assert await aegis.attach(two.id, ECHO) == 7
        await instance.drain()
        assert (await operator.forget(ORDER)).leases == 1


@pytest.mark.parametrize("gone", [["REQ"], ["JOURNAL", "REQ"]])
async def test_what_is_left_when_streams_are_deleted_by_hand_can_be_forgotten(
    server: EmbeddedNats, prefix: str, gone: list[str]
) -> None:
    """Or by a control that died in the middle. The loss goes with it, and the name begins anew."""
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
        AdminClient(server.url, prefix=prefix) as operator,
    ):
        await tried_once(aegis)
        client = await nats.connect(server.url)
        for stream in gone:
            await client.jetstream().delete_stream(f"{prefix.upper()}_{stream}_counters")
        await until(lambda: lost(operator), "the loss is noticed")
        assert len((await operator.forget(ORDER)).streams) == 2 - len(gone)
        assert await left_of_it(client, prefix) == []
        await client.close()
        assert not await lost(operator)
        await aegis.serve(echoing(), resources={"A": Role.AUTO})
        assert await aegis.request(ADD, 10, resource="A") == 10


async def test_requests_whose_outcomes_are_lost_refuse_it_until_they_have_some(
    server: EmbeddedNats, prefix: str
) -> None:
    """G1."""
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
        AdminClient(server.url, prefix=prefix) as operator,
    ):
        await tried_once(aegis)
        client = await nats.connect(server.url)
        await client.jetstream().delete_stream(f"{prefix.upper()}_JOURNAL_counters")
        await client.close()
        await until(lambda: lost(operator), "the loss is noticed")
        with pytest.raises(AdminError, match=r"once its loss is accepted \(ipc-cli accept-loss"):
            await operator.forget(ORDER)
        await operator.accept_loss(AcceptLoss(service="counters"))
        instance = await aegis.serve(echoing(), resources={"A": Role.AUTO})
        await instance.ready()
        await instance.drain()
        await operator.forget(ORDER)


async def lost(operator: AdminClient) -> bool:
    return bool((await operator.checkup()).losses)
