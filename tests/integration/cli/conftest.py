"""A NATS server for the suite, and a control of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats

from tests.integration.cli.support import ScriptedControl

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    with EmbeddedNats() as server:
        yield server.url


@pytest.fixture
async def control(nats_url: str) -> AsyncIterator[ScriptedControl]:
    async with ScriptedControl(nats_url, f"cli{next(_numbers)}") as scripted:
        yield scripted
