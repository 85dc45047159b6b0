"""Two versions of a service side by side: what they speak is seen, and what breaks callers is told or refused."""

from __future__ import annotations

import json
from typing import Any

import aegis_sdk
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import InvalidArgument, Method, RegistrationRefused, ResourceContext, Role, Service
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
