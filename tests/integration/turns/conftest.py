"""One nats-server and one cluster for the suite; each test has a prefix of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_cluster import NatsCluster

from tests.integration.turns.support import World, a_world


@pytest.fixture(scope="package")
def server() -> Iterator[EmbeddedNats]:
    with EmbeddedNats() as running:
        yield running


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path_factory.mktemp("cluster"), size=3) as running:
        yield running


@pytest.fixture(params=["one node", pytest.param("three nodes", marks=pytest.mark.cluster)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    name = "server" if request.param == "one node" else "cluster"
    async with a_world(request.getfixturevalue(name)) as made:
        yield made


@pytest.fixture
async def small_world(server: EmbeddedNats) -> AsyncIterator[World]:
    """On one node."""
    async with a_world(server) as made:
        yield made
