"""One NATS connection, with what nats-py lacks for this protocol: many JetStream publishes in flight on
one inbox, each with its own definite or unknown answer, and a call when the connection is back.

Theory of operation. One subscription hears all answers. A call takes the next number, sends its message with the subject
`<inbox>.<number>` for the reply, and waits in `_waiting` under that number. A wait ends in one of three ways:

- *An answer.* It is definite. A refusal by JetStream becomes one of the StoreErrors that say "nothing was stored".
- *Its time is up*, which `_sweep` sees for all waits together (`NotInTime`).
- *The connection is lost* (`_lost`). All that waits ends at that moment, whatever its own time.

The last two are unknown, not negative. The message may be stored already. It may also lie in a buffer on this side, and leave
when the connection is back: nobody can take it out again. So whoever stores and hears nothing must be able to send the same
again without harm. In this protocol that holds by the subject, which takes one message (10077), or by the gate that the
message names (10071). An answer that comes after its wait has ended finds no number, and is dropped. Numbers are not used
twice.

What is sent in one turn of the event loop leaves in one write. A turn's entry and the replies of the turn before it share a
system call then, which is a good part of what a call costs. `push` is for what must not wait for the turn's end.

After a loss the library connects again and subscribes anew to all that stands in its `_subs`. Only then do the `restored`
callbacks run, one after the other. Between the loss and the return core NATS may have dropped messages to this process, and
the server may be another one: `Connected.losses` counts, so that whoever keeps something can tell "before" from "since".

Callbacks of subscriptions run inside the connection's reading (wire.py), and there is no queue in between. That saves a task
and a future for each message. It also means that a slow callback holds up everything else that comes by this connection, the
server's pings among it. What has to wait goes `aside`.

It knows bytes, headers and JetStream's error codes; nothing of requests or resources.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError
from pydantic_core import from_json

from aegis_sdk import process
from aegis_sdk.application.ports import (
    AlreadyStored,
    Connected,
    GateRefused,
    StoreError,
    StoreForbidden,
    StoreFull,
    StoreMissing,
    StoreTooLarge,
    StoreUnreachable,
)
from aegis_sdk.contract.names import session_name
from aegis_sdk.errors import ContractError, RefusedByNats, Unavailable
from aegis_sdk.nats.codes import (
    BATCH_COMMIT,
    BATCH_ID,
    BATCH_SEQ,
    ERR_ACCOUNT_FULL,
    ERR_BATCH_DUPLICATE,
    ERR_BUSY,
    ERR_NO_CONSUMER,
    ERR_NO_MESSAGE,
    ERR_NO_RESOURCES,
    ERR_NO_STORAGE,
    ERR_NO_STREAM,
    ERR_STORE_FAILED,
    ERR_WRONG_LAST_SEQUENCE,
)
from aegis_sdk.nats.connection import (
    CONNECT_TIMEOUT_S,
    PENDING_BYTES_MAX,
    Connection,
    Hooks,
    OnForbidden,
)
from aegis_sdk.nats.login import Server
from aegis_sdk.nats.wire import Callback, Message, Tap, encode
from aegis_sdk.telemetry import Waiting, log

FIRST_ANSWER_S: Final = 5.0
"""For the first round trip of a new connection: a server that starts accepts connections before it answers."""
OPEN_AGAIN_S: Final = 0.25
"""Between two tries to open one, while a process waits for NATS to come up."""
HEADERS_BYTES_MAX: Final = 4096
"""More than ours ever take; below this distance from the limit they are counted."""
OPEN_MAX: Final = 100_000
"""Calls that wait. A server that answers none must not fill this process's memory; far above what one in order lets pile up."""
SWEEP_S: Final = 0.05
"""How late a timeout may be noticed."""

