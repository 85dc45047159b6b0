"""The SDK's use cases over a MemoryBus: what `Aegis` and `Instance` are over NATS.

Callers, instances, the core and the rules of the protocol are those of the SDK; the bus, control and the ports are made for
tests. So a service behaves here as it will: outcomes, order, duplicates, failover with state, deadlines, timers, events.
What is not here is what processes and networks add: no heartbeats (a test says who is lost: `kill`, `bus.control.lose`), no
time limits of NATS, no stalled loops, and nothing survives the test.

Time is the event loop's, unless `virtual_time` is in force.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal, TypeVar

from aegis_sdk import process
from aegis_sdk.application.membership import Membership
from aegis_sdk.application.requester import TIMEOUT_S, Requester
from aegis_sdk.application.tracing import LOG_TRACER, Tracer
from aegis_sdk.application.turns.caller import Caller
from aegis_sdk.application.turns.idle import Idle
from aegis_sdk.application.turns.offering import CHANGE_TIMEOUT_S, Offering
from aegis_sdk.application.turns.relaying import RelayPorts
from aegis_sdk.application.turns.serving import TurnPorts, TurnServing
from aegis_sdk.context import Ticket
from aegis_sdk.contract import arguments
from aegis_sdk.contract.control import OnDemand, Registration, Role, roles_of
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.names import check_instance
from aegis_sdk.contract.on_demand import Resources
from aegis_sdk.contract.turns.writers import writer_name
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.errors import Draining
from aegis_sdk.service import Service
from aegis_sdk.testing.bus import MemoryBus, MemoryLink
from aegis_sdk.testing.reads import MemoryReadsIn, MemoryReadsOut
from aegis_sdk.testing.subscriptions import MemoryEventsIn, MemoryPositions
from aegis_sdk.testing.turns import MemoryReaders, MemorySent, MemoryTurnLog

Req = TypeVar("Req")
Rep = TypeVar("Rep")


@asynccontextmanager
async def harness(
    service: Service | None = None,
    *,
    resources: Iterable[str] | Mapping[str, Role] | Resources = (),
    bus: MemoryBus | None = None,
    tracer: Tracer = LOG_TRACER,
) -> AsyncIterator[MemoryAegis]:
    """A client with one instance of `service` behind it, in memory.

    `resources` are the instance's (with Role.AUTO, unless given). More services and standbys are added
    by `serve`; faults come with a `bus` of your own. At its end everything is closed at once, whatever still runs.

    Raises: ContractError, for a service that can't be served; SecondActive.

        async with testing.harness(accounts, resources={"ACC-1"}) as aegis:
            position = await aegis.request(BOOK, fill, resource="ACC-1")
    """
    aegis = MemoryAegis(bus or MemoryBus(), tracer=tracer)
    try:
        if service is not None:
            await aegis.serve(service, resources=resources)
        yield aegis
    finally:
        await aegis.close()


class MemoryAegis:
    """`Aegis` on a bus: `request`, `read`, `submit`, `attach`, `cancel` and `serve` take, return and raise the same.

    Its client and each instance have links of their own, so a test can cut one of them off. `instances` has all that were ever
    served, also those that have ended.
    """

    def __init__(self, bus: MemoryBus, *, tracer: Tracer = LOG_TRACER) -> None:
        self.bus = bus
        self.instances: list[MemoryInstance] = []
        self.link = bus.link(f"client-{len(bus.links) + 1}")
        self.recorder = Recorder()
        """What was counted here and by all instances."""
        self._tracer = tracer
        self._requester = make_requester(
            self.link, caller=self.link.name, recorder=self.recorder, tracer=tracer
        )
        self._names = itertools.count(1)
        self._loop = asyncio.get_running_loop()

    async def request(
        self,
        method: Method[Req, Rep],
        payload: Req,
        *,
        resource: str | None = None,
        timeout_s: float = TIMEOUT_S,
        key: str | None = None,
    ) -> Rep:
        """As `Aegis.request`."""
        return await self._requester.request(
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
        """As `Aegis.read`; a standby is another instance that the test has started for the resource."""
        return await self._requester.reading.read(
            method,
            query,
            resource=resource,
            at=at,
            at_least=at_least,
            lag_s_max=lag_s_max,
            timeout_s=timeout_s,
        )

    def position(self, method: Method[Any, Any]) -> str:
        """As `Aegis.position`."""
        return self._requester.reading.position(method)

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
        """As `Aegis.submit`."""
        return await self._requester.submit(
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
        """As `Aegis.attach`."""
        process.check_loop(self._loop)
        return await self._requester.attach(request_id, method, timeout_s=timeout_s)

    async def cancel(
        self,
        request_id: str,
        method: Method[Any, Any] | None = None,
        *,
        resource: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> OutcomeKind:
        """As `Aegis.cancel`."""
        process.check_loop(self._loop)
        return await self._requester.cancel(
            request_id, method, resource=resource, timeout_s=timeout_s
        )

    async def serve(
        self,
        service: Service,
        *,
        resources: Iterable[str] | Mapping[str, Role] | Resources = (),
        instance_id: str | None = None,
    ) -> MemoryInstance:
        """Another instance, with a link of its own. Raises: SecondActive."""
        arguments.instance_of(service, Service, "service")
        service.servable()
        on_demand = resources if isinstance(resources, Resources) else None
        if isinstance(resources, Resources):
            resources = ()
        if not isinstance(resources, Mapping):
            named = arguments.several(resources, "resources", '{"ACC-1"} or {"ACC-1": Role.AUTO}')
            resources = dict.fromkeys(named, Role.AUTO)
        if instance_id is None:
            instance_id = f"{service.name}-{next(self._names)}"
        instance = MemoryInstance(
            self.bus,
            service,
            resources=roles_of(resources),
            on_demand=on_demand,
            instance_id=check_instance(instance_id),
            recorder=self.recorder,
            tracer=self._tracer,
        )
        self.instances.append(instance)
        await instance.start()
        return instance

    async def drain(self, *, timeout_s: float = 10.0) -> None:
        """Drain all instances one after the other, wait for open requests, close. `timeout_s` is for each of these steps."""
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        for instance in self.instances:
            await instance.drain(timeout_s=timeout_s)
        await self._requester.close(drain_s=timeout_s)
        await self.close()

    async def close(self) -> None:
        """At once; safe twice."""
        for instance in self.instances:
            await instance.stop()
        await self._requester.close()
        self.link.close()


class MemoryInstance:
    """`Instance` on a bus. `link` can be cut or held; `kill` ends it as SIGKILL would.

    It registers and serves once. One that control took for lost goes on as a replaced process does: its turns are refused by
    its gate (G5) until it has read what happened; `register` makes it a member again.
    """

    def __init__(
        self,
        bus: MemoryBus,
        service: Service,
        *,
        resources: Mapping[str, Role],
        instance_id: str,
        on_demand: Resources | None = None,
        incarnation: str = "",
        recorder: Recorder = NO_RECORDER,
        tracer: Tracer = LOG_TRACER,
    ) -> None:
        self.id = instance_id
        self.service = service.name
        self.bus = bus
        self.link = bus.link(instance_id)
        self._service = service
        self._requester = make_requester(
            self.link, caller=instance_id, recorder=recorder, tracer=tracer
        )
        self._registration = Registration(
            service=service.name,
            instance_id=instance_id,
            incarnation=incarnation or f"{instance_id}-{len(bus.links)}",
            version=service.version,
            methods=service.specs(),
            events=service.event_specs(),
            resources=dict(resources),
            on_demand=OnDemand.of(on_demand),
        )
        self._on_demand = on_demand
        self._resting: asyncio.Task[None] | None = None
        self._membership = Membership(self.link.control, self._registration)
        self._serving = self._made(recorder, tracer)
        self._ended = False
        self._offering = Offering(self._membership, lambda: self._serving, self._check)
        bus.control.tell[service.name, instance_id] = self._offering.come
        self.link.on_restored.append(self._serving.reconnected)
        recorder.serves(
            service.name,
            service.methods(),
            lag_entries=lambda: self._serving.lag_entries,
            hand_ins=lambda: self._serving.hand_ins,
            timers=lambda: self._serving.timers_open,
        )

    def _made(self, recorder: Recorder, tracer: Tracer) -> TurnServing:
        """What infrastructure/turns/assembly.py puts together on NATS. The streams are made first, as control would."""
        link, service = self.link, self._service
        writer = writer_name(self.id, self._registration.incarnation)
        self.bus.provision(service.name)
        ports = TurnPorts(
            connected=link.connected,
            log=MemoryTurnLog(link, service.name, writer=writer, nonce=secrets.token_hex(8)),
            sent=MemorySent(link, service.name),
            reads=MemoryReadsIn(link, service.name),
            requests=link.requests,
            letters=link.letters,
            events=link.events,
            relaying=RelayPorts(
                MemoryEventsIn(link), MemoryPositions(link), link.event_requests, link.letters
            ),
            readers=MemoryReaders(
                link,
                service.name,
                writer=writer,
                deliveries=link.deliveries,
            ),
        )
        return TurnServing(
            service,
            ports,
            writer=writer,
            instance_id=self.id,
            resources=self._registration.resources,
            asks=self._requester,
            directory=link.directory,
            ack_wait_s=self.bus.ack_wait_s,
            recorder=recorder,
            tracer=tracer,
        )

    @property
    def active_resources(self) -> list[str]:
        """The resources that this instance believes to be active for, sorted."""
        return self._serving.active_resources

    @property
    def threads_at_work(self) -> int:
        """Plain `def` handlers that run now: virtual time stands still while there are any (virtual_time.py)."""
        return self._serving.runner.threads_at_work

    async def register(self) -> None:
        """Also again, when control took it for lost. Raises: SecondActive."""
        await self._membership.register(wait_s=0.0)

    async def start(self) -> None:
        """Register and serve. Raises: SecondActive."""
        await self.register()
        await self._serving.begin()
        await self._serving.start_group()
        if self._on_demand is not None and self._on_demand.idle_s is not None:
            idle = Idle(
                self._on_demand.idle_s, self._on_demand, lambda: self._serving, self._offering
            )
            self._resting = asyncio.create_task(idle.keep_resting())

    async def add(
        self, resources: Mapping[str, Role] | Iterable[str], *, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> None:
        """As `Instance.add`."""
        await self._offering.add(resources, timeout_s=timeout_s)

    async def remove(
        self, resources: Iterable[str], *, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> None:
        """As `Instance.remove`."""
        await self._offering.remove(resources, timeout_s=timeout_s)

    def _check(self) -> None:
        if self._ended:
            raise Draining(f"instance {self.id} is draining, or has ended: add it to another one")

    async def kill(self) -> None:
        """Its process is gone, and control has noticed. In this order: nothing that it still does on its way out reaches
        anybody.
        """
        self.link.close()
        await self.stop()
        self.bus.control.lose(self.service, self.id)

    async def drain(self, *, timeout_s: float = 10.0) -> None:
        """Finish what has begun, hand the leases over, leave. Callers that do not know it yet are told at the end."""
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        self._ended = True
        await self._serving.drain(timeout_s=timeout_s)
        await self._membership.leave("drained", timeout_s=1.0)
        await self._serving.leave()
        await self.stop()

    async def stop(self) -> None:
        """End at once, without a word to control, which goes on taking it for the active. Safe twice."""
        self._ended = True
        if self._resting is not None:
            self._resting.cancel()
        await self._serving.stop()
        await self._requester.close()
        self.link.close()


def make_requester(
    link: MemoryLink,
    *,
    caller: str,
    recorder: Recorder = NO_RECORDER,
    tracer: Tracer = LOG_TRACER,
) -> Requester:
    """The calling side over `link`. `caller` begins its requests' ids: it must be another one for each, as links' names are."""
    loop = asyncio.get_running_loop()

    def payload_bytes_max() -> int:
        process.check_loop(loop)  # as a connection does, whenever something is asked
        return link.bus.limits.payload_bytes_max

    way = Caller(
        calls=link.calls,
        requests=link.requests,
        last_word=link.last_word,
        outcomes=link.outcomes,
        directory=link.directory,
        recorder=recorder,
    )
    link.on_restored.append(way.restored)
    return Requester(
        way,
        caller=caller.replace("-", ""),  # as no client's own token has one
        payload_bytes_max=payload_bytes_max,
        reads=MemoryReadsOut(link),
        recorder=recorder,
        tracer=tracer,
    )
