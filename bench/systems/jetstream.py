"""Plain nats-py JetStream RPC, as an expert would write it: what AegisIPC replaces.

Three kinds, with one request stream (file storage) each:
- durable: the handler stores the reply in a reply stream (publish with ack), sends it to the caller by
  core publish, then acks the request. Two stored messages a call, like AegisIPC; both deduplicated by
  `Nats-Msg-Id`. Neither fencing, nor one effect, nor an answer after a deadline.
- queue: the same, but the request stream is a work queue, the retention that NATS has for tasks: an ack
  deletes the request, which is one more write (and with `sync_interval: always` one more sync) a call,
  and the stream holds what is open, not all requests of the past.
- light: the reply is a core message, nothing but the request is stored: a reply that is lost is gone.

Tuning: push consumers, up to CREDIT unacknowledged; handlers run side by side, bounded; `publish_async`
with its future, so ack and reply are waited for together; the reply's address travels in the subject,
so that no header is needed for it. Tried beside it, four repeats each: pull by `fetch` (a quarter slower
alone in the light kind, else equal), a raw pull loop and `publish` for `publish_async` (all within the
spread; the raw loop's median was 7 % better alone in the durable kind). Queries go over core NATS: they
need no storage.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import nats
import nats.js.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from bench.model import Fill, Lookup, Op, Position, decode_position, encode_request
from bench.systems import core_nats
from bench.systems.api import CALL_TIMEOUT_S, CallerSetup, InstanceSetup, Serving, System

REQUESTS: Final = "REQUESTS"
REPLIES: Final = "REPLIES"
CREDIT: Final = 1024
HANDLERS_MAX: Final = 256
DUPLICATE_WINDOW_S: Final = 120.0
ACK_WAIT_S: Final = 30.0
MSG_ID: Final = "Nats-Msg-Id"


def stored_subject(op: Op, account: str, reply_to: str) -> str:
    """`req.order.<caller>.<n>` or `req.fill.<account>.<caller>.<n>`: the address is in the subject."""
    where = "order" if op is Op.ORDER else f"fill.{account}"
    return f"req.{where}.{reply_to}"


def address(stored: str) -> str:
    """The `<caller>.<n>` of a stored request's subject."""
    return ".".join(stored.rsplit(".", 2)[1:])


async def prepare(url: str, replicas: int, *, durable: bool, retention: RetentionPolicy) -> None:
    async with await nats.connect(url.split(",")) as connection:
        js = connection.jetstream()
        names = {REQUESTS: ["req.>"]} | ({REPLIES: ["stored.>"]} if durable else {})
        for name, subjects in names.items():
            await js.add_stream(
                StreamConfig(
                    name=name,
                    subjects=subjects,
                    storage=StorageType.FILE,
                    retention=retention if name == REQUESTS else RetentionPolicy.LIMITS,
                    discard=DiscardPolicy.NEW,
                    duplicate_window=DUPLICATE_WINDOW_S,
                    num_replicas=replicas,
                )
            )


class Handler:
    """Does the work of stored requests, at most HANDLERS_MAX at a time, and acks them."""

    def __init__(self, connection: NatsClient, serving: Serving, *, durable: bool) -> None:
        self._connection = connection
        self._js = connection.jetstream(timeout=CALL_TIMEOUT_S)
        self._serving = serving
        self._durable = durable
        self._slots = asyncio.Semaphore(HANDLERS_MAX)
        self._running: set[asyncio.Task[None]] = set()

    async def on_message(self, op: Op, message: Msg) -> None:
        if not self._durable:
            return await self._answer(op, message)
        await self._slots.acquire()
        task = asyncio.create_task(self._answer_durably(op, message))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return None

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._slots.release()

    async def _answer(self, op: Op, message: Msg) -> None:
        reply = self._serving.book.serve(op, message.data)
        await self._connection.publish(f"rep.{address(message.subject)}", reply)
        await message.ack()

    async def _answer_durably(self, op: Op, message: Msg) -> None:
        reply = self._serving.book.serve(op, message.data)
        reply_to = address(message.subject)
        stored = f"stored.{reply_to}"
        await (await self._js.publish_async(stored, reply, headers={MSG_ID: reply_to}))
        await self._connection.publish(f"rep.{reply_to}", reply)
        await message.ack()


