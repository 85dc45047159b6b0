"""FastStream over core NATS: `broker.request` to typed subscribers. At most once, nothing stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faststream.nats import NatsBroker

from bench.model import Fill, Lookup, Op, Position, decode_position, encode_request
from bench.systems.api import CALL_TIMEOUT_S, CallerSetup, InstanceSetup, Serving, System
from bench.systems.core_nats import PENDING_BYTES, QUEUE, subject


def _broker(url: str) -> NatsBroker:
    return NatsBroker(url.split(","), logger=None, pending_size=PENDING_BYTES)


def _subscribe(broker: NatsBroker, serving: Serving, accounts: list[str]) -> None:
    """Handlers as FastStream's documentation writes them: a typed argument in, a model out."""

    async def order(body: Fill) -> Position:
        return serving.book.order(body)

    async def fill(body: Fill) -> Position:
        return serving.book.fill(body)

    async def query(body: Lookup) -> Position:
        return serving.book.query(body)

    broker.subscriber("rpc.order", queue=QUEUE)(order)
    for account in accounts:
        broker.subscriber(subject(Op.FILL, account))(fill)
        broker.subscriber(subject(Op.QUERY, account))(query)


@asynccontextmanager
async def serve(setup: InstanceSetup) -> AsyncIterator[Serving]:
    serving = Serving()
    broker = _broker(setup.url)
    _subscribe(broker, serving, setup.accounts)
    async with broker:
        await broker.start()
        yield serving


class FastStreamCaller:
    """`broker.request` with the body encoded once: bytes skip FastStream's own encoder."""

    def __init__(self, broker: NatsBroker) -> None:
        self._broker = broker

    async def call(self, op: Op, request: Fill | Lookup) -> Position:
        reply = await self._broker.request(
            encode_request(request), subject(op, request.account), timeout=CALL_TIMEOUT_S
        )
        return decode_position(reply.body)


@asynccontextmanager
async def connect(setup: CallerSetup) -> AsyncIterator[FastStreamCaller]:
    async with _broker(setup.url) as broker:
        yield FastStreamCaller(broker)


SYSTEM = System(
    name="faststream",
    promises="at most once; nothing stored",
    serve=serve,
    connect=connect,
    settings={"group": "queue group", "targeted": "a subscriber an account"},
)
