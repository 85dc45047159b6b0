"""ZeroMQ with pyzmq's asyncio sockets, DEALER to ROUTER: direct connections, no broker.

One DEALER an instance. Group calls go round robin over them, targeted ones to the owner's. The frames
are a request number, the operation and the JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import Any

import zmq
import zmq.asyncio

from bench.model import Fill, Lookup, Op, Position, decode_position, encode_request
from bench.systems.api import CALL_TIMEOUT_S, CallerSetup, InstanceSetup, Serving, System

HIGH_WATER_MARK = 100_000


def _socket(context: Any, kind: int) -> Any:
    socket = context.socket(kind)
    socket.set_hwm(HIGH_WATER_MARK)
    socket.linger = 0
    return socket


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task


async def _work(router: Any, serving: Serving) -> None:
    while True:
        caller, number, op, body = await router.recv_multipart()
        reply = serving.book.serve(Op(op.decode()), body)
        await router.send_multipart([caller, number, reply])


@asynccontextmanager
async def serve(setup: InstanceSetup) -> AsyncIterator[Serving]:
    with zmq.asyncio.Context() as context, _socket(context, zmq.ROUTER) as router:
        serving = Serving()
        port = router.bind_to_random_port("tcp://127.0.0.1")
        serving.address = f"tcp://127.0.0.1:{port}"
        worker = asyncio.create_task(_work(router, serving))
        try:
            yield serving
        finally:
            await _stop([worker])


class ZmqCaller:
    """A DEALER an instance, and one task each that gives the replies to who waits for them."""

    def __init__(self, dealers: list[Any], owners: dict[str, int]) -> None:
        self._dealers = dealers
        self._owners = owners
        self._round_robin = cycle(dealers)
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._made = 0

    async def call(self, op: Op, request: Fill | Lookup) -> Position:
        group = op is Op.ORDER
        dealer = next(self._round_robin) if group else self._dealers[self._owners[request.account]]
        self._made += 1
        number = str(self._made).encode()
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await dealer.send_multipart([number, op.value.encode(), encode_request(request)])
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return decode_position(await reply)
        finally:
            del self._waiting[number]

    async def receive(self, dealer: Any) -> None:
        while True:
            number, body = await dealer.recv_multipart()
            reply = self._waiting.get(number)
            if reply is not None and not reply.done():
                reply.set_result(body)


@asynccontextmanager
async def connect(setup: CallerSetup) -> AsyncIterator[ZmqCaller]:
    with zmq.asyncio.Context() as context:
        dealers = [_socket(context, zmq.DEALER) for _ in setup.addresses]
        caller = ZmqCaller(dealers, setup.owners)
        for dealer, address in zip(dealers, setup.addresses, strict=True):
            dealer.connect(address)
        receivers = [asyncio.create_task(caller.receive(dealer)) for dealer in dealers]
        try:
            yield caller
        finally:
            await _stop(receivers)
            for dealer in dealers:
                dealer.close()


SYSTEM = System(
    name="zmq",
    promises="at most once; no broker, nothing stored",
    serve=serve,
    connect=connect,
    uses_nats=False,
    settings={"group": "round robin over a DEALER an instance"},
)
