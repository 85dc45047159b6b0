"""What serves in an instance, over its ports: put together here alone, for NATS and for the bus in memory.

Also the order in which the parts begin and end. The group begins last, when this instance has read the journal: until then
others serve it better. It ends first: from the pause of its resources to their handover nobody serves them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aegis_sdk.application.group_host import GroupHost
from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.ports import Connected, Deliveries, Journal, JournalReader
from aegis_sdk.application.requester import Requester
from aegis_sdk.application.resource_host import CHECKPOINT_AGE_S, ResourceHost
from aegis_sdk.application.threads import Threads
from aegis_sdk.application.tracing import Tracer
from aegis_sdk.contract.control import ResourceSeen
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


class Served(Protocol):
    """What serves in an instance, in either form of the protocol. After a loss of the log there is a new one."""

    runner: Runner
    on_copied: Callable[[str], None]
    on_behind: Callable[[str], None]
    """It has to begin anew, from what the log has now: nothing is served any more."""
    on_lost: Callable[[str], None]
    on_unreadable: Callable[[str], None]

    async def begin(self) -> None:
        """Reads the log from now on, and serves what is this instance's."""

    async def start_group(self, *, unless: Callable[[], bool]) -> None: ...

    async def drain(self, *, timeout_s: float) -> None: ...

    async def stop(self) -> None: ...

    async def pause(
        self, resources: Sequence[str] | None, *, timeout_s: float, lease_s: float
    ) -> bool: ...

    def resume(self, resources: Sequence[str] | None) -> None: ...

    def reconnected(self) -> None: ...

    def withdraw(self) -> None: ...

    def seen(self) -> dict[str, ResourceSeen]: ...

    @property
    def active_resources(self) -> list[str]: ...

    @property
    def active(self) -> int: ...

    @property
    def paused(self) -> int: ...

    @property
    def unreadable(self) -> int: ...

    @property
    def hand_ins(self) -> int:
        """What handlers have handed in and is not stored yet where it goes."""

    @property
    def lag_entries(self) -> int: ...

    @property
    def position(self) -> int:
        """The last entry of the log that was read."""

    @property
    def requests_done(self) -> int:
        """Up to here, each stored request to a resource that is held here has an outcome; 0 where that is not told."""


@dataclass(slots=True)
class Serving:
    """The first form's parts of one registration."""

    runner: Runner
    host: ResourceHost
    group: GroupHost
    has_group: bool
    resources: Sequence[str]
    _ended: bool = False

    async def begin(self) -> None:
        await self.host.start(self.resources)

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

    async def pause(
        self, resources: Sequence[str] | None, *, timeout_s: float, lease_s: float
    ) -> bool:
        return await self.host.pause(resources, timeout_s=timeout_s, lease_s=lease_s)

    def resume(self, resources: Sequence[str] | None) -> None:
        self.host.resume(resources)

    def reconnected(self) -> None:
        self.host.reconnected()

    def withdraw(self) -> None:
        self.host.withdraw()

    def seen(self) -> dict[str, ResourceSeen]:
        return self.host.seen()

    @property
    def on_copied(self) -> Callable[[str], None]:
        return self.host.on_copied

    @on_copied.setter
    def on_copied(self, told: Callable[[str], None]) -> None:
        self.host.on_copied = told

    @property
    def on_behind(self) -> Callable[[str], None]:
        """Never told: in this form nobody has to begin anew by itself."""
        return self.host.on_lost

    @on_behind.setter
    def on_behind(self, told: Callable[[str], None]) -> None: ...

    @property
    def on_lost(self) -> Callable[[str], None]:
        return self.host.on_lost

    @on_lost.setter
    def on_lost(self, told: Callable[[str], None]) -> None:
        self.host.on_lost = told

    @property
    def on_unreadable(self) -> Callable[[str], None]:
        return self.host.on_unreadable

    @on_unreadable.setter
    def on_unreadable(self, told: Callable[[str], None]) -> None:
        self.host.on_unreadable = told

    @property
    def active_resources(self) -> list[str]:
        return sorted(r for r, actor in self.host.actors.items() if actor.is_active)

    @property
    def active(self) -> int:
        return self.host.active

    @property
    def paused(self) -> int:
        return self.host.paused

    @property
    def unreadable(self) -> int:
        return self.host.unreadable

    @property
    def hand_ins(self) -> int:
        return 0

    @property
    def lag_entries(self) -> int:
        return self.host.lag_entries

    @property
    def position(self) -> int:
        return self.host.journal_seq

    @property
    def requests_done(self) -> int:
        return 0


def assemble(
    service: Service,
    ports: Ports,
    *,
    instance_id: str,
    incarnation: str,
    resources: Iterable[str],
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
    return Serving(runner, host, group, has_group, list(resources))
