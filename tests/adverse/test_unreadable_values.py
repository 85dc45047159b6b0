"""Any bytes in any bucket and message of ours: skipped, named, and everybody else goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aegis_sdk
import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Method, ResourceContext, Role, Service
from aegis_sdk.contract.turns.entries import TURN
from aegis_sdk.contract.turns.subjects import LogSubjects

from tests.adverse.support import publish_raw
from tests.integration.cli.support import run_cli
from tests.integration.control.support import SERVICE, Broker, Instance, control, until

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
    (b"%s.jrn.accounts.own.many", b'{"moves": 7}'),
    (b"%s.jrn.accounts.gate.=FF", b"\xff"),
    (b"%s.jrn.accounts.at.=FF.state", b"\xff"),
    (b"%s.ctl.hb.\xff.\xfe", b"\xff"),
    (b"%s.ctl.hb.accounts.a", b'{"loop_lag_s": Infinity}'),
    (b"%s.ctl.register", b"\xff"),
    (b"%s.met.\xff", b"\xff"),
    (b"%s.met.x", b'{"source": "x", "n": 1, "numbers": 5}'),
    (b"%s.dlq.accounts.x.1", b"\xff"),
    (b"%s.evt.odd", b"\xff"),
]
HEADERS = [b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\nA\xff: \xfe\r\n\r\n", b"garbage\r\n\r\n"]


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
            assert (await broker.admin("failover", resources=["R1"], to="b")).ok
            await broker.until_owner("b 2 held")
        async with control(server.url, prefix):
            assert (await broker.admin("failover", resources=["R1"], to="a")).ok
            await broker.until_owner("a 3 held")
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


BOOK = Method(SERVICE, "book", request=int, reply=int)


def accounts(holds: asyncio.Event | None = None) -> Service:
    service = Service(SERVICE)

    @service.handles(BOOK)
    async def book(ctx: ResourceContext, amount: int) -> int:
        total = (ctx.state.get("total", int) or 0) + amount
        ctx.state.set("total", total)
        if holds is not None:
            await holds.wait()
        return total

    return service


@pytest.mark.parametrize("time", ["1e300", "-1e300", "2e11", "1180591620717411303424"])
async def test_operators_read_past_times_that_are_none(
    server: EmbeddedNats, prefix: str, time: str
) -> None:
    event = b'{"event": "odd", "time": %s}' % time.encode()
    async with control(server.url, prefix):
        await publish_raw(server.url, b"%s.evt.odd" % prefix.encode(), event)
        shown = await run_cli("events", "--url", server.url, "--prefix", prefix)
    assert shown.code == 0, shown.err
    assert "odd" in shown.out


async def test_an_outcome_that_can_not_be_read_is_a_definite_answer_in_time(
    server: EmbeddedNats, prefix: str, broker: Broker
) -> None:
    """G4: the caller does not hang past its deadline, and neither do the others of its connection."""
    holds = asyncio.Event()
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        await aegis.serve(accounts(holds), resources={"A": Role.ACTIVE, "B": Role.ACTIVE})
        ticket = await aegis.submit(BOOK, 1, resource="A")
        name = LogSubjects(broker.subjects, SERVICE).single("A", ticket.id)
        header = f"NATS/1.0\r\n{TURN}: {ticket.id}\r\n\r\n"
        await publish_raw(server.url, name.encode(), b"\xff", header.encode())
        reply = broker.subjects.reply("\xff").encode("latin-1")
        await publish_raw(server.url, reply, b"\xff")
        with pytest.raises(aegis_sdk.OutcomeUnreadable, match=ticket.id):
            await aegis.attach(ticket.id, BOOK, timeout_s=2.0)
        other = asyncio.create_task(aegis.request(BOOK, 5, resource="B", timeout_s=3.0))
        with pytest.raises(aegis_sdk.NotExecuted):  # nobody knows its state
            await aegis.request(BOOK, 2, resource="A", timeout_s=0.5)
        holds.set()
        assert await other == 5


async def test_a_checkpoint_that_can_not_be_read_keeps_its_resource_from_this_version_alone(
    server: EmbeddedNats, prefix: str, broker: Broker
) -> None:
    """G6: no state without it; its instance starts, serves the rest, and leaves the resource to another."""
    subject = LogSubjects(broker.subjects, SERVICE).checkpoint("A")
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        first = await aegis.serve(accounts(), resources={"A": Role.AUTO, "B": Role.AUTO})
        assert await aegis.request(BOOK, 4, resource="A") == 4
        await first.drain()
        stream = broker.subjects.journal_stream(SERVICE)
        newest = b'{"form": "of a newer version"}'
        await publish_raw(server.url, subject.encode(), newest)

        async def stored() -> bool:
            return await broker.last(stream, subject) == newest

        await until(stored, "the newer checkpoint is stored")
        older = await aegis.serve(accounts(), resources={"A": Role.AUTO, "B": Role.AUTO})
        assert await aegis.request(BOOK, 1, resource="B") == 1

        async def left() -> bool:
            lease = await broker.lease("A")
            return lease is not None and lease.state.value == "vacant"

        await until(left, "A is given up")
        with pytest.raises(aegis_sdk.NoRoute):
            await aegis.request(BOOK, 1, resource="A", timeout_s=2.0)
        assert older.active_resources == ["B"]
        await broker.api(f"STREAM.PURGE.{stream}", {"filter": subject})
        newer = await aegis.serve(accounts(), resources={"A": Role.AUTO})
        assert await aegis.request(BOOK, 1, resource="A") == 5
        assert newer.active_resources == ["A"]


async def test_records_of_a_newer_version_refuse_no_caller(
    server: EmbeddedNats, prefix: str, broker: Broker
) -> None:
    """G8: what can't be read is not held against anybody; instance and deadline have the last word."""
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as server_side,
    ):
        await server_side.serve(accounts(), resources={"A": Role.ACTIVE})
        names = broker.subjects
        for key in (
            f"{names.registry_bucket}.{names.service_key(SERVICE)}",
            f"{names.leases_bucket}.accounts.A",
        ):
            bucket = key.partition(".")[0]
            data = await broker.last(f"KV_{bucket}", f"$KV.{key}")
            assert data is not None
            newer = {**json.loads(data), "state": "lent", "methods": {"book": {}}}
            await publish_raw(server.url, f"$KV.{key}".encode(), json.dumps(newer).encode())
        await publish_raw(server.url, f"$KV.{prefix}_leases.accounts.=FF".encode(), b"")
        async with aegis_sdk.connect(server.url, prefix=prefix) as aegis:
            assert await aegis.request(BOOK, 1, resource="A", timeout_s=3.0) == 1
            assert await aegis.request(BOOK, 1, resource="A", timeout_s=3.0) == 2


