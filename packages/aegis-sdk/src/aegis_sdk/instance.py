"""A running instance of a service: what `Aegis.serve` gives back, and how its parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import secrets
import socket
import time
from collections.abc import Coroutine, Iterable, Mapping
from importlib import metadata
from typing import Any, Final

from aegis_sdk import process
from aegis_sdk.application.membership import Membership, obey
from aegis_sdk.application.ports import StoreError
from aegis_sdk.application.tracing import Tracer
from aegis_sdk.application.turns.idle import Idle
from aegis_sdk.application.turns.offering import CHANGE_TIMEOUT_S, Offering
from aegis_sdk.application.turns.serving import TurnServing
from aegis_sdk.contract import arguments
from aegis_sdk.contract.control import (
    PROTOCOL,
    Ack,
    Command,
    CommandKind,
    Heartbeat,
    OnDemand,
    Registration,
    RegistrationReply,
    Role,
)
from aegis_sdk.contract.names import check_instance
from aegis_sdk.contract.on_demand import Resources
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.errors import (
    AegisError,
    Copied,
    Draining,
    Evicted,
    Fenced,
    InvalidArgument,
    RefusedByNats,
    Unavailable,
)
from aegis_sdk.infrastructure.control_client import NatsControl
from aegis_sdk.infrastructure.log_watch import LogWatch
from aegis_sdk.infrastructure.micro import MicroService
from aegis_sdk.infrastructure.pulse import Pulse
from aegis_sdk.infrastructure.turns.assembly import TurnClient, TurnInstance
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from aegis_sdk.service import Service
from aegis_sdk.telemetry import log

DRAIN_TIMEOUT_S: Final = 10.0
READY_TIMEOUT_S: Final = 30.0
PAUSE_TIMEOUT_S: Final = 1.5
"""Below the two seconds that control waits for a pause."""
MAKE_SURE_WAIT_S: Final = 0.2
LEAVE_TIMEOUT_S: Final = 3.0


def new_token(bytes_: int = 6) -> str:
    """A fresh id part: letters and digits only."""
    return secrets.token_hex(bytes_)


@functools.cache
def _sdk_version() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("aegis-sdk")
    return ""


async def _unless_forbidden(
    link: Link,
    subjects: Subjects,
    starting: Coroutine[Any, Any, None],
    ended: asyncio.Future[None],
) -> None:
    """An instance that lacks a right, or has ended already, waits for its answers in many places: each would wait
    for ever.

    Raises: RefusedByNats, which names the subject; whatever `starting` raises; why it ended.
    """
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_forbidden(subject: str, reason: str) -> None:
        needed = subject.startswith(("$JS.", f"{subjects.prefix}.", f"{link.inboxes}."))
        if needed and not subject.startswith(subjects.metrics("")) and not refused.done():
            refused.set_result(reason)

    link.on_forbidden(on_forbidden)
    task = asyncio.create_task(starting)
    first: set[asyncio.Future[Any]] = {task, refused, ended}
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if refused.done():
            raise RefusedByNats(f"this instance can't serve: {refused.result()}")
        await (ended if ended.done() else task)
    finally:
        task.cancel()
        await asyncio.wait({task})
        refused.cancel()


class Instance:
    """One running instance. `id` is its instance id."""

    def __init__(
        self,
        service: Service,
        *,
        link: Link,
        server: Server,
        subjects: Subjects,
        resources: Mapping[str, Role],
        on_demand: Resources | None,
        zone: str,
        instance_id: str,
        capacity: float,
        recorder: Recorder,
        tracer: Tracer,
    ) -> None:
        self.id = instance_id
        self.service = service.name
        self._incarnation = new_token(8)
        self._service = service
        self._link = link
        self._server = server
        self._subjects = subjects
        self._capacity = capacity
        self._on_demand = on_demand
        self._zone = zone
        self._recorder = recorder
        self._tracer = tracer
        self._control = NatsControl(link, subjects)
        self._membership = Membership(self._control, self._registration(resources))
        self._membership.on_evicted = self._evict
        self._membership.on_drain = self._drain_soon
        self._membership.on_returned = self._returned
        self._offering = Offering(self._membership, self._now_serving, self._check)
        self._resting: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._draining: asyncio.Task[None] | None = None
        self._stopped = False
        self._requests: TurnClient | None = None
        self._serving: TurnInstance | None = None
        self._watch: LogWatch | None = None
        self._lost = ""
        """What this instance saw of a loss of the journal; told by its heartbeats until it begins again."""
        self._requests_lost = ""
        self._halted: asyncio.Task[None] | None = None
        self._pulse: Pulse | None = None

    @classmethod
    async def start(
        cls,
        service: Service,
        *,
        server: Server,
        subjects: Subjects,
        resources: Mapping[str, Role],
        on_demand: Resources | None,
        zone: str,
        instance_id: str | None,
        capacity: float,
        wait_s: float,
        recorder: Recorder,
        tracer: Tracer,
    ) -> Instance:
        """Connect, register and serve in the background."""
        if instance_id is None:
            instance_id = f"{service.name}-{new_token(4)}"
        instance_id = check_instance(instance_id)
        give_up_s = time.monotonic() + wait_s
        name = subjects.client_name(service.name, instance_id, "main")
        link = await Link.open_within(server, name=name, wait_s=wait_s, refused_s=wait_s)
        try:
            instance = cls(
                service,
                link=link,
                server=server,
                subjects=subjects,
                resources=resources,
                on_demand=on_demand,
                zone=zone,
                instance_id=instance_id,
                capacity=capacity,
                recorder=recorder,
                tracer=tracer,
            )
        except BaseException:
            await link.close()
            raise
        try:
            await _unless_forbidden(link, subjects, instance._start(give_up_s), instance._ended)
        except StoreError as error:
            await instance.stop()
            raise Unavailable(f"NATS could not be reached: {error}") from error
        except BaseException:
            await instance.stop()
            raise
        return instance

    # --- what users call --------------------------------------------------------------------------------------
    async def serve_forever(self, *, signals: bool = True) -> None:
        """Wait until this instance ends. SIGTERM and SIGINT drain it, unless `signals=False`.

        They drain all instances of the process together, and a second one ends the process at once. When they are
        drained, the process has 5 s to end by itself. Only the main thread can handle signals; elsewhere a line
        of the log says that they are not.

        Calls `gc.freeze()`: Python's collector no longer looks through what exists by now, which under load
        held the loop for 20 ms, and for 60 with 10,000 resources, three times a second (ADR 0016).

        Raises:
            Evicted: an operator disconnected it.
            Copied: another process has its identity.
            RefusedByNats: NATS refuses its login, which is in no file that could change: start anew with another.
        """
        with process.signals_drain() if signals else contextlib.nullcontext():
            await self.until_ended(signals=signals)

    async def until_ended(self, *, signals: bool) -> None:
        """`serve_forever`, while somebody else hears the signals. Raises: as that."""
        self._link.usable()
        gc.freeze()
        if not signals:
            process.drained(self._drain_soon)
        hopeless = self._link.hopeless
        ends: set[asyncio.Future[Any]] = {self._ended, hopeless}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not self._ended.done():
            log.error("login_refused_for_good", service=self.service, reason=hopeless.result())
            await self.stop()
            raise RefusedByNats(hopeless.result())
        self._ended.result()

    async def ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until it has read its service's log, and serves each resource that it is active for.

        A request does not have to wait for that: it is answered as soon as its resource is served.

        Raises:
            Unavailable: not within `timeout_s`; the message says what is missing.
            Draining: it leaves, or has ended. Evicted, Copied: it was ended.
            InvalidArgument: `timeout_s` is no duration.
        """
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        self._link.usable()
        serving = self._now_serving()
        ready = asyncio.create_task(serving.ready())
        try:
            await asyncio.wait(
                {ready, self._ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
        self._check()
        if missing := self._lost or self._requests_lost or serving.waits_for:
            raise Unavailable(f"{self.id} is not ready after {timeout_s:g} s: {missing}")

    async def drain(self, *, timeout_s: float = DRAIN_TIMEOUT_S, reason: str = "drained") -> None:
        """Finish what has begun, hand the leases over, leave. Safe to call twice. Raises: InvalidArgument."""
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        reason = arguments.text(reason, "reason", error=InvalidArgument)
        self._link.usable()
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(timeout_s, reason))
        await asyncio.shield(self._draining)

    async def add(
        self, resources: Mapping[str, Role] | Iterable[str], *, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> None:
        """Offer these resources, too: `{"ACC-3": Role.AUTO}`, or names alone, which are AUTO.

        Returns when control has registered them, and who is to be active is decided as for those of `serve`. What
        is offered in that role already stays as it is. All are added, or none: what this raises leaves the instance with what
        it had. A change that control did not answer is taken back when it does.

        Raises:
            SecondActive: another instance is active for a resource claimed as ACTIVE.
            InvalidName, InvalidArgument: no resource's id, no role, or it is offered in another role: remove it first.
            PayloadTooLarge: more than this instance can offer in all; the message says how many it can.
            RegistrationRefused: control refused, and says why.
            LogLost: the service's streams lost entries; an operator has to decide.
            Draining: this instance leaves, or has ended. Evicted, Copied: it was ended.
            Unavailable: control did not answer within `timeout_s`.
        """
        await self._offering.add(resources, timeout_s=timeout_s)

    async def remove(
        self, resources: Iterable[str], *, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> None:
        """Offer these resources no more. What is under way ends first; then a standby is active, or nobody.

        Returns when control has given them away, and this instance neither serves nor follows them. All are removed,
        or none: what this raises leaves the instance with what it had.

        Raises:
            InvalidArgument: this instance does not offer one of them.
            Unavailable: a handler still runs after `timeout_s`, or control did not answer: remove them again.
            RegistrationRefused, LogLost, Draining, Evicted, Copied: as for `add`.
        """
        await self._offering.remove(resources, timeout_s=timeout_s)

    def _now_serving(self) -> TurnServing:
        assert self._serving is not None
        return self._serving

    def _check(self) -> None:
        """Raises: Draining; why it ended."""
        if self._ended.done() and (error := self._ended.exception()) is not None:
            raise error
        if self._draining is not None or self._stopped:
            raise Draining(f"instance {self.id} is draining, or has ended: use another one")

    async def stop(self) -> None:
        """End at once, as if killed but with the connection closed: nothing is lost. Safe twice."""
        if self._stopped:
            return
        self._link.usable()
        self._stopped = True
        try:
            await self._take_down()
        finally:
            process.drained(self._drain_soon)
            if not self._ended.done():
                self._ended.set_result(None)

    async def _take_down(self) -> None:
        self._membership.stop()
        for task in (self._halted, self._resting):
            if task is not None:
                task.cancel()
        if self._pulse is not None:
            await self._pulse.stop()
        await self._stop_hosts()
        if self._requests is not None:
            await self._requests.close()
        await self._link.close()

    @property
    def active_resources(self) -> list[str]:
        """The resources that this instance believes to be active for, sorted."""
        return self._serving.active_resources if self._serving is not None else []

    # --- start ------------------------------------------------------------------------------------------------
    def _registration(self, resources: Mapping[str, Role]) -> Registration:
        return Registration(
            service=self.service,
            instance_id=self.id,
            incarnation=self._incarnation,
            version=self._service.version,
            sdk_version=_sdk_version(),
            protocol=PROTOCOL,
            compatibility=self._service.compatibility,
            host=socket.gethostname(),
            pid=os.getpid(),
            methods=self._service.specs(),
            events=self._service.event_specs(),
            resources=dict(resources),
            on_demand=OnDemand.of(self._on_demand),
            zone=self._zone,
            capacity=self._capacity,
        )

    async def _start(self, give_up_s: float) -> None:
        await self._control.listen(self.id, self._on_command)
        reply = await self._membership.register(wait_s=max(0.0, give_up_s - time.monotonic()))
        self._requests = TurnClient(
            self._link, self._subjects, recorder=self._recorder, tracer=self._tracer
        )
        await self._requests.start()
        self._link.on_restored(self._reconnected)
        await self._start_hosts(reply)
        self._pulse = Pulse(
            self._server,
            self._subjects,
            name=lambda kind: self._subjects.client_name(self.service, self.id, kind),
            interval_s=reply.heartbeat_interval_s,
            gather=self._heartbeat,
            on_lag=self._loop_late,
        )
        self._pulse.start()
        if self._on_demand is not None and self._on_demand.idle_s is not None:
            idle = Idle(self._on_demand.idle_s, self._on_demand, self._now_serving, self._offering)
            self._resting = asyncio.create_task(idle.keep_resting())
        await MicroService(
            self._link, self._subjects, self._membership.registration, self._recorder
        ).start()
        log.info(
            "registered",
            service=self.service,
            instance_id=self.id,
            resources=len(self._membership.resources),
            version=self._service.version,
        )
        await self._serve_group()
        process.drain_on_signal(self._drain_soon)

    async def _serve_group(self) -> None:
        if self._serving is not None:
            await self._serving.start_group(unless=lambda: self._draining is not None)

    async def _start_hosts(self, reply: RegistrationReply) -> None:
        assert self._requests is not None
        watch = LogWatch(
            self._link,
            self._subjects,
            self.service,
            reply.journal_id,
            reply.requests_id,
        )
        watch.on_lost = self._lose_log
        watch.on_requests_lost = self._lose_requests
        self._watch = watch
        self._recorder.serves(
            self.service,
            self._service.methods(),
            lag_entries=self._lag_entries,
            hand_ins=self._hand_ins,
            timers=self._timers_open,
        )
        self._serving = serving = self._made(reply, watch, self._requests)
        serving.on_copied = self._copied
        serving.on_behind = self._begin_anew_behind
        serving.on_lost = self._lose_log
        serving.on_unreadable = self._stand_back
        await serving.begin()

    def _made(self, reply: RegistrationReply, watch: LogWatch, calling: TurnClient) -> TurnInstance:
        return TurnInstance(
            self._link,
            self._subjects,
            self._service,
            instance_id=self.id,
            incarnation=self._incarnation,
            resources=self._membership.resources,
            log_after=reply.log_after,
            asks=calling.requester,
            directory=calling.directory,
            outcomes_kept_s=reply.outcome_ttl_s,
            ack_wait_s=reply.ack_wait_s,
            log_id=reply.journal_id,
            batched=reply.replicas > 1,
            watch=watch,
            recorder=self._recorder,
            tracer=self._tracer,
        )

    def _known_end(self) -> int:
        """How far the journal goes at least."""
        return self._serving.position if self._serving else 0

    def _lag_entries(self) -> int:
        return 0 if self._stopped or self._serving is None else self._serving.lag_entries

    def _hand_ins(self) -> int:
        return 0 if self._stopped or self._serving is None else self._serving.hand_ins

    def _timers_open(self) -> int:
        return 0 if self._stopped or self._serving is None else self._serving.timers_open

    def _loop_late(self, late_s: float) -> None:
        self._recorder.loop_late(self.service, late_s)
        if self._serving is not None:
            self._serving.runner.blocked(late_s)

    def _heartbeat(self, n: int, loop_lag_s: float) -> Heartbeat:
        serving = self._serving
        assert serving is not None
        assert self._watch is not None
        active = serving.active
        held_running, held_waiting = serving.held_counts()
        return Heartbeat(
            service=self.service,
            instance_id=self.id,
            incarnation=self._incarnation,
            session=self._link.connected.session,
            offer=self._membership.registration.offer,
            n=n,
            loop_lag_s=round(loop_lag_s, 4),
            journal_id=self._watch.log_id,
            requests_id=self._watch.requests_id,
            journal_seq=self._known_end(),
            request_seq=self._watch.newest_request.seq,
            requests_done=serving.requests_done,
            log_lost=self._lost,
            requests_lost=self._requests_lost,
            lag_entries=serving.lag_entries,
            running=serving.runner.running,
            open=serving.open,
            active=active,
            standby=len(self._membership.resources) - active,
            paused=serving.paused,
            draining=self._draining is not None,
            hand_ins=serving.hand_ins,
            timers=serving.timers_open,
            lacking=serving.lacking,
            unreadable=serving.unreadable,
            own_number=serving.holds_number,
            held_running=held_running,
            held_waiting=held_waiting,
            wall_s=time.time(),
        )

    # --- control's commands -------------------------------------------------------------------------------------
    async def _on_command(self, command: Command) -> Ack:
        done = obey(command, membership=self._membership, incarnation=self._incarnation)
        if done is not None:
            return done
        if self._serving is None:
            return Ack(ok=False, message="not serving yet")
        if command.kind is CommandKind.HALT:
            self._halt(command.reason)
            return Ack(ok=True)
        if command.kind in (CommandKind.ADD, CommandKind.REMOVE):
            return await self._take(command)
        if command.kind is CommandKind.PAUSE:
            ended = await self._serving.pause(
                command.resources, timeout_s=PAUSE_TIMEOUT_S, lease_s=command.lease_s
            )
            return Ack(ok=ended, message="" if ended else "a request is still running")
        self._serving.resume(command.resources)
        return Ack(ok=True)

    async def _take(self, command: Command) -> Ack:
        """Of what it takes on demand, some comes, or goes to another one."""
        change = self._offering.come if command.kind is CommandKind.ADD else self._offering.go
        try:
            await change(command.resources)
        except AegisError as error:
            return Ack(ok=False, code=error.code, message=str(error))
        return Ack(ok=True)

    def _evict(self, reason: str) -> None:
        self._fail(Evicted(f"{self.id} was disconnected: {reason}"), "evicted", reason)

    def _fail(self, error: Fenced, event: str, reason: str) -> None:
        """End without a word to control, and tell whoever waits for the end."""
        log.warning(event, service=self.service, instance_id=self.id, reason=reason)
        if not self._ended.done():
            self._ended.set_exception(error)
            self._ended.exception()  # known: it is raised to whoever waits, and nobody has to
            self._draining = asyncio.create_task(self.stop())

    def _returned(self, reply: RegistrationReply) -> None:
        """The journal may have begun again while control did not know this instance."""
        known = self._watch.log_id if self._watch else reply.journal_id
        if reply.journal_id != known:
            self._halt(f"the journal is {reply.journal_id} now, and was {known}")

    def _lose_log(self, reason: str) -> None:
        """What was read and stored is not in the journal any more: an operator has to decide."""
        self._lost = reason
        self._halt(reason)

    def _lose_requests(self, reason: str) -> None:
        """What counts as done may be a request that is not: an operator has to decide."""
        self._requests_lost = reason
        self._halt(reason)

    def _begin_anew_behind(self, reason: str) -> None:
        """What it needs of the log was trimmed before it was read: the checkpoints have it."""
        self._halt(reason, event="read_anew")

    def _halt(self, reason: str, *, event: str = "log_lost") -> None:
        if self._draining is not None or (self._halted is not None and not self._halted.done()):
            return
        log.error(event, service=self.service, instance_id=self.id, reason=reason)
        self._halted = asyncio.create_task(self._begin_anew())

    async def _begin_anew(self) -> None:
        """Serve nothing; when control lets this instance in again, read everything from the log as it is."""
        await self._stop_hosts()
        if self._serving is not None:
            self._serving.withdraw()
        async with self._offering.lock:  # what it offers stays as it is meanwhile
            if not await self._register_anew():
                return
        log.info("served_again", service=self.service, instance_id=self.id)
        await self._serve_group()

    async def _register_anew(self) -> bool:
        """Whether control let it in."""
        seen = self._serving.seen() if self._serving else {}
        newest = self._watch.newest_request if self._watch else None
        self._incarnation = new_token(8)  # a writer is never begun twice
        self._membership.renew(self._incarnation)
        try:
            reply = await self._membership.return_when_allowed(
                journal_id=self._watch.log_id if self._watch else "",
                requests_id=self._watch.requests_id if self._watch else "",
                journal_seq=self._known_end(),
                request_seq=newest.seq if newest else 0,
                request_id=newest.request_id if newest else "",
                log_lost=self._lost,
                requests_lost=self._requests_lost,
                resources_seen=seen,
            )
        except Evicted:
            return False  # and told
        self._lost = self._requests_lost = ""
        await self._start_hosts(reply)
        return True

    async def _stop_hosts(self) -> None:
        if self._serving is not None:
            await self._serving.stop()

    async def _reconnected(self) -> None:
        if self._serving is None or self._watch is None:
            return
        self._link.aside(self._make_sure(self._watch))
        self._serving.reconnected()

    async def _make_sure(self, watch: LogWatch) -> None:
        """Also where nothing is committed: a standby would go on reading behind what another log does not have."""
        while not (watch.is_sure or watch.is_lost or self._stopped):
            try:
                await watch.make_sure()
            except StoreError:
                await asyncio.sleep(MAKE_SURE_WAIT_S)

    def _stand_back(self, resource: str) -> None:
        """Offer it no more: its state can't be read by this version, and may be by another's instance."""
        self._membership.stand_back(resource)

    def _copied(self, reason: str) -> None:
        self._fail(Copied(f"{self.id} stopped: {reason}"), "identity_copied", reason)

    def _drain_soon(self, reason: str) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(DRAIN_TIMEOUT_S, reason))

    async def _drain(self, timeout_s: float, reason: str) -> None:
        if self._stopped:
            return
        begun_s = time.perf_counter()
        log.info("draining", service=self.service, instance_id=self.id, reason=reason)
        try:
            if self._serving is not None:
                await self._serving.drain(timeout_s=timeout_s)
            await self._membership.leave(reason, timeout_s=LEAVE_TIMEOUT_S)
            if self._serving is not None:
                await self._serving.leave()
        finally:
            await self.stop()
        log.info(
            "drained",
            service=self.service,
            instance_id=self.id,
            duration_s=round(time.perf_counter() - begun_s, 6),
        )
