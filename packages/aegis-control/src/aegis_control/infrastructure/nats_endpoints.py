"""Where instances and operators reach control: requests in, replies out, commands and events.

Subscriptions hand each request to a task of its own; the client serves one message at a time per
subscription, and a registration must not wait for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import nats.errors
import pydantic
import structlog
from aegis_sdk.contract.control import Ack, AdminReply, Command, Heartbeat
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import MSG_ID
from aegis_sdk.contract.names import session_name
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.calls import ask
from aegis_sdk.nats.jetstream import JetStream, Outgoing
from aegis_sdk.nats.link import Link
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from aegis_control.application.unreadable import said_by
from aegis_control.application.world import Api
from aegis_control.domain.events import Event
from aegis_control.domain.leading.connections import is_instances

_EVENTS_QUEUED_MAX: Final = 10_000
"""Events wait here while NATS is away; beyond it the log has them, the event subject doesn't."""

_EVENTS_A_BATCH_MAX: Final = 100
_STORE_TRIES: Final = 5
_STORE_TIMEOUT_S: Final = 2.0
"""With its tries, longer than a cluster takes to elect a stream's new leader (4-5 s)."""
_STORE_WAIT_S: Final = 0.2
_FLUSH_TIMEOUT_S: Final = 1.0

_TOLD_MAX: Final = 1_000
_ECHO_TIMEOUT_S: Final = 0.5
_NO_SERVICE: Final = "-"
"""No service has this name, so no instance's heartbeat has the echo's subject."""

_log = structlog.stdlib.get_logger


class NatsInstances:
    """`Instances`: commands over core NATS."""

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self._link = link
        self._subjects = subjects

    async def command(self, instance_id: str, command: Command, *, timeout_s: float) -> Ack | None:
        subject, data = self._subjects.command(instance_id), command.model_dump_json().encode()
        try:
            return Ack.model_validate_json(
                await ask(self._link, subject, data, timeout_s=timeout_s)
            )
        except (Unavailable, pydantic.ValidationError):
            return None

    async def tell(self, instance_id: str, command: Command) -> None:
        subject, data = self._subjects.command(instance_id), command.model_dump_json().encode()
        self._link.publish(subject, data)


class Endpoints:
    """Listens for the leader (and is its `Hearing`).

    `system` is a client of the system account, or None; `token` tells replicas apart.
    """

    def __init__(self, link: Link, system: Link | None, subjects: Subjects, *, token: str) -> None:
        self._link = link
        self._system = system
        self._subjects = subjects
        self._echo_subject = subjects.heartbeat(_NO_SERVICE, token)
        self._echo: asyncio.Future[None] | None = None
        self._told_unreadable: set[str] = set()

    async def check(self) -> None:
        """A message to our own subscription of heartbeats comes after all that were there before."""
        self._echo = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_ECHO_TIMEOUT_S):
                await self._link.client.publish(self._echo_subject)
                await self._echo
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("NATS does not bring heartbeats just now") from error
        finally:
            self._echo = None

    @asynccontextmanager
    async def listen(self, api: Api) -> AsyncIterator[None]:
        """Take requests to `api` while the context is open."""
        client, names = self._link.client, self._subjects
        async with asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as stack:

            async def on(
                to: Client, subject: str, handle: Callable[[Msg], Awaitable[None]]
            ) -> None:
                subscription = await to.subscribe(subject, cb=handle)
                stack.push_async_callback(_unsubscribe, subscription)

            if self._system is not None:
                await on(self._system.client, "$SYS.ACCOUNT.*.DISCONNECT", self._on_disconnect(api))
            await on(client, names.heartbeat("*", "*"), self._on_heartbeat(api))
            await on(client, names.dead_letters, self._on_dead_letter(api))
            await on(client, names.resources, _answering(tasks, lambda m: api.change(m.data)))
            await on(client, names.demand, _answering(tasks, lambda m: api.demand(m.data)))
            await on(client, names.leave, _answering(tasks, lambda m: api.leave(m.data)))
            await on(client, names.admin("*"), _answering(tasks, lambda m: _ask_admin(api, m)))
            await on(client, names.register, _answering(tasks, lambda m: api.register(m.data)))
            yield

    def _on_heartbeat(self, api: Api) -> Callable[[Msg], Awaitable[None]]:
        async def handle(message: Msg) -> None:
            if message.subject == self._echo_subject:
                if self._echo is not None and not self._echo.done():
                    self._echo.set_result(None)
                return
            try:
                beat = Heartbeat.model_validate_json(message.data)
            except ValueError as error:
                self._unreadable("heartbeat_unreadable", message, error)
            else:
                api.heard(beat)

        return handle

    def _unreadable(self, event: str, message: Msg, error: Exception) -> None:
        """Once a subject: whoever sends such messages does it again and again."""
        if message.subject in self._told_unreadable or len(self._told_unreadable) >= _TOLD_MAX:
            return
        self._told_unreadable.add(message.subject)
        _log("aegis_control").warning(event, subject=message.subject, reason=said_by(error))

    def _on_dead_letter(self, api: Api) -> Callable[[Msg], Awaitable[None]]:
        async def handle(message: Msg) -> None:
            try:
                letter = DeadLetter.parse(message.headers or {}, message.data)
            except (KeyError, ValueError) as error:
                self._unreadable("dead_letter_unreadable", message, error)
            else:
                api.dead_lettered(letter)

        return handle

    def _on_disconnect(self, api: Api) -> Callable[[Msg], Awaitable[None]]:
        async def handle(message: Msg) -> None:
            event = json.loads(message.data)
            client, server = event.get("client", {}), event.get("server", {})
            if is_instances(client.get("name", ""), self._subjects.prefix):
                session = session_name(server.get("id", ""), client.get("id", 0))
                api.closed(session, event.get("reason", ""))

        return handle


