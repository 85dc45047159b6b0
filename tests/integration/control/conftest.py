"""A broker and instances on the server of these tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats

from tests.integration.control.support import Broker, Instance

Start = Callable[[str], Awaitable[Instance]]


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
