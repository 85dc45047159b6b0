"""A NATS server for the suite, and a control of its own for each test."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from aegis_control.infrastructure.embedded_nats import EmbeddedNats

from tests.integration.cli.support import ScriptedControl
from tests.integration.cli.system import System, running_system

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def nats_server() -> Iterator[EmbeddedNats]:
    with EmbeddedNats(sync_interval="always") as server:
        yield server


@pytest.fixture(scope="session")
def nats_url(nats_server: EmbeddedNats) -> str:
    return nats_server.url


@pytest.fixture
async def control(nats_url: str) -> AsyncIterator[ScriptedControl]:
    """Answers as it is told."""
    async with ScriptedControl(nats_url, f"cli{next(_numbers)}") as scripted:
        yield scripted


@pytest.fixture
def _control_logs_elsewhere() -> Iterator[None]:
    """While ipc-cli runs in a thread, this process's stdout and stderr are its own."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.reset_defaults()


@pytest.fixture
async def system(nats_server: EmbeddedNats, _control_logs_elsewhere: None) -> AsyncIterator[System]:
    """A real one."""
    prefix = f"real{next(_numbers)}"
    async with running_system(nats_server.url, nats_server.system_url, prefix) as running:
        yield running
