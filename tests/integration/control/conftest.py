"""One nats-server for all tests here; each test has a prefix of its own on it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats

from tests.integration.control.support import Broker, Instance

Start = Callable[[str], Awaitable[Instance]]


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


@pytest.fixture
async def start(server: EmbeddedNats, prefix: str) -> AsyncIterator[Start]:
    """Starts instances by name, and closes them."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(name: str) -> Instance:
            instance = Instance(server.url, prefix, name)
            await instance.connect()
            stack.push_async_callback(instance.close)
            return instance

        yield begin
