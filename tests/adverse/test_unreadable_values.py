"""Any bytes in any bucket and message of ours: skipped, named, and everybody else goes on."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk.contract.control import Role

from tests.adverse.support import publish_raw
from tests.integration.control.support import Broker, Instance, control

STRAYS = [
    (b"$KV.%s_registry.stray", b"x"),
    (b"$KV.%s_registry.service", b"{}"),
    (b"$KV.%s_registry.service.accounts", b'{"service": "accounts", "methods": 7}'),
    (b"$KV.%s_registry.instance.accounts.ghost", b'{"state": "hibernating"}'),
    (b"$KV.%s_registry.no\xfftext.\xfe", b"\xff"),
    (b"$KV.%s_registry.a\x0bb", b"white"),
    (b"$KV.%s_leases.accounts.R3", b'{"service": "accounts", "resource": "R3", "state": "lent"}'),
    (b"$KV.%s_leases.accounts.=FF", b""),
    (b"$KV.%s_leases.\xf0\x28", b""),
    (b"$KV.%s_control.leader", b"\x00\x01"),
    (b"$KV.%s_control.stray", b"\x00\x01"),
    (b"%s.jrn.accounts.R4.fence", b'{"epoch": "many"}'),
    (b"%s.jrn.accounts.=FF.fence", b"\xff"),
    (b"%s.ctl.hb.\xff.\xfe", b"\xff"),
    (b"%s.ctl.hb.accounts.a", b'{"loop_lag_s": Infinity}'),
    (b"%s.ctl.register", b"\xff"),
    (b"%s.met.\xff", b"\xff"),
    (b"%s.met.x", b'{"source": "x", "n": 1, "numbers": 5}'),
    (b"%s.dlq.accounts.x.1", b"\xff"),
    (b"%s.evt.odd", b"\xff"),
]
HEADERS = [b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\nA\xff: \xfe\r\n\r\n", b"garbage\r\n\r\n"]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedNats]:
    with EmbeddedNats() as running:
        yield running


@pytest.fixture
def prefix() -> str:
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
async def broker(server: EmbeddedNats, prefix: str) -> AsyncIterator[Broker]:
    client = await nats.connect(server.url)
    yield Broker(client, prefix)
    await client.close()


async def strew(url: str, prefix: str) -> None:
    for n, (subject, payload) in enumerate(STRAYS):
        headers = HEADERS[n % len(HEADERS)]
        await publish_raw(url, subject % prefix.encode(), payload, headers)


async def test_strays_in_every_bucket_and_message_end_no_leadership(
    server: EmbeddedNats, prefix: str, broker: Broker
) -> None:
    """The leader goes on, the next one leads as well, and what can be read is served and moved."""
    one, two = (Instance(server.url, prefix, name) for name in ("a", "b"))
    try:
        async with control(server.url, prefix):
            for instance in (one, two):
                await instance.connect()
                assert (await instance.register(Role.AUTO, ("R1", "R4"))).ok
            await strew(server.url, prefix)
            await broker.until_owner("a 1 held")
            assert (await broker.admin("failover", resource="R1", to="b")).ok
            await broker.until_owner("b 2 held")
        async with control(server.url, prefix):
            assert (await broker.admin("failover", resource="R1", to="a")).ok
            await broker.until_owner("a 3 held")
            # Its lease says the epoch, so its fence is written again.
            await broker.until_owner("a 1 held", "R4")
            assert (await one.register(Role.AUTO, ("R1", "R3", "R4"), returning=True)).ok
            assert await broker.lease("R1") is not None
            reply = await broker.admin("checkup")
            told = {(view["where"], view["key"]) for view in reply.data["unreadable"]}
            assert {
                (f"{prefix}_registry", "stray"),
                (f"{prefix}_registry", "service.accounts"),
                (f"{prefix}_registry", "instance.accounts.ghost"),
                (f"{prefix}_registry", "no\\xfftext.\\xfe"),
                (f"{prefix}_leases", "accounts.R3"),
                (f"{prefix}_leases", "accounts.=FF"),
            } <= told
    finally:
        await asyncio.gather(one.close(), two.close())
