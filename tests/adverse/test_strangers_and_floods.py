"""Others on the same NATS, and more of everything: strangers' connections, clients that come and go, huge registrations."""

from __future__ import annotations

import asyncio

import aegis_sdk
import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Context, Method, ResourceContext, Role, Service
from aegis_sdk.contract.subjects import GROUP_CONSUMER, Subjects
from nats.aio.msg import Msg

from tests.integration.control.support import SERVICE, Broker, control, until

BOOK = Method(SERVICE, "book", request=int, reply=int)


def accounts() -> Service:
    service = Service(SERVICE)

    @service.handles(BOOK)
    async def book(ctx: ResourceContext, amount: int) -> int:
        return amount

    return service


@pytest.mark.parametrize("account", ["ours", "another"])
async def test_a_stranger_that_is_called_like_an_instance_takes_nothing_from_it(
    server: EmbeddedNats, prefix: str, account: str
) -> None:
    """G8: only the connections that an instance names itself say that it died."""
    url = server.url if account == "ours" else server.system_url
    names = Subjects(prefix)
    async with aegis_sdk.connect(server.url, prefix=prefix) as aegis:
        instance = await _served(server, prefix, aegis, names, url)
    assert instance == "one 1 held"


async def _served(
    server: EmbeddedNats, prefix: str, aegis: aegis_sdk.Aegis, names: Subjects, url: str
) -> str:
    client = await nats.connect(server.url)
    broker = Broker(client, prefix)
    async with control(server.url, prefix, system_url=server.system_url):
        await aegis.serve(accounts(), resources={"A": Role.ACTIVE}, instance_id="one")
        await aegis.serve(accounts(), resources={"A": Role.STANDBY}, instance_id="two")
    # The next leader has not seen the instances' connections opening.
    async with control(server.url, prefix, system_url=server.system_url) as second:

        async def leads() -> bool:
            return second.leading and (await broker.admin("status")).ok

        await until(leads, "the second control leads")
        for kind in ("main", "pulse"):
            stranger = await nats.connect(url, name=names.client_name(SERVICE, "one", kind))
            await stranger.close()
        assert await aegis.request(BOOK, 1, resource="A") == 1
        beats = asyncio.Event()
        heard = 0

        async def count(_: object) -> None:
            nonlocal heard
            heard += 1
            if heard == 3:
                beats.set()

        await client.subscribe(names.heartbeat(SERVICE, "one"), cb=count)
        await beats.wait()
        owner = await broker.owner("A")
        states = [view["state"] for view in (await broker.admin("list-instances")).data]
        assert states == ["live", "live"]
    await client.close()
    return owner


async def test_a_hundred_clients_that_come_and_go_leave_no_consumer(
    server: EmbeddedNats, prefix: str
) -> None:
    names = Subjects(prefix)
    client = await nats.connect(server.url)
    broker = Broker(client, prefix)
    buckets = (f"KV_{names.registry_bucket}", f"KV_{names.leases_bucket}")

    async def consumers() -> int:
        infos = [await broker.api(f"STREAM.INFO.{stream}") for stream in buckets]
        return sum(info["state"]["consumer_count"] for info in infos)

    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        await aegis.serve(accounts(), resources={"A": Role.ACTIVE})
        before = await consumers()
        for n in range(100):
            async with aegis_sdk.connect(server.url, prefix=prefix) as caller:
                assert await caller.request(BOOK, n, resource="A") == n

        async def none_left() -> bool:
            return await consumers() <= before

        await until(none_left, "no consumer is left", deadline_s=3.0)
    await client.close()


async def test_a_member_that_leaves_takes_only_its_own_consumers_along(
    server: EmbeddedNats, prefix: str
) -> None:
    """G1: the group's consumer is all members', and a grant's says from where its successor reads. Its own readers go."""
    client = await nats.connect(server.url)
    broker = Broker(client, prefix)
    service, ask = accounts(), Method(SERVICE, "ask", request=int, reply=int)

    @service.handles(ask)
    async def answer(ctx: Context, number: int) -> int:
        return number

    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        one = await aegis.serve(service, resources={"A": Role.ACTIVE})
        assert await aegis.request(BOOK, 1, resource="A") == 1
        assert await aegis.request(ask, 1) == 1
        asked: list[str] = []

        async def note(message: Msg) -> None:
            asked.append(message.subject)

        await client.subscribe("$JS.API.CONSUMER.DELETE.>", cb=note)
        await client.flush()
        await one.stop()
        await client.flush()
    of_all = f"$JS.API.CONSUMER.DELETE.{broker.subjects.request_stream(SERVICE)}."
    assert asked
    names = [s.removeprefix(of_all) for s in asked if s.startswith(of_all)]
    assert not [name for name in names if name == GROUP_CONSUMER or name.startswith("g-")]
    await client.close()


async def test_more_resources_than_a_record_holds_are_refused_with_the_limit(
    server: EmbeddedNats, prefix: str
) -> None:
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        many = {f"account-{n:06}": Role.AUTO for n in range(60_000)}
        with pytest.raises(
            aegis_sdk.PayloadTooLarge, match=r"60000 resources.*offer at most about"
        ):
            await aegis.serve(accounts(), resources=many)
        few = dict(list(many.items())[:2_000])
        await aegis.serve(accounts(), resources=few)
        assert await aegis.request(BOOK, 1, resource="account-001999") == 1
