"""The proxy forwards, holds back, delays and resets; bytes of a living connection are never lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

import pytest

from bench.chaos.proxy import Proxy, alone

GREETING = b'INFO {"server_name":"n0","connect_urls":["10.0.0.1:4222"]}\r\n'
SOON_S = 0.1
LATE_S = 5.0


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """In front of a server that greets and sends everything back."""

    async def echo(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(GREETING)
            while data := await reader.read(1024):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = await Proxy(server.sockets[0].getsockname()[1]).start()
    yield proxy
    await proxy.stop()
    server.close()


@contextlib.asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        async with asyncio.timeout(LATE_S):
            assert json.loads((await reader.readline())[5:]) == {"server_name": "n0"}
            yield reader, writer
    finally:
        writer.close()


async def is_silent(reader: StreamReader) -> bool:
    """Whether nothing arrives for a while: a fact that no event announces."""
    try:
        async with asyncio.timeout(SOON_S):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_it_forwards_both_ways(proxy: Proxy) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(b"PING")
        assert await reader.readexactly(4) == b"PING"


@pytest.mark.parametrize(
    ("to_nats", "from_nats"), [(True, True), (True, False), (False, True)], ids=str
)
async def test_a_cut_holds_bytes_and_healing_lets_them_go_on(
    proxy: Proxy, to_nats: bool, from_nats: bool
) -> None:
    async with connected(proxy) as (reader, writer):
        proxy.cut(to_nats=to_nats, from_nats=from_nats)
        writer.write(b"PING")
        assert await is_silent(reader)
        proxy.heal()
        assert await reader.readexactly(4) == b"PING"


async def test_healing_can_reset_connections(proxy: Proxy) -> None:
    async with connected(proxy) as (reader, writer):
        proxy.cut()
        writer.write(b"PING")
        proxy.heal(reset=True)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    async with connected(proxy):
        pass


async def test_a_new_connection_gets_nowhere_during_a_cut(proxy: Proxy) -> None:
    proxy.cut()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await is_silent(reader)
    proxy.heal()
    async with asyncio.timeout(LATE_S):
        assert (await reader.readline()).startswith(b"INFO ")
    writer.close()


async def test_a_delay_makes_data_late(proxy: Proxy) -> None:
    async with connected(proxy) as (reader, writer):
        proxy.delay(0.05)
        began_s = time.monotonic()
        writer.write(b"PING")
        assert await reader.readexactly(4) == b"PING"
        assert time.monotonic() - began_s >= 0.1


async def test_a_server_that_is_down_is_a_refused_connection(unused_tcp_port: int) -> None:
    proxy = await Proxy(unused_tcp_port).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    async with asyncio.timeout(LATE_S):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    await proxy.stop()


def test_only_the_greeting_is_changed() -> None:
    assert alone(b"PONG\r\n") == b"PONG\r\n"
    assert b"connect_urls" not in alone(GREETING)
