"""What serves in an instance, over its ports: put together here alone, for NATS and for the bus in memory.

Also the order in which the parts begin and end. The group begins last, when this instance has read the journal: until then
others serve it better. It ends first: from the pause of its resources to their handover nobody serves them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from aegis_sdk.application.group_host import GroupHost
from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.ports import Connected, Deliveries, Journal, JournalReader
from aegis_sdk.application.requester import Requester
from aegis_sdk.application.resource_host import CHECKPOINT_AGE_S, ResourceHost
from aegis_sdk.application.threads import Threads
from aegis_sdk.application.tracing import Tracer
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.service import Service

CATCH_UP_S_MAX: Final = 1.0
"""How long an instance that starts may read the journal before it takes group requests. These need nothing of the
journal, and this instance may be the only one that serves them."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What serving needs from outside."""

    connected: Connected
    store: Journal
    reader: JournalReader
    deliveries: Deliveries


@dataclass(slots=True)
class Serving:
    """The parts of one registration: after a loss of the log there are new ones."""

    runner: Runner
    host: ResourceHost
    group: GroupHost
    has_group: bool
    _ended: bool = False

    async def start(self, resources: Iterable[str]) -> None:
        await self.host.start(list(resources))

    async def start_group(self, *, unless: Callable[[], bool] = lambda: False) -> None:
        """`unless`: asked when the journal was read; an instance that drains by then takes nothing new."""
        if not self.has_group:
            return
        await self.host.caught_up(timeout_s=CATCH_UP_S_MAX)
        if not (self._ended or unless()):
            await self.group.start()

    async def drain(self, *, timeout_s: float) -> None:
        """Finish what has begun, and begin nothing more."""
        self._ended = True
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + timeout_s
        await self.group.drain(timeout_s=timeout_s)
        await self.host.pause(None, timeout_s=max(0.0, give_up_s - loop.time()))

    async def stop(self) -> None:
        """At once; safe twice."""
        self._ended = True
        await self.group.stop()
        await self.host.stop()
        await self.runner.stop()


def assemble(
    service: Service,
    ports: Ports,
    *,
    instance_id: str,
    incarnation: str,
    asks: Requester,
    ack_wait_s: float,
    batches: bool,
    recorder: Recorder,
    tracer: Tracer,
    log_id: str = "",
    checkpoint_age_s: float = CHECKPOINT_AGE_S,
) -> Serving:
    """`log_id`: the identity of the journal. `batches`: it has several copies, so that storing together is worth it."""
    isolation = Isolation()
    runner = Runner(
        service,
        instance_id=instance_id,
        asks=asks,
        threads=Threads(f"aegis-{service.name}"),
        tracer=tracer,
    )
    host = ResourceHost(
        service,
        instance_id=instance_id,
        incarnation=incarnation,
        connected=ports.connected,
        log=log_id,
        runner=runner,
        isolation=isolation,
        store=ports.store,
        reader=ports.reader,
        deliveries=ports.deliveries,
        checkpoint_age_s=checkpoint_age_s,
        batches=batches,
        recorder=recorder,
    )
    group = GroupHost(
        service.name,
        runner=runner,
        isolation=isolation,
        journal=ports.store,
        deliveries=ports.deliveries,
        ack_wait_s=ack_wait_s,
        recorder=recorder,
    )
    has_group = any(not handler.targeted for handler in service.handlers.values())
    return Serving(runner, host, group, has_group)
