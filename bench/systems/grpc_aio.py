"""gRPC for asyncio: direct connections, no broker; the same JSON instead of protobuf, for the same work.

One channel an instance. Group calls go round robin over the channels, targeted ones to the owner's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from typing import Any

import grpc

from bench.model import (
    Fill,
    Lookup,
    Op,
    Position,
    decode_fill,
    decode_lookup,
    decode_position,
    encode_position,
    encode_request,
)
from bench.systems.api import CALL_TIMEOUT_S, CallerSetup, InstanceSetup, Serving, System

SERVICE = "bench.Accounts"


def _unary(work: Callable[[Any], Position], decode: Callable[[bytes], Any]) -> Any:
    async def handle(request: Any, _: object) -> Position:
        return work(request)

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=decode, response_serializer=encode_position
    )


@asynccontextmanager
async def serve(setup: InstanceSetup) -> AsyncIterator[Serving]:
    serving = Serving()
    server = grpc.aio.server()
    handlers = {
        Op.FILL.value: _unary(serving.book.fill, decode_fill),
        Op.ORDER.value: _unary(serving.book.order, decode_fill),
        Op.QUERY.value: _unary(serving.book.query, decode_lookup),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    serving.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield serving
    finally:
        await server.stop(grace=0.5)


Stub = Callable[..., Awaitable[Position]]


class GrpcCaller:
    """A stub an operation and instance."""

    def __init__(self, channels: list[Any], owners: dict[str, int]) -> None:
        self._stubs: list[dict[Op, Stub]] = [_stubs(channel) for channel in channels]
        self._owners = owners
        self._round_robin = cycle(self._stubs)

    async def call(self, op: Op, request: Fill | Lookup) -> Position:
        group = op is Op.ORDER
        stubs = next(self._round_robin) if group else self._stubs[self._owners[request.account]]
        return await stubs[op](request, timeout=CALL_TIMEOUT_S)


def _stubs(channel: Any) -> dict[Op, Stub]:
    return {
        op: channel.unary_unary(
            f"/{SERVICE}/{op.value}",
            request_serializer=encode_request,
            response_deserializer=decode_position,
        )
        for op in Op
    }


@asynccontextmanager
async def connect(setup: CallerSetup) -> AsyncIterator[GrpcCaller]:
    async with AsyncExitStack() as stack:
        channels = []
        for address in setup.addresses:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            await channel.channel_ready()
            channels.append(channel)
        yield GrpcCaller(channels, setup.owners)


SYSTEM = System(
    name="grpc",
    promises="at most once; no broker, nothing stored",
    serve=serve,
    connect=connect,
    uses_nats=False,
    settings={"group": "round robin over a channel an instance", "payload": "JSON bytes"},
)