_UP_TO: Final = "Nats-UpTo-Sequence"
"""Of an answer of several messages: the newest of the stream at that server, when it was asked."""
_PENDING: Final = "Nats-Num-Pending"
_LAST: Final = "Nats-Last-Sequence"
_LOOKS: Final = 4
"""Of `newest`: at all there is, then at what came meanwhile."""
_MISSING: Final = frozenset({ERR_NO_STREAM, ERR_NO_CONSUMER, ERR_NO_MESSAGE})
_FULL: Final = frozenset({ERR_ACCOUNT_FULL, ERR_NO_RESOURCES, ERR_NO_STORAGE})
SETTLE_S: Final = 1.0
"""How long `drop_all` waits, aside, for what was still on its way to a subscription that goes."""
BUSY_WAIT_S: Final = 0.002
BUSY_TRIES: Final = 200
"""R3, err 10164: on three nodes the server refuses a check while the check's subject is being written. That takes the time of
one replication, so a few tries do; with 200 of them, half a second, it is taken for a server in trouble.
"""


class NotInTime(StoreUnreachable):
    """No answer came within the call's time: it may have been done, or be done yet."""


@dataclass(slots=True)
class Stored:
    """A JetStream acknowledgement. Of a batch it is the last message's: those before it have the sequences right before."""

    seq: int
    """Its place in the stream; of a duplicate, the place of what was stored first."""
    duplicate: bool
    """The stream's dedup window had the id (`Nats-Msg-Id`), and nothing was stored."""


