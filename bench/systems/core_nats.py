"""Core NATS request/reply with nats-py: at most once, nothing stored. The floor for anything on NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from bench.model import Fill, Lookup, Op, Position, decode_position, encode_request
from bench.systems.api import (
    CALL_TIMEOUT_S,
    CallerSetup,
    InstanceSetup,
    Serving,
    System,
)

QUEUE = "accounts"
PENDING_BYTES = 64 * 1024 * 1024


def subject(op: Op, account: str) -> str:
    return "rpc.order" if op is Op.ORDER else f"rpc.{op.value}.{account}"


def responder(serving: Serving, op: Op) -> Callable[[Msg], Awaitable[None]]:
    """A subscription callback that does the work and replies."""

    async def respond(message: Msg) -> None:
        await message.respond(serving.book.serve(op, message.data))

    return respond


async def subscribe_targeted(
    connection: NatsClient, serving: Serving, setup: InstanceSetup, op: Op
) -> None:
    """One subscription an owned account: the server routes, the instance needs no filter."""
    for account in setup.accounts:
        await connection.subscribe(subject(op, account), cb=responder(serving, op))


@asynccontextmanager
async def serve(setup: InstanceSetup) -> AsyncIterator[Serving]:
    async with await nats.connect(setup.url.split(","), pending_size=PENDING_BYTES) as connection:
        serving = Serving()
        await connection.subscribe("rpc.order", queue=QUEUE, cb=responder(serving, Op.ORDER))
        await subscribe_targeted(connection, serving, setup, Op.FILL)
        await subscribe_targeted(connection, serving, setup, Op.QUERY)
        await connection.flush()
        yield serving


class CoreCaller:
    """`nc.request` and the codecs."""

    def __init__(self, connection: NatsClient) -> None:
        self._connection = connection

    async def call(self, op: Op, request: Fill | Lookup) -> Position:
        reply = await self._connection.request(
            subject(op, request.account), encode_request(request), timeout=CALL_TIMEOUT_S
        )
        return decode_position(reply.data)


@asynccontextmanager
async def connect(setup: CallerSetup) -> AsyncIterator[CoreCaller]:
    async with await nats.connect(setup.url.split(","), pending_size=PENDING_BYTES) as connection:
        yield CoreCaller(connection)


SYSTEM = System(
    name="core-nats",
    promises="at most once; nothing stored",
    serve=serve,
    connect=connect,
    settings={"group": "queue group", "targeted": "a subject an account"},
)
