"""Builds the control process from its settings, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from importlib import metadata
from typing import Any

import structlog
from aegis_sdk.contract.control import AdminReply
from aegis_sdk.contract.metrics import Snapshot
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import RefusedByNats, Unavailable
from aegis_sdk.nats.jetstream import JetStream
from aegis_sdk.nats.link import Link
from nats.aio.msg import Msg

from aegis_control.application.leading.leadership import LEADER_KEY, Leadership, Pace
from aegis_control.application.operators.console import EVENTS_MAX, VERBS, Console, Replica
from aegis_control.application.operators.gather import Gather
from aegis_control.application.operators.history import STEP_S
from aegis_control.application.ports import NotTheBucket, ProvisionFailed
from aegis_control.application.state import ControlState
from aegis_control.application.term import Term
from aegis_control.application.world import World
from aegis_control.domain.events import StreamMadeAgain
from aegis_control.domain.leading.liveness import Limits
from aegis_control.domain.leading.spreading import Policy
from aegis_control.infrastructure import http
from aegis_control.infrastructure.clock import SystemClock
from aegis_control.infrastructure.console_http import console_routes
from aegis_control.infrastructure.http_origin import OwnNames
from aegis_control.infrastructure.loops import keep_doing
from aegis_control.infrastructure.metrics import REFRESH_INTERVAL_S, Metrics
from aegis_control.infrastructure.nats_archive import NatsArchive
from aegis_control.infrastructure.nats_buckets import NatsBucket
from aegis_control.infrastructure.nats_checkup import NatsCheckup
from aegis_control.infrastructure.nats_connect import Credentials, connect
from aegis_control.infrastructure.nats_endpoints import Endpoints, NatsEvents, NatsInstances
from aegis_control.infrastructure.nats_leader import NatsLeader
from aegis_control.infrastructure.nats_letters import NatsLetters
from aegis_control.infrastructure.nats_log_space import NatsLogSpace
from aegis_control.infrastructure.nats_logs import NatsLogs
from aegis_control.infrastructure.nats_own import NatsOwnLog
from aegis_control.infrastructure.nats_snapshots import listen_for_snapshots
from aegis_control.infrastructure.nats_streams import NatsStreams, StreamSettings
from aegis_control.infrastructure.seldom import Seldom
from aegis_control.settings import Settings

_PROVISION_RETRY_S = 0.5
_FOLLOW_RETRY_S = 1.0
_MAKE_AGAIN_S = 1.0


class Control:
    """One replica of control. `run` works until `stop`; `started` is set when it serves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._subjects = Subjects(settings.prefix)
        self._clock = SystemClock()
        self._gather = Gather(self._clock)
        self._term: Term | None = None
        self._stopping = asyncio.Event()
        self._link: Link | None = None
        self._hopeless: asyncio.Future[str]
        """Why NATS refuses our login for good; set when connected."""
        self._leadership: Leadership | None = None
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.started = asyncio.Event()
        self.http_port = 0
        """The port in use, once started."""

    @property
    def leading(self) -> bool:
        return self._leadership is not None and self._leadership.leading

    @property
    def leader(self) -> str:
        """The id of the leading replica as far as this one knows; empty when nobody leads."""
        return self._leadership.leader if self._leadership else ""

    def stop(self) -> None:
        """End `run` cleanly; safe twice, and before `run`."""
        self._stopping.set()
        if self._leadership is not None:
            self._leadership.stop()

    async def run(self) -> None:
        """Connect, provision, follow or lead.

        Raises: NatsAbsent, RefusedByNats, CredentialsUnusable, InvalidAddress, ProvisionFailed, OSError.
        """
        async with AsyncExitStack() as stack:
            link = JetStream(await stack.enter_async_context(self._connected()))
            system = await stack.enter_async_context(self._system_link())
            streams = NatsStreams(link, self._subjects, _stream_settings(self._settings))
            await self._provision(streams)
            await self._serve(stack, link, system, streams)

    async def _serve(
        self, stack: AsyncExitStack, link: JetStream, system: Link | None, streams: NatsStreams
    ) -> None:
        version = metadata.version("aegis-control")
        metrics = Metrics(streams, self._gather.fleet, version)
        events = NatsEvents(link, self._subjects, self._clock.wall, (metrics.observe,))
        world = self._world(link, system, streams, events, version)
        self._leadership = leadership = self._make_leadership(link, events, world)
        await self._listen_for_hints(link, leadership)
        await listen_for_snapshots(link.link, self._subjects, self._heard)
        archive = NatsArchive(link, self._subjects)
        console = self._console(link, streams, archive, version)
        await self._open_http(stack, metrics, console)
        if self._stopping.is_set():
            leadership.stop()
        self.started.set()
        beside = [
            asyncio.ensure_future(keep_doing(what, step, pause_s=pause_s))
            for what, step, pause_s in (
                ("events", events.publish, 0.0),
                ("history", self._step, STEP_S),
                ("metrics", lambda: metrics.refresh(self._state()), REFRESH_INTERVAL_S),
                ("timeline", lambda: self._follow(archive, console), _FOLLOW_RETRY_S),
                ("streams", lambda: self._make_again(streams, events), _MAKE_AGAIN_S),
            )
        ]
        try:
            await _unless_hopeless(leadership, self._hopeless)
        finally:
            await events.flush()
            for task in beside:
                task.cancel()
            # Before the connection closes: a reader would be told of that instead of its end.
            await asyncio.gather(*beside, return_exceptions=True)

    def _heard(self, snapshot: Snapshot) -> None:
        self._gather.heard(snapshot, counting=self.leading)

    async def _step(self) -> None:
        self._gather.step()

    async def _make_again(self, streams: NatsStreams, events: NatsEvents) -> None:
        """What belongs to no service: leading itself needs a bucket."""
        with contextlib.suppress(ProvisionFailed):
            for name in await streams.make_again():
                events.emit(
                    StreamMadeAgain(
                        stream=name,
                        reason="it was gone: what it held is lost, or comes back from elsewhere",
                    )
                )

    async def _follow(self, archive: NatsArchive, console: Console) -> None:
        """Whoever emits them, every replica's console shows the events."""
        reading = archive.numbered_events(newest=EVENTS_MAX, follow=True)
        async with contextlib.aclosing(reading) as events:
            async for seq, event in events:
                console.timeline.keep(seq, event)

    def _console(
        self, link: JetStream, streams: NatsStreams, archive: NatsArchive, version: str
    ) -> Console:
        leader = NatsLeader(link.link, self._subjects)

        async def ask(verb: str, data: bytes) -> AdminReply:
            # Changes go the way of all operators: as a part of the term, which ends with it.
            if self._term is not None and verb not in VERBS:
                return await self._term.admin(verb, data)
            return await leader.ask(verb, data)

        def replica() -> Replica:
            prefix = self._settings.prefix
            return Replica(self.id, version, prefix, link.connected, self.leader)

        return Console(
            ask=ask,
            shelf=archive,
            backlog=streams.backlog,
            history=self._gather.history.find,
            replica=replica,
            clock=self._clock,
            actions=bool(self._settings.console_token),
        )

    async def _listen_for_hints(self, link: JetStream, leadership: Leadership) -> None:
        """A leader that leaves writes so; its successor needn't wait for the next look."""

        async def hint(_: Msg) -> None:
            leadership.hint()

        subject = f"$KV.{self._subjects.control_bucket}.{LEADER_KEY}"
        await link.client.subscribe(subject, cb=hint)

    def _world(
        self,
        link: JetStream,
        system: Link | None,
        streams: NatsStreams,
        events: NatsEvents,
        version: str,
    ) -> World:
        settings, subjects = self._settings, self._subjects
        endpoints = Endpoints(link.link, system, subjects, token=secrets.token_hex(6))
        return World(
            registry=NatsBucket(link, subjects.registry_bucket),
            leases=NatsBucket(link, subjects.leases_bucket),
            own_log=NatsOwnLog(link, subjects),
            log_space=NatsLogSpace(link, subjects),
            requests=streams,
            logs=NatsLogs(link, streams),
            instances=NatsInstances(link.link, subjects),
            hearing=endpoints,
            letters=NatsLetters(link, subjects),
            checkup=NatsCheckup(streams, system, self._clock.wall, replicas=settings.replicas),
            events=events,
            clock=self._clock,
            subjects=subjects,
            limits=_limits(settings),
            spread=_policy(settings),
            listen=endpoints.listen,
            leader_id=self.id,
            version=version,
            ack_wait_s=settings.ack_wait_s,
            outcome_ttl_s=settings.outcome_ttl_s,
            replicas=settings.replicas,
            calls_per_s=self._gather.history.calls_per_s,
        )

    def _make_leadership(self, link: JetStream, events: NatsEvents, world: World) -> Leadership:
        pace = Pace(self._settings.leader_renewal_s, self._settings.leader_timeout_s)
        # A renewal that is not answered in half the timeout leaves time for another.
        bucket = NatsBucket(link, self._subjects.control_bucket, write_timeout_s=pace.timeout_s / 2)

        async def lead() -> None:
            while True:  # a term that lost a bucket begins again here, where most is known
                self._term = Term(world)
                try:
                    await self._term.run()
                except BaseExceptionGroup as group:
                    if group.subgroup(NotTheBucket) is None:
                        raise
                finally:
                    self._term = None

        return Leadership(
            self.id, bucket=bucket, clock=self._clock, events=events, pace=pace, term=lead
        )

    async def _open_http(self, stack: AsyncExitStack, metrics: Metrics, console: Console) -> None:
        def scrape() -> bytes:
            connected = self._link is not None and self._link.is_connected
            return metrics.render(self._state(), connected=connected)

        host, port, seldom = self._settings.http_host, self._settings.http_port, Seldom()
        app = http.make_app(
            metrics=scrape,
            not_ready=self._not_ready,
            history=self._gather.history.find,
            console=console_routes(console, self._settings.console_token, seldom),
            names=OwnNames(host, self._settings.own_names),
            seldom=seldom,
        )
        serving = http.serve(app, host=host, port=port, seldom=seldom)
        self.http_port = await stack.enter_async_context(serving)
        structlog.stdlib.get_logger("aegis_control").info(
            "http_listening", address=f"http://{host}:{self.http_port}"
        )

    def _state(self) -> ControlState | None:
        return self._term.state if self._term is not None else None

    def _not_ready(self) -> str:
        if self._link is None or not self._link.is_connected:
            return "not connected to NATS"
        return "" if self.leader else "no replica leads"

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Link]:
        settings = self._settings
        link = await self._interruptible(
            settings.url, _credentials(settings), f"{settings.prefix}/control/{self.id}"
        )
        self._link = link
        self._hopeless = link.hopeless
        try:
            yield link
        finally:
            await _close(link)

    @asynccontextmanager
    async def _system_link(self) -> AsyncIterator[Link | None]:
        settings = self._settings
        logins = (settings.system_user, settings.system_creds, settings.system_nkey)
        if not (settings.system_url or any(logins)):
            yield None
            return
        link = await self._interruptible(
            settings.system_url or settings.url,
            _system_credentials(settings),
            f"{settings.prefix}/control/{self.id}/system",
        )
        try:
            yield link
        finally:
            await _close(link)

    async def _interruptible(self, url: str, credentials: Credentials, name: str) -> Link:
        """Connect, unless `stop` comes first (then CancelledError ends `run`)."""
        connecting = asyncio.ensure_future(
            connect(
                url,
                credentials,
                name=name,
                wait=self._settings.wait,
                on_reconnected=self._on_reconnected,
            )
        )
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({connecting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                connecting.cancel()
            return await connecting
        finally:
            stopped.cancel()

    async def _on_reconnected(self) -> None:
        if self._term is not None:
            self._term.reconnected()

    async def _provision(self, streams: NatsStreams) -> None:
        """A cluster that is electing answers in a moment. Raises: ProvisionFailed."""
        while not self._stopping.is_set():
            try:
                await streams.provision_common()
                return
            except Unavailable as error:
                if not self._settings.wait or isinstance(error, RefusedByNats):
                    raise ProvisionFailed(str(error)) from error
                structlog.stdlib.get_logger("aegis_control").warning(
                    "jetstream_not_ready", reason=str(error)
                )
                await asyncio.sleep(_PROVISION_RETRY_S)


def _limits(settings: Settings) -> Limits:
    return Limits(
        heartbeat_interval_s=settings.heartbeat_interval_s,
        heartbeat_timeout_s=settings.heartbeat_timeout_s,
        stall_limit_s=settings.stall_limit_s,
        return_grace_s=settings.return_grace_s,
    )


def _policy(settings: Settings) -> Policy:
    return Policy(
        on=settings.spread,
        wait_s=settings.spread_wait_s,
        moves_max=settings.spread_moves_max,
        difference=settings.spread_difference,
    )


def _stream_settings(settings: Settings) -> StreamSettings:
    return StreamSettings(
        replicas=settings.replicas,
        stream_max_bytes=settings.stream_max_bytes,
        requests_max_age_s=settings.requests_max_age_s,
        requests_max_msgs=settings.requests_max_msgs,
        requests_max_bytes=settings.requests_max_bytes,
        dlq_max_age_s=settings.dlq_max_age_s,
        events_max_age_s=settings.events_max_age_s,
        events_max_bytes=settings.events_max_bytes,
        emitted_max_age_s=settings.emitted_max_age_s,
        emitted_max_msgs=settings.emitted_max_msgs,
        emitted_max_bytes=settings.emitted_max_bytes,
        ack_wait_s=settings.ack_wait_s,
    )


def _credentials(settings: Settings) -> Credentials:
    return Credentials(
        user=settings.user,
        password=settings.password,
        creds=settings.creds,
        nkey=settings.nkey,
        tls_ca=settings.tls_ca,
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        domain=settings.domain,
        inbox_prefix=settings.inbox_prefix,
    )


def _system_credentials(settings: Settings) -> Credentials:
    return replace(
        _credentials(settings),
        user=settings.system_user,
        password=settings.system_password,
        creds=settings.system_creds,
        nkey=settings.system_nkey,
    )


async def _unless_hopeless(leadership: Leadership, hopeless: asyncio.Future[str]) -> None:
    """Lead or follow. Raises: RefusedByNats when NATS refuses our login, which can't change, for too long."""
    running = asyncio.ensure_future(leadership.run())
    ends: set[asyncio.Future[Any]] = {running, hopeless}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise RefusedByNats(hopeless.result())
        await running
    finally:
        running.cancel()
        await asyncio.wait({running})


async def _close(link: Link) -> None:
    with contextlib.suppress(Exception):
        await link.close()
