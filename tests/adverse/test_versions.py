"""Two versions of a service side by side: what they speak is seen, and what breaks callers is told or refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import (
    Cancelled,
    Context,
    InvalidArgument,
    InvalidPayload,
    Method,
    NotExecuted,
    RegistrationRefused,
    ResourceContext,
    Role,
    Service,
)
from aegis_sdk.contract.ids import redriven_id
from aegis_sdk.log_line import Line
from pydantic import BaseModel, create_model

from tests.integration.cli.support import run_cli
from tests.integration.control.support import control

RESOURCES = {"T-1": Role.AUTO}


def desk(request: type[BaseModel], *, compatibility: str = "warn", version: str = "") -> Service:
    service = Service("desk", version=version, compatibility=compatibility)

    @service.handles(Method("desk", "book", request=request, reply=int))
    async def book(ctx: ResourceContext, fill: Any) -> int:
        return 1

    return service


Fill = create_model("Fill", quantity=(int, ...))
FillAtVenue = create_model("Fill", quantity=(str, ...), venue=(str, ...))
FillNoted = create_model("Fill", quantity=(int, ...), note=(str, ""))
BROKEN = [
    "book.request.venue: needed by this version, not written by the callers",
    "book.request.quantity: integer from the callers, string to this version",
]


async def broken(at: tuple[str, ...]) -> list[list[str]]:
    told = (await run_cli("events", "-o", "json", *at)).out.splitlines()
    events = [json.loads(line) for line in told]
    return [event["fields"] for event in events if event["event"] == "contract_broken"]


async def test_what_breaks_callers_is_told_field_by_field_or_refused(
    server: EmbeddedNats, prefix: str
) -> None:
    at = ("--url", server.url, "--prefix", prefix)
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        await aegis.serve(desk(Fill), resources=RESOURCES)
        await aegis.serve(desk(FillNoted, compatibility="strict"), resources=RESOURCES)
        assert await broken(at) == []
        with pytest.raises(RegistrationRefused) as refused:
            await aegis.serve(desk(FillAtVenue, compatibility="strict"), resources=RESOURCES)
        for line in BROKEN:
            assert line in str(refused.value)
        await aegis.serve(desk(FillAtVenue, compatibility="off"), resources=RESOURCES)
        assert await broken(at) == []
    with pytest.raises(InvalidArgument, match="strict, warn, off"):
        Service("desk", compatibility="loose")


async def test_by_default_it_serves_and_an_event_tells(server: EmbeddedNats, prefix: str) -> None:
    at = ("--url", server.url, "--prefix", prefix)
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        await aegis.serve(desk(Fill), resources=RESOURCES)
        await aegis.serve(desk(FillAtVenue), resources=RESOURCES)
        assert await broken(at) == [BROKEN]
        await aegis.serve(desk(FillAtVenue), resources=RESOURCES)
        assert await broken(at) == [BROKEN], "once"


@pytest.mark.parametrize(
    ("protocol", "advice"), [(99, "upgrade control first"), (0, "upgrade the instance's aegis-sdk")]
)
async def test_another_protocol_is_refused_with_what_to_upgrade(
    server: EmbeddedNats,
    prefix: str,
    protocol: int,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aegis_sdk.instance.PROTOCOL", protocol)
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        with pytest.raises(RegistrationRefused, match=f"speaks protocol {protocol} .*{advice}"):
            await aegis.serve(desk(Fill), resources=RESOURCES)


async def test_versions_are_seen_wherever_instances_are(server: EmbeddedNats, prefix: str) -> None:
    at = ("--url", server.url, "--prefix", prefix)
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        await aegis.serve(desk(Fill, version="1.2"), resources=RESOURCES)
        [listed] = (await run_cli("list-instances", "-o", "json", *at)).json
        assert (listed["version"], listed["protocol"]) == ("1.2", 1)
        assert listed["sdk_version"].count(".") == 2
        shown = f"{listed['sdk_version']}/1"
        assert shown in (await run_cli("list-instances", *at)).out
        assert shown in (await run_cli("describe", "desk", *at)).out
        said = f"aegis-sdk {listed['sdk_version']} (protocol 1)"
        assert said in (await run_cli("doctor", *at)).out


# --- methods that one of two versions has ---------------------------------------------------------------------
PING: Method[int, int] = Method("mixed", "ping", request=int, reply=int)
NEW: Method[int, str] = Method("mixed", "new", request=int, reply=str)
BOOK: Method[int, int] = Method("mixed", "book", request=int, reply=int)
TALLY: Method[int, int] = Method("mixed", "tally", request=int, reply=int)


def mixed(*, new: bool) -> Service:
    service = Service("mixed")

    @service.handles(PING)
    async def ping(ctx: Context, n: int) -> int:
        return n

    @service.handles(BOOK)
    async def book(ctx: ResourceContext, n: int) -> int:
        return n

    if new:

        @service.handles(NEW)
        async def new_(ctx: Context, n: int) -> str:
            return f"{ctx.instance_id} {n}"

        @service.handles(TALLY)
        async def tally(ctx: ResourceContext, n: int) -> int:
            return n

    return service


async def test_a_group_request_goes_to_an_instance_that_has_its_method(
    server: EmbeddedNats, prefix: str
) -> None:
    """Sent or stored; in the middle of a rolling upgrade two of three have not got it yet."""
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        for name in ("old-1", "old-2"):
            await aegis.serve(mixed(new=False), instance_id=name)
        await aegis.serve(mixed(new=True), instance_id="new-1")
        asked = [aegis.request(NEW, n, timeout_s=10.0) for n in range(30)]
        assert await asyncio.gather(*asked) == [f"new-1 {n}" for n in range(30)]
        tickets = [await aegis.submit(NEW, n) for n in range(5)]
        ends = [aegis.attach(ticket.id, NEW, timeout_s=20.0) for ticket in tickets]
        assert await asyncio.gather(*ends) == [f"new-1 {n}" for n in range(5)]


async def test_a_group_request_waits_for_an_instance_that_has_its_method(
    server: EmbeddedNats, prefix: str
) -> None:
    """It was accepted; the only instance of the new version is away for a moment."""
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        await aegis.serve(mixed(new=False), instance_id="old-1")
        first = await aegis.serve(mixed(new=True), instance_id="new-1")
        await first.drain()
        ticket = await aegis.submit(NEW, 7)
        with pytest.raises(NotExecuted):
            await aegis.request(NEW, 8, timeout_s=0.5)
        await aegis.serve(mixed(new=True), instance_id="new-2")
        assert await aegis.attach(ticket.id, NEW, timeout_s=20.0) == "new-2 7"


async def test_a_method_that_the_active_lacks_is_not_executed_and_no_final_answer(
    server: EmbeddedNats, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    at = ("--url", server.url, "--prefix", prefix)
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        old = await aegis.serve(mixed(new=False), resources=RESOURCES, instance_id="old-1")
        await aegis.serve(mixed(new=True), resources=RESOURCES, instance_id="new-1")
        assert old.active_resources == ["T-1"]
        with pytest.raises(NotExecuted, match=r"has no method 'tally'.*safe to try again") as told:
            await aegis.request(TALLY, 1, resource="T-1", key="first")
        assert not isinstance(told.value, Cancelled)
        assert any("method_not_here" in record.message for record in caplog.records)
        assert (await run_cli("failover", "T-1", "--yes", *at)).code == 0
        assert await aegis.request(TALLY, 1, resource="T-1", key="second") == 1


async def test_what_a_version_can_not_read_is_kept_and_can_be_redriven_after_a_rollback(
    server: EmbeddedNats, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    at = ("--url", server.url, "--prefix", prefix)
    asked = Method("desk", "book", request=Fill, reply=int)
    async with (
        control(server.url, prefix),
        aegis_sdk.connect(server.url, prefix=prefix) as aegis,
    ):
        new = await aegis.serve(desk(FillAtVenue), resources=RESOURCES)
        await new.ready()
        ticket = await aegis.submit(asked, Fill(quantity=5), resource="T-1")
        with pytest.raises(InvalidPayload, match="venue"):
            await aegis.attach(ticket.id, asked)
        [letter] = (await run_cli("dlq", "list", "-o", "json", *at)).json
        assert letter["request_id"] == ticket.id
        assert "venue" in json.dumps(letter)
        told = [record.msg for record in caplog.records if isinstance(record.msg, Line)]
        [line] = [line for line in told if line["event"] == "request_dead_lettered"]
        assert "venue" in line["error"]
        await new.drain()
        await (await aegis.serve(desk(Fill), resources=RESOURCES)).ready()
        assert (await run_cli("dlq", "redrive", ticket.id, "--yes", *at)).code == 0
        assert await aegis.attach(redriven_id(ticket.id), asked) == 1
