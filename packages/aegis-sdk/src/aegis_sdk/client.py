"""The facade: connect, request, submit, attach, serve."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from aegis_sdk import process
from aegis_sdk.application.composing import CLOSED
from aegis_sdk.application.requester import TIMEOUT_S
from aegis_sdk.application.tracing import LOG_TRACER, Tracer
from aegis_sdk.context import Ticket
from aegis_sdk.contract import arguments
from aegis_sdk.contract.control import Role, roles_of
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.on_demand import Resources
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.errors import ContractError, Draining, InvalidArgument
from aegis_sdk.infrastructure.metrics import Publisher
from aegis_sdk.infrastructure.turns.assembly import TurnClient
from aegis_sdk.instance import Instance, new_token
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from aegis_sdk.service import Service

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from aegis_sdk.infrastructure.metrics_server import MetricsServer

Req = TypeVar("Req")
Rep = TypeVar("Rep")

CLOSE_DRAIN_S = 1.0
CLOSE_S_MAX = 2.0
"""With the leaving, which waits for control: without its word the resources move when heartbeats are missed."""
COLD_START_S = 30.0
"""How long `connect` waits for NATS and `serve` for control by default: all may start at the same moment."""


class Aegis:
    """A connection. Made by `connect`; safe to share between tasks of one event loop.

    On another loop, and in a forked child, each verb raises ContractError. Threads share an `aegis_sdk.blocking` one.
    """

    def __init__(
        self,
        link: Link,
        server: Server,
        subjects: Subjects,
        *,
        metrics: bool = True,
        tracer: Tracer = LOG_TRACER,
    ) -> None:
        self._link = link
        self._server = server
        self._subjects = subjects
        self._recorder = Recorder() if metrics else NO_RECORDER
        self._tracer = tracer
        self._publisher = Publisher(link, subjects, self._recorder, source=new_token())
        self._metrics_server: MetricsServer | None = None
        self._requests = TurnClient(link, subjects, recorder=self._recorder, tracer=tracer)
        self._instances: list[Instance] = []
        self._starting: set[asyncio.Task[Instance]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def request(
        self,
        method: Method[Req, Rep],
        payload: Req,
        *,
        resource: str | None = None,
        timeout_s: float = TIMEOUT_S,
        key: str | None = None,
    ) -> Rep:
        """Send a request and return its reply, executed exactly once.

        With `resource` it goes to that resource's active, otherwise to any instance of the service.
        `timeout_s` is the deadline: when it passes, the request is cancelled, or its outcome returned
        if that was first. `key` is an idempotency key of your own (1 to 200 bytes): the same key, also
        from another process or later, gets the stored outcome of this service. An outcome is final, also
        `cancelled`: to try again after NotExecuted, take a new key.

        Raises:
            Rejected: the handler refused; no state was changed.
            HandlerFailed: the handler raised, or its reply can't be stored; no state was changed.
            ReplyUnreadable: it took effect; the reply that is stored doesn't fit `method.reply`.
            NotExecuted: certainly without effect (NoRoute, Overloaded, Expired, Cancelled, Draining).
            OutcomeUnknown: NATS could not be reached; attach(error.request_id) resolves it.
            ContractError: wrong use; nothing was stored (see aegis_sdk.errors).
            Unavailable: the registry could not be read; nothing was stored.
            RefusedByNats: this login may not ask there; nothing was stored.
        """
        self._check()
        return await self._requests.requester.request(
            method, payload, resource=resource, timeout_s=timeout_s, key=key
        )

    async def read(
        self,
        method: Method[Req, Rep],
        query: Req,
        *,
        resource: str,
        at: Literal["active", "standby"] = "active",
        at_least: str | None = None,
        lag_s_max: float | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Rep:
        """Ask for what a resource's state says, without storing anything; answered by a `Service.reads` function.

        At the "active" it misses nothing that anybody was answered before it was made. At a "standby" it may be older, by
        what that one has not read yet. Either way it misses nothing that this client has seen of the service, and nothing up
        to `at_least`, a `position()` of any client. `lag_s_max` bounds in seconds how old a standby may be. It waits for
        neither handlers that run nor requests that wait.

        Raises:
            Rejected, HandlerFailed: what the reader raised.
            NoRoute: nobody answers reads of the resource there.
            TooFarBehind: no standby has read so far within `timeout_s`.
            Expired: no answer within `timeout_s`.
            ContractError: wrong use; the method is not read; `at_least` is of a log that was begun anew since.
            ReplyUnreadable, LogLost, Unavailable, RefusedByNats, Draining: as for `request`.
        """
        self._check()
        return await self._requests.requester.reading.read(
            method,
            query,
            resource=resource,
            at=at,
            at_least=at_least,
            lag_s_max=lag_s_max,
            timeout_s=timeout_s,
        )

    def position(self, method: Method[Any, Any]) -> str:
        """The newest position in the log of the method's service that a reply brought to this client; empty before the first.

        Another client reads what this one has seen with `read(..., at_least=position)`. Raises: ContractError.
        """
        return self._requests.requester.reading.position(method)

    async def submit(
        self,
        method: Method[Req, Any],
        payload: Req,
        *,
        resource: str | None = None,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        expires_s: float | None = None,
        not_before: datetime | float | None = None,
    ) -> Ticket:
        """Store a request and return when it is accepted; its outcome is fetched by `attach`.

        It waits for its handler as long as the request stream keeps it, or `expires_s` seconds. It begins not before `not_before`,
        a datetime that names its zone or seconds from now: until then it is part of its resource's state, holds up nothing,
        and can be cancelled. That takes a resource.

        Raises:
            OutcomeUnknown: not acknowledged within `timeout_s`; submit again with the same `key`.
            NotExecuted, ContractError, Unavailable: as for `request`.
        """
        self._check()
        return await self._requests.requester.submit(
            method,
            payload,
            resource=resource,
            key=key,
            timeout_s=timeout_s,
            expires_s=expires_s,
            not_before=not_before,
        )

    async def attach(
        self, request_id: str, method: Method[Any, Rep], *, timeout_s: float = TIMEOUT_S
    ) -> Rep:
        """The outcome of a request made earlier, by any process, as `request` would return or raise it.

        Raises:
            OutcomeUnknown: it has none after `timeout_s`; attach again.
            NeverAccepted: nobody knows the id (a kind of OutcomeUnknown); found out after `timeout_s`, by
                reading the ids of all requests that are kept.
            Draining: this client is closed.
        """
        self._check()
        return await self._requests.requester.attach(request_id, method, timeout_s=timeout_s)

    async def cancel(
        self,
        request_id: str,
        method: Method[Any, Any] | None = None,
        *,
        resource: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> OutcomeKind:
        """End a request, whoever made it, unless it has ended; how it ended. `cancelled`: it never takes effect.

        It is asked for politely first, so that one that has begun may still be executed; then its end is stored. A request
        is found if this client has it open, if it was stored (`submit`, a key, in doubt), or if it has an outcome. For one
        that was only sent, by a client that is gone, name its `method` and `resource`. `attach` gives the reply.

        A caller whose task is cancelled needs none of this: its request is cancelled with it, and the log has its id.

        Raises:
            NeverAccepted: it is nowhere, and has no effect unless it is handed in from now on.
            OutcomeUnknown: NATS could not be reached; or it may have been sent only, and its method is not given.
            ContractError, UnknownService: wrong use; a method that takes a resource, without one.
            RefusedByNats, Draining: as for `attach`.
        """
        self._check()
        return await self._requests.requester.cancel(
            request_id, method, resource=resource, timeout_s=timeout_s
        )

    async def serve(
        self,
        service: Service,
        *,
        resources: Mapping[str, Role] | Resources | None = None,
        instance_id: str | None = None,
        capacity: float = 1,
        zone: str = "",
        wait_s: float = COLD_START_S,
    ) -> Instance:
        """Register an instance of `service` and serve it in the background, on a connection of its own.

        `resources` says what it offers to be for each resource; in deployments prefer Role.AUTO, since
        a restarted instance that claims ACTIVE is refused while its standby is the active. Control spreads what
        several instances offer as AUTO evenly over them; one with `capacity=2` gets twice as much as one with 1.

        `resources=Resources("ACC-*")` takes whatever is asked for and matches: see Resources. `zone` names what fails
        together with this instance, a rack or a data centre (default: its host); standbys are placed in another one.

        Raises:
            SecondActive: another instance is active for a resource claimed as ACTIVE.
            RegistrationRefused, InvalidName: control refused, and says why.
            ContractError: wrong use, or a service without handlers.
            RefusedByNats: this login lacks a right that an instance needs; the message names the subject.
            Unavailable: no control service answered within `wait_s`.
            Draining: this client is closed.
        """
        self._check()
        arguments.instance_of(service, Service, "service")
        service.servable()
        on_demand = resources if isinstance(resources, Resources) else None
        roles = roles_of({} if resources is None or on_demand else resources)
        zone = arguments.text(zone, "zone", error=InvalidArgument)
        capacity = arguments.number(
            capacity, "capacity", least=arguments.CAPACITY_MIN, most=arguments.CAPACITY_MAX
        )
        wait_s = arguments.duration_s(wait_s, "wait_s")
        starting = asyncio.create_task(
            Instance.start(
                service,
                server=self._server,
                subjects=self._subjects,
                resources=roles,
                on_demand=on_demand,
                zone=zone,
                instance_id=instance_id,
                capacity=capacity,
                wait_s=wait_s,
                recorder=self._recorder,
                tracer=self._tracer,
            )
        )
        self._starting.add(starting)
        starting.add_done_callback(self._started)
        try:
            return await starting
        except asyncio.CancelledError:
            if self._closing is not None and not _is_being_cancelled():
                raise Draining(CLOSED) from None
            raise

    def _started(self, starting: asyncio.Task[Instance]) -> None:
        self._starting.discard(starting)
        if not starting.cancelled() and starting.exception() is None:
            self._instances.append(starting.result())

    def serve_metrics(self, port: int, *, host: str = "127.0.0.1") -> int:
        """Serve this connection's metrics for Prometheus until it closes; the port (0 picks a free one).

        Control's /metrics has them too, for the whole system. Nothing is counted with `metrics=False`.

        Raises:
            ContractError: they are served already, or no such port.
            Draining: this client is closed.
            OSError: the address can't be had.
        """
        self._link.check_process()
        self._check_open()
        port = arguments.whole(port, "port", least=0, most=65_535)
        host = arguments.text(host, "host", error=InvalidArgument)
        if self._metrics_server is not None:
            raise ContractError(f"metrics are served on port {self._metrics_server.port} already")
        from aegis_sdk.infrastructure.metrics_server import MetricsServer

        self._metrics_server = MetricsServer(self._recorder, host=host, port=port)
        return self._metrics_server.port

    async def drain(self, *, timeout_s: float = 10.0) -> None:
        """Drain all instances served here, wait for open requests, close. What is still open then ends as by `close`.

        Raises: InvalidArgument; ContractError as `close`.
        """
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        self._link.usable()
        await self._instances_drained(timeout_s)
        await self._requests.close(drain_s=timeout_s)
        await self.close()

    async def close(self) -> None:
        """Quick, and safe twice; instances are drained of what takes under a second.

        Open calls end at once: by OutcomeUnknown with the request's id, or by Draining when nothing was sent.
        Cancelled, it goes on by itself. In a forked child there is nothing to close.

        Raises: ContractError on another event loop.
        """
        if self._link.is_forked:
            return
        self._link.usable()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._requests.close()
            for starting in self._starting:
                starting.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S_MAX):
                    await asyncio.gather(*self._starting, return_exceptions=True)
                    await self._instances_drained(CLOSE_DRAIN_S)
            await asyncio.gather(*(i.stop() for i in self._instances))
        finally:
            await self._end()

    async def _instances_drained(self, timeout_s: float) -> None:
        await asyncio.gather(*(i.drain(timeout_s=timeout_s) for i in self._instances))

    def _check(self) -> None:
        """Raises: Draining; ContractError in a forked child, or on another event loop."""
        self._link.usable()
        self._check_open()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise Draining(CLOSED)

    async def _start(self) -> None:
        await self._requests.start()
        if self._recorder is not NO_RECORDER:
            self._publisher.start()

    async def _end(self) -> None:
        await self._publisher.stop()
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.stop)
        await self._link.close()


@asynccontextmanager
async def connect(
    url: str = "nats://127.0.0.1:4222",
    *,
    prefix: str = "aegis",
    name: str = "aegis-client",
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
    credentials: str | None = None,
    nkeys_seed: str | None = None,
    domain: str | None = None,
    inbox_prefix: str | None = None,
    tls: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None,
    wait_s: float | None = None,
    metrics: bool = True,
    tracer_provider: TracerProvider | None = None,
) -> AsyncIterator[Aegis]:
    """`async with connect(url) as aegis:`; several servers are separated by commas.

    Later losses of the connection are repaired without end, and nobody has to think of them; `wait_s`
    is how long the first connection is tried. By default that is 30 s while nobody answers there, and a login that is
    refused is an error at once. `credentials` (JWT and seed) and `nkeys_seed` name files and need
    `pip install nkeys`; they are read again for each connection, and so are the certificates where
    `tls` is a function that makes the context. `domain` is JetStream's, where the streams are behind a leaf node;
    `inbox_prefix` begins the subjects for answers, where users may listen to their own alone. What is counted
    here, and by the instances served on it, is shown by control's /metrics unless `metrics=False`. With
    OpenTelemetry installed (`pip install opentelemetry-api`), requests join the traces of `tracer_provider`,
    by default the global one.

    Raises:
        InvalidAddress: `url` can't be read.
        InvalidName, InvalidArgument: of the other arguments.
        RefusedByNats: NATS refuses the login, or is not trusted; the message has its reason.
        Unavailable: NATS did not answer; the message says where it was looked for.
    """
    process.end_as_pid_1()
    server = Server(url, user, password, token, credentials, nkeys_seed, tls, domain, inbox_prefix)
    server.check()
    name = arguments.text(name, "name")
    subjects = Subjects(prefix)
    given_s = None if wait_s is None else arguments.duration_s(wait_s, "wait_s")
    link = await Link.open_within(
        server,
        name=name,
        wait_s=COLD_START_S if given_s is None else given_s,
        refused_s=given_s or 0.0,
    )
    tracer = _tracer(subjects, tracer_provider)
    aegis = Aegis(link, server, subjects, metrics=metrics, tracer=tracer)
    try:
        await aegis._start()
        yield aegis
    finally:
        await aegis.close()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _tracer(subjects: Subjects, provider: TracerProvider | None) -> Tracer:
    """Spans where OpenTelemetry is installed, and the log everywhere."""
    try:
        from aegis_sdk.infrastructure.otel import OtelTracer
    except ModuleNotFoundError:
        return LOG_TRACER
    return OtelTracer(subjects, inner=LOG_TRACER, provider=provider)
