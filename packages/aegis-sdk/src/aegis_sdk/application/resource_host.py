"""Serves targeted requests: one actor a resource, which follows the journal or is the active.

An actor serves when it has read its own fence, which is when its state is the fold of all that was
ever committed (G6); one request at a time, in stream order (G7); each commit checked against its
fence by the server (G5). Invariants: state changes in memory only after they are stored; a request is
acknowledged only when its outcome is stored; a message that can't be judged yet is held, never
acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from aegis_sdk.application.commit import commit, first_outcome, give_up, note_attempt
from aegis_sdk.application.gate import Gate
from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.ports import (
    Deliveries,
    Delivery,
    DeliverySource,
    FenceRefused,
    FollowSource,
    Journal,
    JournalReader,
    StoreError,
)
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.trace import trace_id
from aegis_sdk.domain.delivery import (
    Verdict,
    backoff_s,
    could_be_second,
    judge,
    needs_lookup,
)
from aegis_sdk.domain.journal import Entry, EntryKind, FenceMark, ResourceJournal
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.roles import TRANSITIONS, InstanceRole, RoleEvent
from aegis_sdk.service import Callback, Service
from aegis_sdk.telemetry import log

CREDIT: Final = 512
"""Requests of one grant in hand at once; what waits beyond stays in the stream."""
REFOLLOW_WAIT_S: Final = 0.3
"""Promotions come in bursts: narrow what is followed once for all of them."""
FAILED_WAIT_S: Final = 1.0
GRANT_GATHER_S: Final = 0.01
"""How long no further fence of a grant may come before its reader is made."""
CHECKPOINT_CHANGES: Final = 1000
"""Changes between checkpoints: a returning standby reads at most about these, in a few milliseconds."""
LEFT_GRANTS_MAX: Final = 8


class Follow(Enum):
    """How much of its resource's journal an actor is given."""

    WHOLE = auto()
    FENCES = auto()
    """An active writes the rest itself; reading it again would double its work."""
    BEHIND = auto()
    """A fence told that entries were missed: what is still given now is ignored."""


