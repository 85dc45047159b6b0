"""Directory: what nobody serves is refused before anything is stored, and the message says why."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk.application.ports import StoreUnreachable
from aegis_sdk.contract.control import LeaseState
from aegis_sdk.domain.routes import Routes
from aegis_sdk.errors import (
    AegisError,
    ContractError,
    NoRoute,
    UnknownMethod,
    UnknownService,
)
from aegis_sdk.infrastructure.directory import NatsDirectory

from tests.contract.worlds import (
    WAIT_S,
    Ports,
    World,
    instance_record,
    lease_record,
    service_record,
    until,
)


async def test_what_is_served_is_admitted(world: World, ports: Ports) -> None:
    await world.put(
        service_record(world.service),
        instance_record(world.service),
        lease_record(world.service, "Müller 1"),
    )
    await ports.directory.check(world.service, "book", "Müller 1")
    await ports.directory.check(world.service, "price", None)
    await until(lambda: ports.directory.admits(world.service, "book", "Müller 1"))
    assert ports.directory.admits(world.service, "price", None)


@pytest.mark.parametrize(
    ("method", "resource", "error"),
    [
        ("boook", "A", UnknownMethod),
        ("boook", None, UnknownMethod),
        ("book", None, ContractError),
        ("price", "A", ContractError),
        ("book", "B", NoRoute),
        ("book", "C", NoRoute),
    ],
)
async def test_what_is_not_served_is_refused_by_its_reason(
    world: World, ports: Ports, method: str, resource: str | None, error: type[AegisError]
) -> None:
    await world.put(
        service_record(world.service),
        instance_record(world.service),
        lease_record(world.service, "A"),
        lease_record(world.service, "C", LeaseState.VACANT),
    )
    for _ in range(2):
        with pytest.raises(AegisError) as caught:
            await ports.directory.check(world.service, method, resource)
        assert type(caught.value) is error
        assert not ports.directory.admits(world.service, method, resource)


async def test_a_service_that_was_never_registered_is_unknown(world: World, ports: Ports) -> None:
    assert not ports.directory.admits(world.service, "book", "A")
    with pytest.raises(UnknownService, match=world.service):
        await ports.directory.check(world.service, "book", "A")


async def test_a_service_whose_instances_left_has_no_route(world: World, ports: Ports) -> None:
    """It is known, so that a typo can be told from an outage."""
    await world.put(service_record(world.service))
    with pytest.raises(NoRoute):
        await ports.directory.check(world.service, "price", None)


async def test_an_instance_that_left_last_does_not_hide_the_others(
    world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the registry could not be followed in time: its newest record is a deletion then."""

    async def not_yet(directory: NatsDirectory, service: str) -> None:
        directory._services.setdefault(service, Routes(service))

    monkeypatch.setattr(NatsDirectory, "_follow", not_yet)
    await world.put(service_record(world.service))
    for name in ("stays", "leaves"):
        await world.put(instance_record(world.service, name))
    await world.remove("leaves")
    await ports.directory.check(world.service, "price", None)
    await world.remove("stays")
    with pytest.raises(NoRoute):
        await ports.directory.check(world.service, "price", None)


async def test_a_resource_whose_active_is_expected_back_is_admitted(
    world: World, ports: Ports
) -> None:
    """G8: the request waits for it, within its deadline."""
    await world.put(
        service_record(world.service), lease_record(world.service, "A", LeaseState.WAITING)
    )
    await ports.directory.check(world.service, "book", "A")


async def test_what_changes_is_known_at_the_next_check(world: World, ports: Ports) -> None:
    """G8: a caller that refused a moment ago sends now, and the other way round."""
    await world.put(service_record(world.service))
    with pytest.raises(NoRoute):
        await ports.directory.check(world.service, "book", "A")
    await world.put(lease_record(world.service, "A"))
    await ports.directory.check(world.service, "book", "A")
    await until(lambda: ports.directory.admits(world.service, "book", "A"))
    await world.put(lease_record(world.service, "A", LeaseState.VACANT))
    await until(lambda: not ports.directory.admits(world.service, "book", "A"))
    with pytest.raises(NoRoute):
        await ports.directory.check(world.service, "book", "A")


async def test_without_nats_a_new_service_cannot_be_looked_up(world: World, ports: Ports) -> None:
    """G4: said soon, not when NATS is back."""
    await world.put(service_record(world.service), lease_record(world.service, "A"))
    await world.cut(ports)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(StoreUnreachable):
            await ports.directory.check(world.service, "book", "A")


async def test_without_nats_what_was_known_is_still_admitted(world: World, ports: Ports) -> None:
    """G8: an outage is no reason to refuse a call; it waits."""
    await world.put(service_record(world.service), lease_record(world.service, "A"))
    await ports.directory.check(world.service, "book", "A")
    await until(lambda: ports.directory.admits(world.service, "book", "A"))
    await world.cut(ports)
    assert ports.directory.admits(world.service, "book", "A")
    await ports.directory.check(world.service, "book", "A")
