"""A small TCP proxy between a process and NATS, which can hold either way back, delay, and cut.

Bytes are never lost while a connection lives, for TCP would not lose them: a cut holds them. When it
heals, what was held goes on as if a network had come back, or the connection is reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine
from typing import Any, Self

CHUNK_BYTES = 65_536
INFO = b"INFO "


class Proxy:
    """Listens on a free loopback port and forwards to `port`."""

    def __init__(self, port: int) -> None:
        self._upstream_port = port
        self._server: asyncio.Server | None = None
        self._writers: set[StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_nats = asyncio.Event()
        self._from_nats = asyncio.Event()
        self._to_nats.set()
        self._from_nats.set()
        self._delay_s = 0.0

    async def start(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def cut(self, *, to_nats: bool = True, from_nats: bool = True) -> None:
        """Hold everything back in these directions; new connections get nowhere either."""
        if to_nats:
            self._to_nats.clear()
        if from_nats:
            self._from_nats.clear()

    def delay(self, delay_s: float) -> None:
        """Let every piece of data wait, each way."""
        self._delay_s = delay_s

    def heal(self, *, reset: bool = False) -> None:
        """Let everything through again; with `reset`, connections are dropped with what was held."""
        if reset:
            for writer in list(self._writers):
                writer.transport.abort()
        self._delay_s = 0.0
        self._to_nats.set()
        self._from_nats.set()

    async def stop(self) -> None:
        """Drop everything. Safe twice."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._to_nats.wait()
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        with contextlib.suppress(asyncio.CancelledError):  # Python 3.11 prints it as a failure
            await self._serve(reader, writer, *upstream)

    async def _serve(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        upstream_reader: StreamReader,
        upstream_writer: StreamWriter,
    ) -> None:
        both = {writer, upstream_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_ending(self._pass(reader, upstream_writer, self._to_nats), both))
                ways.create_task(_ending(self._answer(upstream_reader, writer), both))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        """The server's greeting names the cluster's other nodes; a client must not go round us."""
        greeting = await reader.readline()
        await self._from_nats.wait()
        writer.write(alone(greeting))
        await self._pass(reader, writer, self._from_nats)

    async def _pass(self, reader: StreamReader, writer: StreamWriter, way: asyncio.Event) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await way.wait()
            writer.write(data)
            await writer.drain()


def alone(greeting: bytes) -> bytes:
    """A server's INFO line without the other nodes' addresses."""
    if not greeting.startswith(INFO):
        return greeting
    info = json.loads(greeting[len(INFO) :])
    info.pop("connect_urls", None)
    return INFO + json.dumps(info, separators=(",", ":")).encode() + b"\r\n"


async def _ending(way: Coroutine[Any, Any, None], both: set[StreamWriter]) -> None:
    """One way's end is the other's."""
    with contextlib.suppress(OSError):
        await way
    for writer in both:
        writer.transport.abort()