class NatsEvents:
    """`Events`: to the log, to listeners in this process (metrics), and to the stream of events.

    Each is sent until the stream has it, in order: they are the audit trail too. A stream that is
    away for long, or gone, costs events, never control its work; the log has them all.
    """

    def __init__(
        self,
        link: JetStream,
        subjects: Subjects,
        wall: Callable[[], float],
        listeners: tuple[Callable[[Event], None], ...] = (),
    ) -> None:
        self._link = link
        self._subjects = subjects
        self._wall = wall
        self._listeners = listeners
        self._queue: asyncio.Queue[Outgoing] = asyncio.Queue(_EVENTS_QUEUED_MAX)

    def emit(self, event: Event) -> None:
        log, details = _log("aegis_control"), event.details()
        (log.warning if event.alarming else log.info)(event.name, **_for_log(details))
        for listener in self._listeners:
            listener(event)
        body = {"event": event.name, "time": self._wall(), **details}
        data = json.dumps(body, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace")
        message = Outgoing(self._subjects.event(event.name), data, {MSG_ID: secrets.token_hex(8)})
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(message)

    async def publish(self) -> None:
        """Send the events that are queued, when there are any."""
        batch = [await self._queue.get()]
        while not self._queue.empty() and len(batch) < _EVENTS_A_BATCH_MAX:
            batch.append(self._queue.get_nowait())
        try:
            await self._store(batch)
        finally:
            for _ in batch:
                self._queue.task_done()

    async def flush(self) -> None:
        """Wait for what was emitted so far, but not long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                await self._queue.join()

    async def _store(self, batch: list[Outgoing]) -> None:
        """Their ids make a second publish of the same event one entry."""
        for _ in range(_STORE_TRIES):
            await self._connected()
            try:
                results = await self._link.publish_all(batch, timeout_s=_STORE_TIMEOUT_S)
            except Unavailable:
                continue
            batch = [m for m, r in zip(batch, results, strict=True) if not isinstance(r, int)]
            if not batch:
                return
            await asyncio.sleep(_STORE_WAIT_S)
        _log("aegis_control").warning("events_not_kept", events=len(batch))

    async def _connected(self) -> None:
        while not self._link.connected:  # noqa: ASYNC110 - the client has no event for it
            await asyncio.sleep(_STORE_WAIT_S)


def _for_log(details: dict[str, Any]) -> dict[str, Any]:
    """A thousand resource ids make a line that nobody reads: the log has their number."""
    found = details.get("resources")
    if not isinstance(found, list):
        return details
    return {k: v for k, v in details.items() if k != "epochs"} | {"resources": len(found)}


async def _ask_admin(api: Api, message: Msg) -> pydantic.BaseModel:
    return await api.admin(message.subject.rpartition(".")[2], message.data)


def _answering(
    tasks: asyncio.TaskGroup, ask: Callable[[Msg], Awaitable[pydantic.BaseModel]]
) -> Callable[[Msg], Awaitable[None]]:
    async def reply_to(message: Msg) -> pydantic.BaseModel:
        try:
            return await ask(message)
        except Exception as error:
            # A bug of ours: it must not end the leadership, and who asked is told.
            _log("aegis_control").exception("request_failed", subject=message.subject)
            reason = f"control could not do it: {type(error).__name__}: {error}"
            return AdminReply(ok=False, code="internal", message=reason)

    async def answer(message: Msg) -> None:
        reply = await reply_to(message)
        try:
            await message.respond(reply.model_dump_json().encode())
        except (nats.errors.Error, OSError) as error:
            _log("aegis_control").warning("reply_not_sent", reason=str(error))

    async def handle(message: Msg) -> None:
        if message.reply:
            tasks.create_task(answer(message))

    return handle


async def _unsubscribe(subscription: Subscription) -> None:
    with contextlib.suppress(nats.errors.Error, OSError):
        await subscription.unsubscribe()
