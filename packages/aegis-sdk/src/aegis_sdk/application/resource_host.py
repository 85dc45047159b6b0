"""All resources of one instance: who follows what, and one reader of requests for each grant.

What a single resource does is in application/actor.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aegis_sdk.application.actor import Actor
from aegis_sdk.application.callbacks import Callbacks
from aegis_sdk.application.following import Following, until_answered
from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.ports import (
    Connected,
    Deliveries,
    Delivery,
    DeliverySource,
    FenceRefused,
    Journal,
    JournalReader,
)
from aegis_sdk.contract.control import ResourceSeen
from aegis_sdk.contract.envelope import Request
from aegis_sdk.domain.journal import FenceMark
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.roles import InstanceRole
from aegis_sdk.service import Service
from aegis_sdk.telemetry import about, log

NEAR_MAX: Final = 1024
"""Requests that are kept whole while they wait; of others only their places in the stream (actor.py)."""
REFOLLOW_WAIT_S: Final = 0.3
"""Promotions come in bursts: narrow what is followed once for all of them."""
GRANT_GATHER_S: Final = 0.01
"""How long no further fence of a grant may come before its reader is made."""
LAG_ENTRIES_MAX: Final = 100
"""Under load some entries are always on their way."""
LAG_POLL_S: Final = 0.005
PAUSE_LEASE_S: Final = 5.0
SEEN_TOLD_MAX: Final = 1_000
CHECKPOINT_AGE_S: Final = 900.0
"""How long an outcome may be without a checkpoint that covers it: what is older can be removed."""
CHECKPOINT_CHANGES: Final = 250
"""Changes between checkpoints. Who starts reads up to as many of each resource: at 1,000, with 16 resources,
that took nats-server 0.3 s of a core, and callers on two busy cores waited up to 75 ms (docs/performance.md).
"""
CHECKPOINT_REST_S: Final = 1.0
"""Between two checkpoints of a resource, however many changes come. So who starts reads no more than what one
second adds, and the server, which takes about 2 ms for each, is not kept busy by hot resources."""


@dataclass(slots=True, eq=False)
class _Grant:
    """Resources that became active together, and the one reader of their requests."""

    name: str
    size: int
    start_seq: int
    resources: set[str] = field(default_factory=set)
    source: DeliverySource | None = None
    opening: asyncio.Task[None] | None = None


class ResourceHost:
    """All resources of one instance: follows their journal, opens the readers of its grants."""

    def __init__(
        self,
        service: Service,
        *,
        instance_id: str,
        incarnation: str,
        connected: Connected,
        log: str = "",
        runner: Runner,
        isolation: Isolation,
        store: Journal,
        reader: JournalReader,
        deliveries: Deliveries,
        checkpoint_changes: int = CHECKPOINT_CHANGES,
        checkpoint_rest_s: float = CHECKPOINT_REST_S,
        checkpoint_age_s: float = CHECKPOINT_AGE_S,
        near_max: int = NEAR_MAX,
        batches: bool = False,
        recorder: Recorder = NO_RECORDER,
    ) -> None:
        """`log`: the identity of the journal. `batches`: storing many outcomes of a resource at once is worth it, as on a replicated journal."""
        self.service = service.name
        self.instance_id = instance_id
        self.incarnation = incarnation
        self.connected = connected
        self.sessions = {"", connected.session}
        self.unreadable = 0
        """Resources that this instance stood back from."""
        self.on_unreadable: Callable[[str], None] = lambda resource: None
        self.on_copied: Callable[[str], None] = lambda reason: None
        self.on_lost: Callable[[str], None] = lambda reason: None
        self.log = log
        self.runner = runner
        self.isolation = isolation
        self.store = store
        self.batches = batches
        self.checkpoint_changes = checkpoint_changes
        self.checkpoint_rest_s = checkpoint_rest_s
        self._checkpoint_age_s = checkpoint_age_s
        self.recorder = recorder
        self.actors: dict[str, Actor] = {}
        self.active = 0
        """How many actors are active now; a plain number, for the heartbeat's thread."""
        self.duplicates_suppressed = 0
        self.commits_fenced = 0
        self.draining = False
        self._service = service
        self._callbacks = Callbacks(service.name, instance_id=instance_id)
        self._reader = reader
        self._deliveries = deliveries
        self._near_max = near_max
        self._near = 0
        self._grants: dict[str, _Grant] = {}
        self._following = Following(service.name, reader, self.actors)
        self._follower: asyncio.Task[None] | None = None
        self._checkpointer: asyncio.Task[None] | None = None
        self._paused_until_s: dict[str, float] = {}
        """Resources that were asked to wait for a handover, and until when at most, by the loop's clock."""
        self._refollow = asyncio.Event()
        self._urgent = asyncio.Event()
        self._side_tasks: set[asyncio.Task[None]] = set()

    # --- life -----------------------------------------------------------------------------------------
    async def start(self, resources: Sequence[str]) -> None:
        """Follow the journal of `resources` from their checkpoints on."""
        starts = await until_answered(lambda: self._reader.start_of(self.service, resources))
        for resource in resources:
            complete_to = starts.get(resource, 1) - 1
            self.actors[resource] = Actor(self, resource, complete_to=complete_to)
        await self._following.begin()
        self._follower = asyncio.create_task(self._keep_following())
        self._checkpointer = asyncio.create_task(self._keep_checkpoints())

    def reconnected(self) -> None:
        """The connection is a new one: claim for it what is active here."""
        self.sessions.add(self.connected.session)
        known_to = max((actor.journal.position for actor in self.actors.values()), default=0)
        for actor in self.actors.values():
            actor.reconnected(known_to)
        self.refollow(urgent=True)

    async def caught_up(self, *, timeout_s: float) -> None:
        """Wait until hardly anything of the journal is left to read, or for `timeout_s`.

        A long journal is read in turns of the loop that last for milliseconds each, and others wait.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.lag_entries > LAG_ENTRIES_MAX:  # noqa: ASYNC110 - a source has no event
                    await asyncio.sleep(LAG_POLL_S)

    async def pause(
        self,
        resources: Sequence[str] | None,
        *,
        timeout_s: float,
        lease_s: float = PAUSE_LEASE_S,
    ) -> bool:
        """Begin nothing new on `resources` (None: all, for good); True when all that had begun has ended.

        Those that are named go on by themselves after `lease_s`, unless a fence says more until then.
        """
        self.draining = self.draining or resources is None
        actors = self._named(resources)
        for actor in actors:
            actor.pause()
        if resources is not None:
            self._lend_pause([actor.resource for actor in actors], lease_s)
        idle = [asyncio.create_task(actor.idle()) for actor in actors if not actor.is_idle]
        if not idle:
            return True
        _, late = await asyncio.wait(idle, timeout=timeout_s)
        for task in late:
            task.cancel()
        return not late

    def _lend_pause(self, resources: list[str], lease_s: float) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + lease_s
        for resource in resources:
            self._paused_until_s[resource] = until_s
        loop.call_at(until_s, self._end_pause, resources, until_s)

    def _end_pause(self, resources: list[str], until_s: float) -> None:
        """The handover was forgotten: no later pause has been asked for."""
        over = [name for name in resources if self._paused_until_s.get(name) == until_s]
        forgotten = [name for name in over if self.actors[name].is_paused]
        self.resume(over)
        if forgotten and not self.draining:
            log.warning(
                "pause_ended",
                service=self.service,
                instance_id=self.instance_id,
                resources=len(forgotten),
                reason="no handover came: control is gone, or gave it up",
            )

    def resume(self, resources: Sequence[str] | None = None) -> None:
        """One that leaves stays paused."""
        for actor in self._named(resources):
            self._paused_until_s.pop(actor.resource, None)
            if not self.draining:
                actor.resume()

    @property
    def paused(self) -> int:
        """Resources that wait for a handover; for the heartbeat's thread."""
        return len(self._paused_until_s)

    async def stop(self) -> None:
        """At once; what has begun is dropped, and its new active begins it again."""
        for task in (self._follower, self._checkpointer, *self._side_tasks):
            if task is not None:
                task.cancel()
        await self._following.stop()
        for grant in self._grants.values():
            await self._close(grant)
        for actor in self.actors.values():
            actor.stop()
        self._callbacks.stop()

    def seen(self) -> dict[str, ResourceSeen]:
        """What is known of resources, as many as one message can tell of."""
        actives_first = sorted(self.actors.values(), key=lambda actor: not actor.is_active)
        return {
            actor.resource: ResourceSeen(
                epoch=mark.fence.epoch if (mark := actor.journal.fence) else 0,
                done=actor.journal.last_request_seq,
            )
            for actor in actives_first[:SEEN_TOLD_MAX]
        }

    def withdraw(self) -> None:
        """After `stop`, when the log was lost: what was active here is not any more."""
        for actor in self.actors.values():
            if actor.is_active:
                actor.role = InstanceRole.FOLLOWING
                self._callbacks.demoted(self._service.demoted_callbacks, actor.resource)
        self.active = 0

    def _named(self, resources: Sequence[str] | None) -> list[Actor]:
        if resources is None:
            return list(self.actors.values())
        return [self.actors[name] for name in resources if name in self.actors]

    @property
    def lag_entries(self) -> int:
        return self._following.lag_entries

    @property
    def journal_seq(self) -> int:
        return self._following.read_to

    async def _keep_checkpoints(self) -> None:
        """Each actor's turn comes once in an age, evenly spread."""
        while True:
            for actor in list(self.actors.values()):
                await asyncio.sleep(self._checkpoint_age_s / len(self.actors))
                actor.checkpoint_soon()
            if not self.actors:
                return

    # --- following --------------------------------------------------------------------------------------
    def refollow(self, *, urgent: bool = False) -> None:
        """What has to be followed changed; not urgent: soon, together with other changes."""
        self._refollow.set()
        if urgent:
            self._urgent.set()

    async def _keep_following(self) -> None:
        while True:
            await self._following.read_past()
            await self._refollow.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFOLLOW_WAIT_S):
                    await self._urgent.wait()
            self._refollow.clear()
            self._urgent.clear()
            if not self.draining:  # one that leaves needs it no more
                await self._following.begin()

    # --- what actors tell ---------------------------------------------------------------------------------
    def promoted(self, actor: Actor, mark: FenceMark, *, again: bool) -> None:
        fence = mark.fence
        grant = self._grants.get(fence.grant)
        if grant is None:
            grant = self._grants[fence.grant] = _Grant(
                fence.grant, fence.grant_size, fence.start_seq
            )
        grant.start_seq = min(grant.start_seq, fence.start_seq)
        grant.resources.add(actor.resource)
        if grant.opening is None or grant.opening.done():
            grant.opening = self._aside(self._open(grant))
        log.info(
            "promoted",
            service=self.service,
            resource=actor.resource,
            instance_id=self.instance_id,
            epoch=fence.epoch,
            role=InstanceRole.ACTIVE.value,
        )
        self._paused_until_s.pop(actor.resource, None)
        if not again:
            self.active += 1
            called = self._callbacks.promoted(self._service.promoted_callbacks, actor.resource)
            if called is not None:
                actor.serve_after(called)
        self.refollow()

    def claim(self, actor: Actor, mark: FenceMark) -> None:
        self._aside(self._claim(actor.resource, mark))

    async def _claim(self, resource: str, mark: FenceMark) -> None:
        """Until it is stored, or another fence is: that one is read next, and judged."""
        fence = mark.fence.model_copy(update={"session": self.connected.session})
        with contextlib.suppress(FenceRefused):
            await until_answered(
                lambda: self.store.claim(self.service, resource, fence, after_seq=mark.seq)
            )

    def copied(self, actor: Actor, mark: FenceMark) -> None:
        self.on_copied(
            f"another process runs as {self.instance_id}, with the same incarnation: it claimed"
            f" {actor.resource!r} in epoch {mark.fence.epoch} (a cloned process or machine?)"
        )

    def other_log(self, actor: Actor, mark: FenceMark) -> None:
        self.on_lost(
            f"the fence of {actor.resource!r} in epoch {mark.fence.epoch} is of log {mark.fence.log},"
            f" and {self.log} was read"
        )

    def skipped(self, actor: Actor, why: str) -> None:
        log.warning(
            "entry_unreadable",
            service=self.service,
            resource=actor.resource,
            instance_id=self.instance_id,
            reason=why,
        )

    def stood_back(self, actor: Actor) -> None:
        log.error(
            "resource_unreadable",
            service=self.service,
            resource=actor.resource,
            instance_id=self.instance_id,
            reason=f"{actor.unreadable}; run the version that wrote it, or remove that message",
        )
        self.unreadable += 1
        self.on_unreadable(actor.resource)

    def left(self, actor: Actor) -> None:
        grant = self._grants.get(actor.grant)
        if grant is None:
            return
        grant.resources.discard(actor.resource)
        if not grant.resources:
            del self._grants[grant.name]
            self._aside(self._close(grant))

    def demoted(self, actor: Actor) -> None:
        self.active -= 1
        self._paused_until_s.pop(actor.resource, None)
        log.warning(
            "demoted",
            service=self.service,
            resource=actor.resource,
            instance_id=self.instance_id,
            epoch=actor.journal.fence.fence.epoch if actor.journal.fence else 0,
            role=actor.role.value,
        )
        self._callbacks.demoted(self._service.demoted_callbacks, actor.resource)
        self.refollow()

    def suppressed(self, delivery: Delivery) -> None:
        self.duplicates_suppressed += 1
        self.recorder.suppressed(self.service)
        log.info("duplicate_suppressed", **about(delivery.request), instance_id=self.instance_id)

    def count_fenced(self) -> None:
        self.commits_fenced += 1
        self.recorder.fenced(self.service)

    @property
    def has_room(self) -> bool:
        return self._near < self._near_max

    def kept(self) -> None:
        self._near += 1

    def finished(self, count: int = 1) -> None:
        self._near -= count

    async def read(self, seq: int) -> Request | None:
        return await self._deliveries.read(self.service, seq)

    # --- grants ---------------------------------------------------------------------------------------------
    async def _open(self, grant: _Grant) -> None:
        """Make the grant's reader when all its fences are read, or no more of them come for a moment.

        A fence that comes later makes it again, from the grant's start: early is harmless.
        """
        while True:
            known = len(grant.resources)
            if known < grant.size or not grant.size:
                await asyncio.sleep(GRANT_GATHER_S)
            if known == len(grant.resources):
                break
        if grant.source is not None:
            await grant.source.stop()
            self._restarted(grant)
        resources = sorted(grant.resources)
        if not resources:
            return
        grant.source = await until_answered(
            lambda: self._deliveries.open_grant(
                self.service,
                grant.name,
                resources,
                start_seq=grant.start_seq,
                on_delivery=self._take,
                on_restart=lambda: self._restarted(grant),
            )
        )
        if self._grants.get(grant.name) is not grant:
            await grant.source.stop()  # left while its reader was made
        elif len(grant.resources) > len(resources):
            await self._open(grant)

    def _take(self, delivery: Delivery) -> None:
        resource = delivery.request.resource
        if resource is not None and (actor := self.actors.get(resource)) is not None:
            actor.take(delivery)

    def _restarted(self, grant: _Grant) -> None:
        again = sum(self.actors[name].forget_unbegun(grant.name) for name in grant.resources)
        self.recorder.redelivered(self.service, again)

    async def _close(self, grant: _Grant) -> None:
        if grant.source is not None:
            await grant.source.stop()

    # --- side tasks -------------------------------------------------------------------------------------------
    def _aside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_done)
        return task

    def _side_done(self, task: asyncio.Task[None]) -> None:
        self._side_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("resource_task_failed", service=self.service, exc_info=error)