async def test_strays_in_the_journal_and_among_requests_do_not_stop_an_instance(
    server: EmbeddedNats, prefix: str, broker: Broker
) -> None:
    """G1, G6: whoever follows goes on, and takes over with the right state."""
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        one = await aegis.serve(accounts(), resources={"A": Role.ACTIVE}, instance_id="one")
        await aegis.serve(accounts(), resources={"A": Role.STANDBY}, instance_id="two")
        assert await aegis.request(BOOK, 1, resource="A") == 1
        at = f"{prefix}.jrn.accounts".encode()
        for subject in (
            b".A.out.x.1",
            b".A.part.7.many",
            b".A.try.x.1",
            b".A.odd",
            b".\xff.out.\xfe.1",
        ):
            for headers in HEADERS:
                await publish_raw(server.url, at + subject, b"\xff{", headers)
        for subject in (b".at.A", b".at.\xff", b".at.=FF", b".any", b".odd"):
            for headers in HEADERS:
                await publish_raw(
                    server.url, f"{prefix}.req.accounts".encode() + subject, b"\xff", headers
                )
        await publish_raw(server.url, broker.subjects.command("one").encode(), b'{"kind": "dance"}')
        assert await aegis.request(BOOK, 1, resource="A", timeout_s=5.0) == 2
        await one.drain()
        assert await aegis.request(BOOK, 1, resource="A", timeout_s=5.0) == 3