class Link:
    """An open connection, from `open` to `close`; losses in between are the library's to repair.

    It belongs to one event loop and one process: `usable` refuses others. Whoever opens it closes it; adapters that are given
    one only subscribe and unsubscribe.

    Invariants. The tap is the client's parser for as long as the client lives, so no message of a subscription made here ever
    reaches the library's queues. What stands in `_waiting` was sent. `connected.session` is empty from
    a loss until the `restored` callbacks of the next connection run, and after `close`.
    """

    def __init__(
        self, client: Connection, server: Server, hooks: Hooks, *, name: str, logger: Any
    ) -> None:
        self._client = client
        self._log = logger
        self._loop = asyncio.get_running_loop()
        self._tap = client._ps = Tap(client)
        self._flushing = False
        self._server = server
        self._name = name
        self._lost_s: float | None = None
        self.api_prefix = server.api_prefix
        self.inboxes = server.inbox_prefix or "_INBOX"
        """What the subjects for answers begin with."""
        self._inbox_prefix = client.new_inbox() + "."
        self._tokens = itertools.count(1)
        self._waiting: dict[str, tuple[asyncio.Future[Message], float, str]] = {}
        """By the last token of the reply's subject: who waits, until when (the loop's clock), and on which subject."""
        self._sweeping = False
        self._restored: list[Callable[[], Awaitable[None]]] = []
        self._closing = False
        self._is_forked = False
        process.when_forked(self, self._forked)
        self._aside: set[asyncio.Task[None]] = set()
        self.connected = Connected(_session(client))
        hooks.lost, hooks.restored = self._lost, self._back
        client.on_forbidden(self._forbidden)

    @classmethod
    async def open_within(
        cls, server: Server, *, name: str, wait_s: float, refused_s: float
    ) -> Link:
        """`open`, tried again for `wait_s`; for `refused_s` if it is refused, or its files can't be read: that may pass, too.

        The log says that it waits, and why. Raises: as `open`, when the time is over.
        """
        began_s = time.monotonic()
        waiting = Waiting("waiting_for_nats", url=server.shown_url)
        while True:
            try:
                return await cls.open(server, name=name)
            except Unavailable as error:
                refused = isinstance(error, RefusedByNats) or server.unreadable()
                tries_s = refused_s if refused else wait_s
                if time.monotonic() >= began_s + tries_s:
                    raise
                waiting.say(error=str(error))
                await asyncio.sleep(OPEN_AGAIN_S)

    @classmethod
    async def open(
        cls,
        server: Server,
        *,
        name: str,
        keep: bool = True,
        timeout_s: float = CONNECT_TIMEOUT_S,
        logger: Any = log,
    ) -> Link:
        """Connect once, without retrying. `keep`: later losses are repaired. `logger`: None says nothing.

        It returns when the server has answered a round trip behind the subscription to answers. So a user who may not
        subscribe to his own inbox learns it here, and not as a timeout of each later call.

        Raises: RefusedByNats, Unavailable, saying where it looked; InvalidAddress, InvalidArgument (`Server.check`).
        """
        server.check()
        hooks = Hooks()
        client = Connection(server, hooks, logger)
        process.when_forked(client, lambda: _let_go(client))
        try:
            await client.open(name=name, keep=keep, timeout_s=timeout_s)
        except BaseException:
            process.forget_fork(client)
            raise
        link = cls(client, server, hooks, name=name, logger=logger)
        try:
            await link.subscribe(link._answers, link._on_answer)
            await link.flush(timeout_s=FIRST_ANSWER_S)
            link._check_heard()
        except BaseException as error:
            await link.close()
            if isinstance(error, StoreForbidden):
                raise RefusedByNats(str(error)) from error
            if isinstance(error, (NatsError, OSError, TimeoutError, StoreError)):
                raise Unavailable(f"NATS does not answer at {server.shown_url}: {error}") from error
            raise
        return link

    # --- what it is ---------------------------------------------------------------------------------------
    @property
    def client(self) -> Client:
        return self._client

    @property
    def is_connected(self) -> bool:
        return bool(self._client.is_connected)

    @property
    def payload_bytes_max(self) -> int:
        """The server's max_payload, headers included. Another server of a cluster, or a reload, may bring another one."""
        return int(self._client.max_payload)

    @property
    def plain_socket_fd(self) -> int | None:
        """The connection's socket while it is open and plain TCP, else None.

        The guard (infrastructure/guard.py) writes into it from another process. Within TLS or a WebSocket it could not:
        these have a state that two writers would break.
        """
        transport = self._client._transport
        if not self.is_connected or not isinstance(transport, TcpTransport):
            return None
        writer = transport._io_writer
        if writer is None or writer.get_extra_info("ssl_object") is not None:
            return None
        connected = writer.get_extra_info("socket")
        return None if connected is None else int(connected.fileno())

    @property
    def hopeless(self) -> asyncio.Future[str]:
        """Its result is the reason, when NATS refuses this login for good."""
        return self._client.hopeless

    @property
    def trouble(self) -> str:
        """Why NATS is out of reach now; empty when it isn't."""
        return self._client.trouble

    def on_forbidden(self, callback: OnForbidden) -> None:
        """Called with the subject and the server's words at each violated permission."""
        self._client.on_forbidden(callback)

    def usable(self) -> Link:
        """Itself. Raises: ContractError in a forked child, and on another event loop than its own."""
        self.check_process()
        process.check_loop(self._loop)
        return self

    def check_process(self) -> None:
        """Raises: ContractError in a child that was forked after it was opened."""
        if self._is_forked:
            raise ContractError(process.FORKED)

    @property
    def is_forked(self) -> bool:
        return self._is_forked

    def _forked(self) -> None:
        self._is_forked = True

    def on_restored(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Run it after each reconnect, when all subscriptions are in force again. They run one after the other, in this order.

        Messages come meanwhile. It must not raise: those behind it would not be told.
        """
        self._restored.append(callback)

    def off_restored(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Also of one that was never on."""
        if callback in self._restored:
            self._restored.remove(callback)

    async def close(self) -> None:
        """What waits for an answer ends as unknown, what waits to be sent is sent if it can be. Safe twice."""
        self._closing = True
        process.forget_fork(self)
        process.forget_fork(self._client)
        self._lost()
        if not self._client.is_closed:
            self._flush()
            # A connection that is dead fails its last write, by asyncio's error or by uvloop's.
            with contextlib.suppress(OSError, RuntimeError):
                await self._client.close()

    # --- storing ------------------------------------------------------------------------------------------
    def post(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None = None,
        *,
        reply: str = "",
    ) -> None:
        """Send without waiting; what one turn of the loop sends leaves in one write.

        While NATS is away it is kept, within PENDING_BYTES_MAX, and sent when it is back.
        Raises: StoreTooLarge, StoreUnreachable; ValueError for a header with a line break in it.
        """
        client = self._client
        self._check_size(payload, headers)
        if client.is_closed:
            raise StoreUnreachable(self._because("the connection is closed"))
        command = encode(subject, reply, headers, payload)
        if client._pending_data_size + len(command) > PENDING_BYTES_MAX:
            raise StoreUnreachable(self._because(f"{PENDING_BYTES_MAX} bytes wait to be sent"))
        self._add(command)

    def push(self) -> None:
        """What waits to be sent leaves now, and not when this turn of the loop ends."""
        if self._flushing:
            self._flush()

    def _add(self, command: bytes) -> None:
        """To what leaves when this turn of the loop ends. Past the library's own `publish`, which flushes by a task of its
        own.
        """
        client = self._client
        client._pending.append(command)
        client._pending_data_size += len(command)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """What waits goes to the socket; while NATS is away the library keeps it for the reconnect."""
        client = self._client
        self._flushing = False
        if not client.is_connected or not client._pending:
            return
        if not isinstance(client._transport, TcpTransport):  # a WebSocket frames what it sends
            self.aside(client._flush_pending())
            return
        waiting, client._pending, client._pending_data_size = client._pending, [], 0
        client._transport.write(b"".join(waiting))  # type: ignore[no-untyped-call]

    async def store(
        self, subject: str, payload: bytes, headers: dict[str, str], *, timeout_s: float
    ) -> Stored:
        """Publish to a stream and wait for its acknowledgement: one round trip, and on three nodes one replication.

        What has to hold is said by the headers (codes.py): that a subject's last sequence is this one, that the message
        replaces those before it. `timeout_s` counts for each try; only "busy" is tried again here.

        Raises: AlreadyStored, GateRefused, StoreFull, StoreTooLarge, StoreMissing: nothing was stored;
            StoreUnreachable: unknown.
        """
        return await self._unless_busy(lambda: self._ask(subject, payload, headers, timeout_s))

    async def store_together(
        self, posts: Sequence[tuple[str, bytes, dict[str, str]]], *, timeout_s: float
    ) -> Stored:
        """`store` of several (subject, payload, headers) of one stream: all are stored or none, and the
        last one is acknowledged. The server keeps none of a batch whose end does not reach it.

        A refusal of any one of them refuses all, and does not say which one it was. The sizes are looked at first: a message
        that could not be sent would leave a batch without its end. Raises: as `store`.
        """
        for _, payload, headers in posts:
            self._check_size(payload, headers)
        return await self._unless_busy(lambda: self._ask_together(posts, timeout_s))

    async def _unless_busy(self, ask: Callable[[], Awaitable[Message]]) -> Stored:
        """Ask until the answer is another than "busy" (R3), which certainly stored nothing. Raises: StoreError."""
        for _ in range(BUSY_TRIES):
            stored = stored_or_why(await ask())
            if isinstance(stored, Stored):
                return stored
            if not isinstance(stored, Busy):
                raise stored
            await asyncio.sleep(BUSY_WAIT_S)
        raise StoreUnreachable("the server stayed busy")

    async def _ask_together(
        self, posts: Sequence[tuple[str, bytes, dict[str, str]]], timeout_s: float
    ) -> Message:
        """An atomic batch of NATS (its ADR-50); in one turn of the loop, so nothing comes between."""
        batch_id = f"{self._inbox_prefix}{next(self._tokens)}"
        *others, (subject, payload, headers) = posts
        for n, (each, data, more) in enumerate(others, 1):
            self.post(each, data, {**more, BATCH_ID: batch_id, BATCH_SEQ: str(n)})
        end = {BATCH_ID: batch_id, BATCH_SEQ: str(len(posts)), BATCH_COMMIT: "1"}
        return await self._ask(subject, payload, headers | end, timeout_s)

    async def api(
        self, subject: str, request: Mapping[str, Any], *, timeout_s: float = 5.0
    ) -> dict[str, Any]:
        """A call of JetStream's API, `subject` without its prefix: the answer's JSON. One round trip.

        A call that changes something may have done it, though it raises StoreUnreachable. Raises: StoreMissing (the stream,
        consumer or message is not there, which the text says), StoreFull, StoreUnreachable.
        """
        answer = await self._ask(
            f"{self.api_prefix}{subject}", json.dumps(request).encode(), None, timeout_s
        )
        return _checked(answer)

    def publish(
        self,
        subject: str,
        payload: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        reply: str = "",
    ) -> None:
        """`post`, but dropped with a debug line when it can't be sent: for what is repeated anyway, or asked for again."""
        try:
            self.post(subject, payload, headers, reply=reply)
        except StoreError as error:
            log.debug("publish_dropped", error_code=type(error).__name__)

    async def subscribe(self, subject: str, callback: Callback) -> Subscription:
        """`callback` runs as messages are read and must be quick; a message has no queue to wait in.

        What is read here is bounded by credit or by open calls. `drop` ends it. Raises: StoreUnreachable.
        """
        try:
            subscription = await self._client.subscribe(
                subject, cb=_never, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except NatsError as error:  # it is closed
            raise StoreUnreachable(str(error)) from error
        self._tap.callbacks[subscription._id] = callback
        private: Any = (
            subscription  # the library says that its task is None, which compiled code believes
        )
        if (task := private._wait_for_msgs_task) is not None:
            task.cancel()
        return subscription

    def subscribe_all(
        self, subjects: Sequence[str], callback: Callback, *, queue: str = ""
    ) -> list[Subscription]:
        """`subscribe` to many subjects, in one write and without waiting; with `queue`, as one of its members.

        Raises: StoreUnreachable.
        """
        client = self._client
        if client.is_closed:
            raise StoreUnreachable(self._because("the connection is closed"))
        subscriptions, commands = [], []
        for subject in subjects:
            client._sid += 1
            subscription = Subscription(client, client._sid, subject, queue, cb=_never)
            # A new connection subscribes to all that stand here.
            client._subs[subscription._id] = subscription
            self._tap.callbacks[subscription._id] = callback
            subscriptions.append(subscription)
            commands.append(f"SUB {subject} {queue} {subscription._id}\r\n")
        self._command("".join(commands).encode())
        return subscriptions

    def drop_all(self, subscriptions: Sequence[Subscription]) -> None:
        """Unsubscribe from many, in one write and without waiting; what is on its way still reaches the callback.

        So a request that was sent to a resource a moment before it left is answered ("moved"), and its caller needs no timeout.
        """
        if not subscriptions:
            return
        ids = [subscription._id for subscription in subscriptions]
        for each in ids:
            self._client._subs.pop(each, None)
        self._command("".join(f"UNSUB {each}\r\n" for each in ids).encode())
        self.aside(self._forget(ids))

    async def _forget(self, ids: Sequence[int]) -> None:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await self.settle(timeout_s=SETTLE_S)
        for each in ids:
            self._tap.callbacks.pop(each, None)

    async def settle(self, *, timeout_s: float) -> None:
        """Return when all was handed over that the server had sent when it read what was sent to it. Raises: as `flush`."""
        self.push()
        await self.flush(timeout_s=timeout_s)

    def _command(self, command: bytes) -> None:
        """For this connection alone: while there is none, the next one knows what it has to say."""
        if command and self._client.is_connected:
            self._add(command)

    def drop(self, subscription: Subscription) -> None:
        """Unsubscribe without waiting; nothing more reaches its callback."""
        self._tap.callbacks.pop(subscription._id, None)
        if not self._client.is_closed:
            self.aside(subscription.unsubscribe())

    async def retire(self, subscription: Subscription, *, timeout_s: float) -> None:
        """Unsubscribe, and return when all that the server had sent was handed to the callback.

        A server answers pings in its order with the messages: a flush behind the unsubscription is the proof. Without a
        connection, or in more than `timeout_s`, there is none, and it returns all the same.
        """
        try:
            await subscription.unsubscribe()
            await self.flush(timeout_s=timeout_s)
        except (NatsError, TimeoutError):
            log.debug("retired_without_answer", subject=subscription.subject)
        finally:
            self._tap.callbacks.pop(subscription._id, None)

    async def flush(self, *, timeout_s: float) -> None:
        """Return when the server has read what was sent: one ping. What waits for this turn's end is not sent by it (`settle`).

        Raises: NatsError, OSError, TimeoutError.
        """
        flush = self._client.flush(timeout=timeout_s)  # type: ignore[arg-type] # any number
        flushing = asyncio.ensure_future(flush)
        flushing.add_done_callback(may_fail_unheard)
        # The client's `wait_for` can swallow a cancellation before Python 3.12; a shield doesn't.
        try:
            await asyncio.shield(flushing)
        except asyncio.CancelledError:
            flushing.cancel()  # nobody waits for its answer any more, and a closed connection brings none
            raise

    def aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what a callback can't wait for; its errors are logged. Nobody waits for it: `close` does not cancel it either."""
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside_done)

    def _aside_done(self, task: asyncio.Task[None]) -> None:
        self._aside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._closing:
            log.error("link_task_failed", exc_info=error)

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Core request/reply: the answer's body. Of several answers the first counts.

        Raises: StoreMissing (nobody listens: certainly not done), StoreForbidden; StoreUnreachable: unknown.
        """
        answer = await self._ask(subject, payload, None, timeout_s)
        if answer.status == "503":
            raise StoreMissing(f"nobody answers on {subject}")
        return answer.data

    async def ask(
        self, subject: str, payload: bytes, headers: dict[str, str], *, timeout_s: float
    ) -> Message:
        """`request` with headers, and the whole answer: its status may say that nobody listens. Raises: StoreError."""
        return await self._ask(subject, payload, headers, timeout_s)

    async def ask_all(
        self, calls: Sequence[tuple[str, bytes, dict[str, str] | None]], *, timeout_s: float
    ) -> list[Message | StoreError]:
        """Calls at the same time, each (subject, payload, headers): for each the answer, or why there is none.

        They leave in one write. Raises: StoreTooLarge, StoreUnreachable, when they can't be sent.
        """
        begun: dict[str, asyncio.Future[Message]] = {}
        try:
            for subject, payload, headers in calls:
                token, future = self._begin(subject, payload, headers, timeout_s)
                begun[token] = future
            if begun:
                await asyncio.wait(begun.values())  # the sweep ends each
            return [_outcome(future) for future in begun.values()]
        finally:
            for token in begun:
                self._waiting.pop(token, None)

    async def newest(
        self, stream: str, subjects: Sequence[str], *, timeout_s: float
    ) -> list[Message]:
        """The newest message of each of these subjects that has one, wherever it is read, in the stream's order. What is stored
        meanwhile may be there beside what it replaces: of one subject the last counts.

        `subjects`: up to 1,000; with wildcards, that many messages. `timeout_s`: for each answer. The server ends an answer after
        some 64 MB, and leaves out what is replaced while it answers. So it is asked for what is behind until that is nothing, or
        was asked for thrice: one subject is hardly replaced in each of these moments.
        Raises: StoreUnreachable.
        """
        subject, request = f"{self.api_prefix}DIRECT.GET.{stream}", {"multi_last": list(subjects)}
        messages: list[Message] = []
        begins, owed, looks = 0, 0, 0
        while looks < _LOOKS:
            behind = {"seq": begins} if begins else {}
            answer, end = await self._to_the_end(subject, request | behind, timeout_s)
            messages += answer
            upto, pending = (int(end.headers.get(name, 0)) for name in (_UP_TO, _PENDING))
            if upto < owed:
                raise StoreUnreachable(f"{subject}: a server answered that lags behind another")
            if not answer and not pending:
                break
            owed = upto if pending else 0
            looks += not pending
            begins = 1 + (int(end.headers[_LAST]) if pending else upto)
        return messages

    async def _to_the_end(
        self, subject: str, request: Mapping[str, Any], timeout_s: float
    ) -> tuple[list[Message], Message]:
        """A call that is answered by several messages and an end mark: those, and that.

        They come on an inbox of their own: on the common one the first answer would end the call.
        """
        inbox = self._client.new_inbox()
        messages: list[Message] = []
        end: asyncio.Future[Message] = self._loop.create_future()

        def receive(message: Message) -> None:
            if not message.status:
                messages.append(message)
            elif not end.done():
                end.set_result(message)

        subscription = await self.subscribe(inbox, receive)
        try:
            self.post(subject, json.dumps(request).encode(), reply=inbox)
            async with asyncio.timeout(timeout_s):
                mark = await end
        except TimeoutError as error:
            raise StoreUnreachable(
                self._because(f"{subject}: no end after {timeout_s:g} s")
            ) from error
        finally:
            self.drop(subscription)
        if mark.status not in ("204", "404"):  # there is no more, and: there is nothing
            raise StoreUnreachable(f"{subject}: {mark.status}")
        return messages, mark

    # --- answers --------------------------------------------------------------------------------------------
    async def _ask(
        self, subject: str, payload: bytes, headers: dict[str, str] | None, timeout_s: float
    ) -> Message:
        token, future = self._begin(subject, payload, headers, timeout_s)
        try:
            return await future
        finally:
            self._waiting.pop(token, None)

    def _begin(
        self, subject: str, payload: bytes, headers: dict[str, str] | None, timeout_s: float
    ) -> tuple[str, asyncio.Future[Message]]:
        """Send a call: the token under which it waits, and its answer to come.

        No await lies between the sending and the entry in `_waiting`, so no answer can come before. Raises: StoreTooLarge,
        StoreUnreachable, StoreForbidden: it was not sent.
        """
        if len(self._waiting) >= OPEN_MAX:
            raise StoreUnreachable(f"{OPEN_MAX} calls are unanswered")
        future: asyncio.Future[Message] = self._loop.create_future()
        token = str(next(self._tokens))
        if self._client.forbidden:
            self._check_heard()
        self.post(subject, payload, headers, reply=self._inbox_prefix + token)
        self._waiting[token] = future, self._loop.time() + timeout_s, subject
        if not self._sweeping:
            self._sweep()
        return token, future

    def _sweep(self) -> None:
        """End the waits whose time is up. One timer for all: each commit would pay for its own.

        A wait leaves the table where it is awaited, not here: this only ends its future. So it goes on as long as there is one.
        """
        now_s = self._loop.time()
        for future, until_s, _ in self._waiting.values():
            if until_s <= now_s and not future.done():
                future.set_exception(NotInTime(self._because("no answer in time")))
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._loop.call_later(SWEEP_S, self._sweep)

    def _check_size(self, payload: bytes, headers: dict[str, str] | None) -> None:
        """nats-py leaves the headers out, and the server closes the connection of whoever sends more."""
        size, limit = len(payload), self.payload_bytes_max
        if headers and size + HEADERS_BYTES_MAX > limit:
            size += 12 + sum(len(k) + len(v.encode()) + 4 for k, v in headers.items())
        if size > limit:
            raise StoreTooLarge(f"{size} bytes are over the server's max_payload ({limit})")

    def _on_answer(self, answer: Message) -> None:
        """On the connection's reading. A second answer, or one that is too late, finds nobody."""
        waiting = self._waiting.get(answer.subject.rpartition(".")[2])
        if waiting is not None and not waiting[0].done():
            waiting[0].set_result(answer)

    def _lost(self) -> None:
        """What was in flight is unknown now. Told by the library when a connection ends, and by `close`.

        Waiting for the time limits instead would hold up each caller for seconds after the connection is back: what it waits
        for is lost, since answers go to a connection that is gone.
        """
        why = self._because("the connection to NATS was lost")
        for future, _, _ in self._waiting.values():
            if not future.done():
                future.set_exception(StoreUnreachable(why))
        self.connected.session = ""
        self.connected.losses += 1
        if not self._closing:
            self._lost_s = self._loop.time()
            if self._log is not None:
                self._log.warning(
                    "nats_lost",
                    url=self._server.shown_url,
                    connection=self._name,
                    reason=self._client.trouble,
                )

    def _because(self, what: str) -> str:
        trouble = self._client.trouble
        return f"{what} ({trouble})" if trouble else what

    @property
    def _answers(self) -> str:
        return f"{self._inbox_prefix}*"

    def _check_heard(self) -> None:
        """Raises: StoreForbidden when no answer can reach us."""
        if (reason := self._client.forbidden.get(self._answers)) is not None:
            raise StoreForbidden(reason)

    def _forbidden(self, subject: str, reason: str) -> None:
        """Whoever asked on this subject needn't wait; all of them, when no answer reaches us."""
        for future, _, asked in self._waiting.values():
            if subject in (asked, self._answers) and not future.done():
                future.set_exception(StoreForbidden(reason))

    async def _back(self) -> None:
        """Told by the library, when it has subscribed again to all. The session comes first: callbacks look at it."""
        self.connected.session = _session(self._client)
        away_s = 0.0 if self._lost_s is None else self._loop.time() - self._lost_s
        if self._log is not None:
            self._log.info(
                "nats_restored",
                url=self._server.shown_url,
                connection=self._name,
                duration_s=round(away_s, 6),
            )
        for callback in list(self._restored):
            await callback()


def _session(client: Client) -> str:
    """As the server's own events name the connection, so that control knows whose connection closed (system account)."""
    return session_name(str(client._server_info.get("server_id", "")), int(client.client_id or 0))


def may_fail_unheard(ended: asyncio.Future[Any]) -> None:
    """Whoever waited may be gone: asyncio says nothing of the error then."""
    if not ended.cancelled():
        ended.exception()


async def _never(message: object) -> None:
    raise AssertionError("tapped before the library saw it")


def _let_go(client: Client) -> None:
    """In a forked child, whose copy of the socket would hide the parent's death from NATS."""
    writer = getattr(client._transport, "_io_writer", None)
    connected = None if writer is None else writer.get_extra_info("socket")
    if connected is not None and connected.fileno() >= 0:
        process.cut_off(connected.fileno())


class Busy(StoreError):
    """Err 10164: another check of the same subject is in flight; nothing was stored, ask again (R3, on three nodes)."""


def _outcome(future: asyncio.Future[Message]) -> Message | StoreError:
    error = future.exception()
    if error is None:
        return future.result()
    assert isinstance(error, StoreError)
    return error


def stored_or_why(answer: Message) -> Stored | StoreError:
    """What a stream's answer to a publish says. It returns what `store` would raise: on the hot path nothing is raised and
    caught.
    """
    try:
        body = _checked(answer)
    except StoreError as error:
        return error
    return Stored(int(body["seq"]), bool(body.get("duplicate")))


def _checked(answer: Message) -> dict[str, Any]:
    if not answer.data and answer.status == "503":
        raise StoreMissing("no JetStream stream takes this subject, or it has no leader now")
    try:
        body: dict[str, Any] = from_json(answer.data)
    except ValueError as error:
        raise StoreUnreachable(f"an answer that can't be read: {error}") from error
    if "error" in body:
        raise _error_of(body["error"])
    return body


def _error_of(error: Mapping[str, Any]) -> StoreError:
    """A refusal in our words. One that is not known here is unknown, never "not stored": a newer server may say more.

    10077 is said for two reasons, and its text tells them apart: the subject has its one message, or the stream is at a bound.
    """
    code, text = int(error.get("err_code", 0)), str(error.get("description", error))
    if code == ERR_WRONG_LAST_SEQUENCE:
        return GateRefused(text)
    if code == ERR_BUSY:
        return Busy(text)
    if code == ERR_BATCH_DUPLICATE or (code == ERR_STORE_FAILED and "per subject" in text):
        return AlreadyStored(text)
    if code in _MISSING:
        return StoreMissing(text)
    if code == ERR_STORE_FAILED or code in _FULL:
        return StoreFull(text)
    return StoreUnreachable(f"{text} ({code})")
