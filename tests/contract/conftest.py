"""One nats-server for the suites; each test has a world, and in it the ports of one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats

from tests.contract.worlds import (
    PAYLOAD_BYTES_MAX,
    MemoryWorld,
    NatsWorld,
    Ports,
    World,
)


@pytest.fixture(scope="package")
def server() -> Iterator[EmbeddedNats]:
    with EmbeddedNats(max_payload=PAYLOAD_BYTES_MAX) as running:
        yield running


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        made: MemoryWorld | NatsWorld = MemoryWorld()
    else:
        made = NatsWorld(request.getfixturevalue("server"))
        await made.open()
    yield made
    await made.close()


@pytest.fixture
async def ports(world: World) -> Ports:
    return await world.connect()