async def _consume(
    js: JetStreamContext, handler: Handler, *, op: Op, durable_name: str, filters: list[str]
) -> None:
    config = ConsumerConfig(
        durable_name=durable_name,
        filter_subjects=filters,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=CREDIT,
        deliver_subject=f"deliver.{durable_name}",
        deliver_group=core_nats.QUEUE if op is Op.ORDER else None,
    )
    if op is not Op.ORDER or not await _exists(js, durable_name):
        await js.add_consumer(REQUESTS, config)
    await js.subscribe_bind(
        REQUESTS,
        config,
        durable_name,
        cb=partial(handler.on_message, op),
        manual_ack=True,
    )


async def _exists(js: JetStreamContext, durable_name: str) -> bool:
    try:
        await js.consumer_info(REQUESTS, durable_name)
    except nats.js.errors.NotFoundError:
        return False
    return True


@asynccontextmanager
async def serve(setup: InstanceSetup, *, durable: bool) -> AsyncIterator[Serving]:
    pending = core_nats.PENDING_BYTES
    async with await nats.connect(setup.url.split(","), pending_size=pending) as connection:
        serving = Serving()
        handler = Handler(connection, serving, durable=durable)
        js = connection.jetstream()
        await _consume(js, handler, op=Op.ORDER, durable_name="group", filters=["req.order.>"])
        if setup.accounts:
            filters = [f"req.fill.{account}.>" for account in setup.accounts]
            name = f"instance-{setup.index}"
            await _consume(js, handler, op=Op.FILL, durable_name=name, filters=filters)
        await core_nats.subscribe_targeted(connection, serving, setup, Op.QUERY)
        await connection.flush()
        yield serving


class JetStreamCaller:
    """Publishes with ack and waits for the reply on subjects of its own."""

    def __init__(self, connection: NatsClient, index: int, *, durable: bool) -> None:
        self._connection = connection
        self._js = connection.jetstream(timeout=CALL_TIMEOUT_S)
        self._queries = core_nats.CoreCaller(connection)
        self._caller = f"caller-{index}"
        self._durable = durable
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._made = 0

    async def start(self) -> None:
        await self._connection.subscribe(f"rep.{self._caller}.*", cb=self._on_reply)
        await self._connection.flush()

    async def call(self, op: Op, request: Fill | Lookup) -> Position:
        if op is Op.QUERY:
            return await self._queries.call(op, request)
        self._made += 1
        reply_to = f"{self._caller}.{self._made}"
        reply = self._waiting[reply_to] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                ack = await self._js.publish_async(
                    stored_subject(op, request.account, reply_to),
                    encode_request(request),
                    headers={MSG_ID: reply_to} if self._durable else None,
                )
                await ack
                return decode_position(await reply)
        finally:
            del self._waiting[reply_to]

    async def _on_reply(self, message: Msg) -> None:
        reply = self._waiting.get(message.subject.partition(".")[2])
        if reply is not None and not reply.done():
            reply.set_result(message.data)


@asynccontextmanager
async def connect(setup: CallerSetup, *, durable: bool) -> AsyncIterator[JetStreamCaller]:
    pending = core_nats.PENDING_BYTES
    async with await nats.connect(setup.url.split(","), pending_size=pending) as connection:
        caller = JetStreamCaller(connection, setup.index, durable=durable)
        await caller.start()
        yield caller


def _system(
    name: str,
    promises: str,
    *,
    durable: bool,
    retention: RetentionPolicy = RetentionPolicy.LIMITS,
) -> System:
    return System(
        name=name,
        promises=promises,
        serve=partial(serve, durable=durable),
        connect=partial(connect, durable=durable),
        prepare=partial(prepare, durable=durable, retention=retention),
        settings={
            "requests": f"{retention.value} retention",
            "consumer": f"durable, push, max_ack_pending {CREDIT}, explicit ack",
            "publish": "publish_async, ack awaited",
            "handlers": f"up to {HANDLERS_MAX} at a time" if durable else "in the callback",
        },
    )


DURABLE: Final = _system(
    "jetstream-durable", "at least once; request and reply stored; no fencing", durable=True
)
QUEUE: Final = _system(
    "jetstream-queue",
    "at least once; request and reply stored, a request until its ack; no fencing",
    durable=True,
    retention=RetentionPolicy.WORK_QUEUE,
)
LIGHT: Final = _system(
    "jetstream-light", "at least once; request stored, reply is not; no fencing", durable=False
)