class Actor:
    """One resource on this instance."""

    def __init__(self, host: ResourceHost, resource: str) -> None:
        self.resource = resource
        self.role = InstanceRole.FOLLOWING
        self.journal = ResourceJournal(resource)
        self.follow = Follow.WHOLE
        self.complete_to = 0
        """Journal sequence up to which this actor was given everything."""
        self.grant = ""
        self._host = host
        self._queue: deque[Delivery] = deque()
        self._left: deque[str] = deque(maxlen=LEFT_GRANTS_MAX)
        self._worker: asyncio.Task[None] | None = None
        self._paused = False
        self._first_after_promotion = False

    # --- the journal's side -------------------------------------------------------------------------
    def read(self, entry: Entry) -> None:
        """Fold an entry. While only fences are given, a new fence says that entries may have been missed."""
        match self.follow:
            case Follow.WHOLE:
                self.journal.apply(entry)
                if entry.kind is EntryKind.FENCE:
                    self._fence_read(self._mark())
            case Follow.FENCES if entry.kind is EntryKind.FENCE and entry.seq > self._mark().seq:
                self._fall_behind()

    def _fall_behind(self) -> None:
        """Another epoch began: follow everything again, from what is known on."""
        self.follow = Follow.BEHIND
        self.complete_to = self.journal.position
        if self.role is not InstanceRole.FOLLOWING:
            self._step(RoleEvent.OTHER_FENCE)
        self._host.refollow(urgent=True)

    def _fence_read(self, mark: FenceMark) -> None:
        own = mark.is_for(self._host.instance_id, self._host.incarnation)
        self._step(RoleEvent.OWN_FENCE if own else RoleEvent.OTHER_FENCE)

    def _step(self, event: RoleEvent) -> None:
        before, self.role = self.role, TRANSITIONS[self.role, event]
        self._paused = self._host.draining  # a pause is for one handover, and it has happened
        if self.role is InstanceRole.ACTIVE:
            mark = self._mark()
            self._leave(self.grant, unless=mark.fence.grant)
            self.grant = mark.fence.grant
            self._first_after_promotion = True
            self._host.promoted(self, mark, again=before is InstanceRole.ACTIVE)
        elif before is InstanceRole.ACTIVE:
            self._leave(self.grant)
            self._host.demoted(self)
        self._wake()

    def _leave(self, grant: str, *, unless: str = "") -> None:
        """Requests of `grant` are another reader's now."""
        if grant and grant != unless:
            self._left.append(grant)

    def _mark(self) -> FenceMark:
        mark = self.journal.fence
        assert mark is not None  # a role other than following begins with a fence
        return mark

    # --- the requests' side ---------------------------------------------------------------------------
    def take(self, delivery: Delivery) -> None:
        self._queue.append(delivery)
        self._wake()

    def forget_unbegun(self, grant: str) -> int:
        """The reader of `grant` starts again and delivers these once more; how many they are."""
        kept = deque(d for d in self._queue if d.grant != grant)
        forgotten = len(self._queue) - len(kept)
        self._queue = kept
        return forgotten

    def pause(self) -> None:
        """Begin nothing new; `idle` waits for what runs."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._wake()

    @property
    def is_active(self) -> bool:
        return self.role is InstanceRole.ACTIVE

    @property
    def is_idle(self) -> bool:
        return self._worker is None or self._worker.done()

    async def idle(self) -> None:
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()

    def _wake(self) -> None:
        if self._queue and not self._paused and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._work())
            self._worker.add_done_callback(self._worked)

    def _worked(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and (error := worker.exception()) is not None:
            log.error("resource_failed", resource=self.resource, exc_info=error)

    async def _work(self) -> None:
        while self._queue and not self._paused:
            if not self._may_judge(self._queue[0]):
                return  # the fence that decides has not been read yet
            delivery = self._queue.popleft()
            try:
                await self._serve(delivery)
            except Exception as error:
                # A bug of ours: the request must neither be lost nor skipped.
                log.error("delivery_failed", resource=self.resource, exc_info=error)
                self._queue.appendleft(delivery)
                await asyncio.sleep(FAILED_WAIT_S)
                continue
            self._host.finished(delivery)

    def _may_judge(self, delivery: Delivery) -> bool:
        return self._is_served(delivery) or delivery.grant in self._left

    def _is_served(self, delivery: Delivery) -> bool:
        return (
            self.role is InstanceRole.ACTIVE
            and self.journal.fence is not None
            and delivery.grant == self.journal.fence.fence.grant
        )

    def _refused(self, delivery: Delivery, mark: FenceMark) -> None:
        """The server knows a newer fence than this actor: stop, and read what it missed."""
        log.warning(
            "commit_fenced",
            request_id=delivery.request.request_id,
            service=delivery.request.service,
            resource=self.resource,
            instance_id=self._host.instance_id,
            epoch=mark.fence.epoch,
            trace_id=trace_id(delivery.request.traceparent),
        )
        self._host.count_fenced()
        if self.role is InstanceRole.ACTIVE and self._mark().seq == mark.seq:
            self._step(RoleEvent.COMMIT_REFUSED)
            if self.follow is Follow.FENCES:
                self._fall_behind()

    async def _serve(self, delivery: Delivery) -> None:
        if not self._is_served(delivery):
            delivery.ack()  # of a grant that this resource has left: its new reader has it too
            return
        # The fence as it is now, where the role was looked at: after any wait below, a newer fence may
        # have been read, and a commit under another instance's fence would break G5.
        mark = self._mark()
        try:
            await self._serve_under(mark, delivery)
        except FenceRefused:
            self._refused(delivery, mark)

    async def _serve_under(self, mark: FenceMark, delivery: Delivery) -> None:
        if delivery.arrival.stream_seq <= self.journal.last_request_seq:
            self._host.suppressed(delivery)
            delivery.ack()
            return
        if needs_lookup(delivery.request, delivery.arrival) and await self._answered(delivery):
            delivery.ack()
            return
        await self._run_judged(delivery, mark)
        delivery.ack()
        await self._checkpoint_when_due(mark)

    async def _answered(self, delivery: Delivery) -> bool:
        stored = await first_outcome(self._host.store, delivery.request)
        if stored is None:
            return False
        self._host.suppressed(delivery)
        return True

    async def _run_judged(self, delivery: Delivery, mark: FenceMark) -> None:
        request = delivery.request
        noted = self.journal.attempts.get(request.request_id, 0)
        # Served one at a time: only the first one after a promotion can have been begun before.
        second = self._first_after_promotion and could_be_second(delivery.arrival)
        self._first_after_promotion = False
        match judge(second=second, noted=noted):
            case Verdict.RUN:
                async with self._host.gate.shared(request.request_id):
                    await self._run(delivery, mark, begun=1)
            case Verdict.RUN_NOTED:
                async with self._host.gate.shared(request.request_id):
                    await self._note(request, noted + 1, mark)
                    await self._run(delivery, mark, begun=noted + 2)
            case Verdict.RUN_ALONE:
                async with self._host.gate.alone(request.request_id):
                    await self._note(request, noted + 1, mark)
                    await self._run(delivery, mark, begun=noted + 2)
            case Verdict.GIVE_UP:
                seq, outcome = await give_up(
                    self._host.store,
                    request,
                    noted + 1,
                    fence_seq=mark.seq,
                    request_seq=delivery.arrival.stream_seq,
                    epoch=mark.fence.epoch,
                )
                self._host.recorder.gave_up(request)
                self._committed(delivery, outcome, seq, mark)

    async def _note(self, request: Request, n: int, mark: FenceMark) -> None:
        await note_attempt(self._host.store, request, n, fence_seq=mark.seq)
        self.journal.attempts[request.request_id] = n

    async def _run(self, delivery: Delivery, mark: FenceMark, *, begun: int) -> None:
        begun_s, started_s = time.time(), time.perf_counter()
        outcome = await self._host.runner.run(
            delivery.request,
            begun=begun,
            request_seq=delivery.arrival.stream_seq,
            epoch=mark.fence.epoch,
            journal=self.journal,
        )
        ran_s = time.perf_counter()
        seq, stored = await commit(self._host.store, delivery.request, outcome, fence_seq=mark.seq)
        self._host.recorder.served(
            delivery.request,
            delivery.arrival,
            outcome,
            stored,
            begun_s=begun_s,
            process_s=ran_s - started_s,
            commit_s=time.perf_counter() - ran_s,
        )
        self._committed(delivery, stored, seq, mark)

    def _committed(self, delivery: Delivery, stored: Outcome, seq: int, mark: FenceMark) -> None:
        """Take the stored outcome over. With `seq` 0 another writer was first, or an earlier try of ours."""
        ours = (
            stored.request_seq == delivery.arrival.stream_seq and stored.epoch == mark.fence.epoch
        )
        if ours and stored.request_seq > self.journal.last_request_seq:
            self.journal.apply_outcome(delivery.request.request_id, stored)
        self.journal.attempts.pop(delivery.request.request_id, None)
        self.journal.last_request_seq = max(
            self.journal.last_request_seq, delivery.arrival.stream_seq
        )
        self.journal.position = max(self.journal.position, seq)

    async def _checkpoint_when_due(self, mark: FenceMark) -> None:
        if not self.journal.wants_checkpoint(every_changes=self._host.checkpoint_changes):
            return
        checkpoint = self.journal.checkpoint()
        try:
            seq = await self._host.store.store_checkpoint(
                self._host.service, self.resource, checkpoint, fence_seq=mark.seq
            )
        except FenceRefused:
            raise
        except StoreError as error:
            log.warning(
                "checkpoint_failed", resource=self.resource, error_code=type(error).__name__
            )
            return
        self.journal.checkpointed(len(checkpoint.values), checkpoint.position)
        self.journal.position = max(self.journal.position, seq)


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
        runner: Runner,
        gate: Gate,
        store: Journal,
        reader: JournalReader,
        deliveries: Deliveries,
        checkpoint_changes: int = CHECKPOINT_CHANGES,
        credit: int = CREDIT,
        recorder: Recorder = NO_RECORDER,
    ) -> None:
        self.service = service.name
        self.instance_id = instance_id
        self.incarnation = incarnation
        self.runner = runner
        self.gate = gate
        self.store = store
        self.checkpoint_changes = checkpoint_changes
        self.recorder = recorder
        self.actors: dict[str, Actor] = {}
        self.active = 0
        """How many actors are active now; a plain number, for the heartbeat's thread."""
        self.duplicates_suppressed = 0
        self.commits_fenced = 0
        self.draining = False
        self._callbacks = service
        self._reader = reader
        self._deliveries = deliveries
        self._credit = credit
        self._grants: dict[str, _Grant] = {}
        self._followed: FollowSource | None = None
        self._read_to = 0
        self._generation = 0
        self._follower: asyncio.Task[None] | None = None
        self._refollow = asyncio.Event()
        self._urgent = asyncio.Event()
        self._side_tasks: set[asyncio.Task[None]] = set()

    # --- life -----------------------------------------------------------------------------------------
    async def start(self, resources: Sequence[str]) -> None:
        """Follow the journal of `resources` from their checkpoints on."""
        starts = await self._until_read(resources)
        for resource in resources:
            actor = self.actors[resource] = Actor(self, resource)
            actor.complete_to = starts.get(resource, 1) - 1
        self._follower = asyncio.create_task(self._keep_following())
        self.refollow(urgent=True)

    async def pause(self, resources: Sequence[str] | None = None, *, timeout_s: float) -> bool:
        """Begin nothing new on `resources` (None: all); True when all that had begun has ended."""
        self.draining = self.draining or resources is None
        actors = self._named(resources)
        for actor in actors:
            actor.pause()
        idle = [asyncio.create_task(actor.idle()) for actor in actors if not actor.is_idle]
        if not idle:
            return True
        _, late = await asyncio.wait(idle, timeout=timeout_s)
        for task in late:
            task.cancel()
        return not late

    def resume(self, resources: Sequence[str] | None = None) -> None:
        for actor in self._named(resources):
            actor.resume()

    async def stop(self) -> None:
        """At once; what has begun is dropped, and its new active begins it again."""
        if self._follower is not None:
            self._follower.cancel()
        if self._followed is not None:
            await self._followed.stop()
        for grant in self._grants.values():
            await self._close(grant)
        for actor in self.actors.values():
            actor.stop()

    def _named(self, resources: Sequence[str] | None) -> list[Actor]:
        if resources is None:
            return list(self.actors.values())
        return [self.actors[name] for name in resources if name in self.actors]

    @property
    def lag_entries(self) -> int:
        return self._followed.lag_entries if self._followed else 0

    @property
    def journal_seq(self) -> int:
        return self._read_to

    # --- following --------------------------------------------------------------------------------------
    def refollow(self, *, urgent: bool = False) -> None:
        """What has to be followed changed; not urgent: soon, together with other changes."""
        self._refollow.set()
        if urgent:
            self._urgent.set()

    async def _keep_following(self) -> None:
        while True:
            await self._refollow.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFOLLOW_WAIT_S):
                    await self._urgent.wait()
            self._refollow.clear()
            self._urgent.clear()
            await self._follow_now()

    async def _follow_now(self) -> None:
        self._generation += 1  # entries that still arrive from the old reader are ignored
        if self._followed is not None:
            await self._followed.stop()
        if not self.actors:
            return
        for actor in self.actors.values():
            self._choose_follow(actor)
        from_seq = min(actor.complete_to for actor in self.actors.values()) + 1
        # What an earlier reader read says nothing of an actor that was behind then.
        self._read_to = from_seq - 1
        self._followed = await self._reader.follow(
            self.service,
            whole=[a.resource for a in self.actors.values() if a.follow is Follow.WHOLE],
            fences=[a.resource for a in self.actors.values() if a.follow is Follow.FENCES],
            from_seq=from_seq,
            on_entry=self._reading(self._generation),
        )

    def _choose_follow(self, actor: Actor) -> None:
        if actor.follow is not Follow.BEHIND:
            actor.complete_to = max(actor.complete_to, self._read_to)
        active = actor.role is InstanceRole.ACTIVE and actor.follow is not Follow.BEHIND
        actor.follow = Follow.FENCES if active else Follow.WHOLE

    def _reading(self, generation: int) -> Callable[[Entry], None]:
        def read(entry: Entry) -> None:
            if generation != self._generation:
                return
            self._read_to = max(self._read_to, entry.seq)
            if (actor := self.actors.get(entry.resource)) is not None:
                actor.read(entry)

        return read

    async def _until_read(self, resources: Sequence[str]) -> Mapping[str, int]:
        for n in itertools.count(1):
            try:
                return await self._reader.start_of(self.service, resources)
            except StoreError:
                await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
        raise AssertionError("unreachable")

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
        if not again:
            self.active += 1
            self._call_back(self._callbacks.promoted_callbacks, actor.resource)
        self.refollow()

    def demoted(self, actor: Actor) -> None:
        self.active -= 1
        grant = self._grants.get(actor.grant)
        if grant is not None:
            grant.resources.discard(actor.resource)
            if not grant.resources:
                del self._grants[grant.name]
                self._aside(self._close(grant))
        log.warning(
            "demoted",
            service=self.service,
            resource=actor.resource,
            instance_id=self.instance_id,
            role=actor.role.value,
        )
        self._call_back(self._callbacks.demoted_callbacks, actor.resource)
        self.refollow()

    def suppressed(self, delivery: Delivery) -> None:
        self.duplicates_suppressed += 1
        self.recorder.suppressed(self.service)
        log.info(
            "duplicate_suppressed",
            request_id=delivery.request.request_id,
            service=self.service,
            resource=delivery.request.resource,
            instance_id=self.instance_id,
            trace_id=trace_id(delivery.request.traceparent),
        )

    def count_fenced(self) -> None:
        self.commits_fenced += 1
        self.recorder.fenced(self.service)

    def finished(self, delivery: Delivery) -> None:
        grant = self._grants.get(delivery.grant)
        if grant is not None and grant.source is not None:
            grant.source.finished()

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
        grant.source = await self._deliveries.open_grant(
            self.service,
            grant.name,
            resources,
            start_seq=grant.start_seq,
            credit=self._credit,
            on_delivery=self._take,
            on_restart=lambda: self._restarted(grant),
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
    def _call_back(self, callbacks: Sequence[Callback], resource: str) -> None:
        for callback in callbacks:
            result = callback(resource)
            if inspect.isawaitable(result):
                self._aside(_awaited(result))

    def _aside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_done)
        return task

    def _side_done(self, task: asyncio.Task[None]) -> None:
        self._side_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("resource_task_failed", service=self.service, exc_info=error)


async def _awaited(result: Awaitable[None]) -> None:
    await result
