"""RequestLog: accepted is kept, and an id that was seen is not stored twice."""

from __future__ import annotations

import time

import pytest
from aegis_sdk.application.ports import (
    Accepted,
    StoreFull,
    StoreMissing,
    StoreTooLarge,
    StoreUnreachable,
)
from aegis_sdk.contract.envelope import Request

from tests.contract.worlds import PAYLOAD_BYTES_MAX, WAIT_S, Ports, World, request


async def _append(ports: Ports, asked: Request) -> Accepted:
    return await ports.requests.append(asked, timeout_s=5.0)


async def test_requests_are_numbered_in_the_order_of_their_acceptance(
    world: World, ports: Ports
) -> None:
    """G7: the number is the order in which they take effect."""
    accepted = [
        await _append(ports, request(world.service, f"c.{n}", resource))
        for n, resource in enumerate([None, "A", "B", "A"], start=1)
    ]
    assert accepted == [Accepted(n, duplicate=False) for n in range(1, 5)]


async def test_an_id_that_was_seen_is_answered_with_the_first(world: World, ports: Ports) -> None:
    """G3: the first net, from any process and whatever the rest of the request."""
    other = await world.connect()
    assert await _append(ports, request(world.service, "c.1")) == Accepted(1, duplicate=False)
    for again in (
        request(world.service, "c.1", attempt=2),
        request(world.service, "c.1", resource="another"),
    ):
        assert await _append(other, again) == Accepted(1, duplicate=True)
    assert await _append(ports, request(world.service, "c.2")) == Accepted(2, duplicate=False)


@pytest.mark.parametrize("resource", [None, "Müller.株式*>", "-", "any"])
async def test_a_request_is_read_back_as_it_was_stored(
    world: World, ports: Ports, resource: str | None
) -> None:
    """G1: with all that its next reader needs to serve it."""
    asked = request(
        world.service,
        "c~1.2",
        resource,
        deadline_s=round(time.time(), 3),
        attempt=3,
        fingerprint="f" * 16,
        chain=("orders/O=201", "x/-"),
        traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
        tracestate="vendor=1",
    )
    accepted = await _append(ports, asked)
    assert await ports.requests.read(world.service, accepted.seq) == asked
    assert await ports.requests.read(world.service, accepted.seq + 1) is None


async def test_a_full_stream_refuses_and_keeps_what_it_has(world: World, ports: Ports) -> None:
    """G1, G4: the new one certainly has no effect; no old one gives way to it."""
    await _append(ports, request(world.service, "c.1"))
    await world.bound(requests=1)
    with pytest.raises(StoreFull):
        await _append(ports, request(world.service, "c.2"))
    assert await _append(ports, request(world.service, "c.1")) == Accepted(1, duplicate=True)
    await world.bound()
    assert (await _append(ports, request(world.service, "c.2"))).seq == 2


async def test_a_payload_over_the_bound_is_too_large(world: World, ports: Ports) -> None:
    large = Request("c.1", world.service, "book", None, b"1" * (PAYLOAD_BYTES_MAX + 1))
    with pytest.raises(StoreTooLarge):
        await _append(ports, large)
    assert await _append(ports, request(world.service, "c.2")) == Accepted(1, duplicate=False)


async def test_a_request_is_found_by_its_id_alone(world: World, ports: Ports) -> None:
    async def holds(request_id: str) -> bool:
        found = await ports.requests.find(world.service, request_id, timeout_s=WAIT_S)
        assert found is None or found.request_id == request_id
        return found is not None

    assert not await holds("c.1")
    for n in range(1, 200):
        resource = "ACC 1" if n % 2 else None
        await ports.requests.append(request(world.service, f"c.{n}", resource), timeout_s=WAIT_S)
    await ports.requests.append(request(world.service, "c.200"), timeout_s=WAIT_S)
    assert [await holds(f"c.{n}") for n in (1, 2, 100, 200)] == [True] * 4
    assert [await holds(name) for name in ("c.201", "c.20x", "d.1")] == [False] * 3
    assert world.service in await ports.requests.services()


async def test_requests_that_can_not_be_read_are_not_said_to_be_missing(
    world: World, ports: Ports
) -> None:
    """G4: a doubt stays a doubt."""
    await ports.requests.append(request(world.service, "c.1"), timeout_s=WAIT_S)
    await world.cut(ports)
    with pytest.raises(StoreUnreachable):
        await ports.requests.find(world.service, "c.2", timeout_s=0.5)


async def test_a_service_without_streams_is_missing(ports: Ports) -> None:
    with pytest.raises(StoreMissing):
        await _append(ports, request("nobody", "c.1"))
    with pytest.raises(StoreMissing):
        await ports.requests.read("nobody", 1)


async def test_without_nats_the_answer_is_unknown_at_once(world: World, ports: Ports) -> None:
    """G4: no answer is no refusal, and is told as what it is."""
    await world.cut(ports)
    with pytest.raises(StoreUnreachable):
        await _append(ports, request(world.service, "c.1"))
    with pytest.raises(StoreUnreachable):
        await ports.requests.read(world.service, 1)
