"""One resource on one instance: follows its journal, or is its active and serves its requests.

An actor serves when it has read its own fence, which is when its state is the fold of all that was
ever committed (G6); in stream order (G7); each commit checked against its
fence by the server (G5). Invariants: state changes in memory only after they are stored; a request is
acknowledged only when its outcome is stored; a message that can't be judged yet is held, never
acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from typing import Final, Protocol

from aegis_sdk.application.batch import BATCH_MAX, Batch, has_time
from aegis_sdk.application.commit import (
    commit,
    commit_together,
    first_outcome,
    give_up,
    note_attempt,
)
from aegis_sdk.application.handlers import Runner, is_expired
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.ports import (
    Connected,
    Delivery,
    FarDelivery,
    FenceRefused,
    Journal,
    StoreError,
)
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.domain.delivery import Verdict, could_be_second, judge, needs_lookup
from aegis_sdk.domain.journal import (
    Entry,
    EntryKind,
    EntryUnreadable,
    FenceMark,
    Follow,
    ResourceJournal,
)
from aegis_sdk.domain.recorder import Recorder
from aegis_sdk.domain.roles import TRANSITIONS, InstanceRole, RoleEvent
from aegis_sdk.telemetry import about, log

FAILED_WAIT_S: Final = 1.0
NEAR_MAX: Final = 256
"""Of one resource's requests that wait, so many are kept whole."""
READ_WAIT_S: Final = 0.02
FAR_AT_ONCE: Final = 64
"""Of the others, so many are read again when the queue is empty: about as long as two of them take to serve."""
LEFT_GRANTS_MAX: Final = 1024
"""So often a resource may go and come back while one handler runs. What of a left grant still waits behind it is let
go by its name; that of a grant whose fence was not read yet is held."""
LATE_MAX: Final = 64
"""Requests of one resource that are past their deadline and are ended at once."""


class Host(Protocol):
    """What an actor needs of the instance (application/resource_host.py)."""

    service: str
    instance_id: str
    incarnation: str
    connected: Connected
    log: str
    """The identity of the journal that was read; empty when nobody told."""
    sessions: set[str]
    """Those that this process has had; a copy of it may have had all but its newest, too."""
    runner: Runner
    isolation: Isolation
    store: Journal
    recorder: Recorder
    checkpoint_changes: int
    checkpoint_rest_s: float
    batches: bool
    """Whether storing many outcomes at once is worth it."""
    draining: bool

    def refollow(self, *, urgent: bool = False) -> None:
        """What this actor has to be given changed."""

    def claim(self, actor: Actor, mark: FenceMark) -> None:
        """Store the own fence again for this connection; the actor serves when it has read that."""

    def copied(self, actor: Actor, mark: FenceMark) -> None:
        """Another process has this one's identity, and has claimed the resource."""

    def other_log(self, actor: Actor, mark: FenceMark) -> None:
        """The journal began again: what was read of it so far is not in it any more."""

    def skipped(self, actor: Actor, why: str) -> None:
        """An entry that can't be read, and that the state does not need."""

    def stood_back(self, actor: Actor) -> None:
        """It can't tell its resource's state."""

    def promoted(self, actor: Actor, mark: FenceMark, *, again: bool) -> None: ...

    def left(self, actor: Actor) -> None:
        """Another reader has the requests of the actor's grant."""

    def demoted(self, actor: Actor) -> None: ...

    def suppressed(self, delivery: Delivery) -> None:
        """A delivered request had its outcome already."""

    def count_fenced(self) -> None: ...

    @property
    def has_room(self) -> bool:
        """Whether one more request may be kept whole."""

    def kept(self) -> None:
        """One more is."""

    def finished(self, count: int = 1) -> None:
        """So many are no more."""

    async def read(self, seq: int) -> Request | None:
        """The request at its place in the stream, or None. Raises: StoreError."""


class Actor:
    """One resource on this instance."""

    def __init__(self, host: Host, resource: str, *, complete_to: int) -> None:
        self.resource = resource
        self.role = InstanceRole.FOLLOWING
        self.journal = ResourceJournal(resource, whole=not complete_to)
        self.unreadable = ""
        """Why its state can't be told from the journal: it is neither served nor followed here any more."""
        self.follow = Follow.BEHIND
        self.complete_to = complete_to
        """Journal sequence up to which this actor was given everything."""
        self.grant = ""
        """Whose requests are served here, or were at last."""
        self._host = host
        self._queue: deque[Delivery] = deque()
        self._far: deque[FarDelivery] = deque()
        """What waits behind the queue, as places in the stream."""
        self._restarts = 0
        self._left: deque[str] = deque(maxlen=LEFT_GRANTS_MAX)
        self._worker: asyncio.Task[None] | None = None
        self._paused = False
        self._prepared: asyncio.Task[None] | None = None
        """What its promotion's callbacks run in, until they have ended."""
        self._stopped = False
        self._judged = 0
        """Requests that were run, or more, since the promotion."""
        self._checkpoint_due = False
        self._no_checkpoint_until_s = 0.0

    # --- the journal's side -------------------------------------------------------------------------
    def read(self, entry: Entry) -> None:
        """Fold an entry. While only fences are given, a new fence says that entries may have been missed."""
        match self.follow:
            case Follow.WHOLE if not self.unreadable:
                self._fold(entry)
            case Follow.FENCES if entry.kind is EntryKind.FENCE and entry.seq > self._mark().seq:
                self._fall_behind()

    def _fold(self, entry: Entry) -> None:
        try:
            skipped = self.journal.apply(entry)
        except EntryUnreadable as error:
            if not self.is_active:
                self._stand_back(str(error))
                return
            skipped = str(error)  # behind its own fence nobody else changes state: it is a stray
        if skipped:
            self._host.skipped(self, skipped)
        if entry.kind is EntryKind.FENCE:
            self._fence_read(self._mark())

    def _stand_back(self, why: str) -> None:
        """A state that may be wrong is never served; an instance of another version may tell it."""
        self.unreadable = why
        self._host.stood_back(self)

    def _fall_behind(self) -> None:
        """Another epoch began: follow everything again, from what is known on."""
        self.follow = Follow.BEHIND
        self.complete_to = self.journal.position
        if self.role is not InstanceRole.FOLLOWING:
            self._step(RoleEvent.OTHER_FENCE)
        self._host.refollow(urgent=True)

    def _fence_read(self, mark: FenceMark) -> None:
        """An own fence counts for the connection it names. That of an earlier connection is claimed for this
        one; that of a connection that we never had is a copy's, if we were active before it.
        """
        session = mark.fence.session
        if mark.fence.log and mark.fence.log != self._host.log:
            self._step(RoleEvent.OTHER_FENCE)
            self._host.other_log(self, mark)
        elif not mark.is_for(self._host.instance_id, self._host.incarnation):
            self._step(RoleEvent.OTHER_FENCE)
        elif not self.journal.whole:
            self._stand_back("the checkpoint that it begins with is not in the journal")
        elif session == self._host.connected.session:
            self._step(RoleEvent.OWN_FENCE)
        elif self.role is InstanceRole.FOLLOWING or session in self._host.sessions:
            self._host.claim(self, mark)
        else:
            self._step(RoleEvent.OTHER_FENCE)
            self._host.copied(self, mark)

    def reconnected(self, known_to: int) -> None:
        """Only the connection that a fence names may serve under it: claim it for the new one, and read what
        a copy of this process may have stored meanwhile, from behind `known_to` on.
        """
        if not self.is_active:
            return
        if self.follow is Follow.FENCES:
            self.follow = Follow.BEHIND
            self.complete_to = max(self.journal.position, known_to if self.is_idle else 0)
        self._host.claim(self, self._mark())

    def _step(self, event: RoleEvent) -> None:
        before, self.role = self.role, TRANSITIONS[self.role, event]
        self._paused = self._host.draining  # a pause is for one handover, and it has happened
        if self.role is InstanceRole.ACTIVE:
            mark = self._mark()
            if self.grant != mark.fence.grant:
                self._leave()
            self.grant = mark.fence.grant
            self._judged = 0
            self._host.promoted(self, mark, again=before is InstanceRole.ACTIVE)
        elif before is InstanceRole.ACTIVE:
            self._leave()
            self._host.demoted(self)
        self._wake()

    def _leave(self) -> None:
        """Requests of its grant are another reader's now."""
        if self.grant:
            self._left.append(self.grant)
            self._host.left(self)

    def _mark(self) -> FenceMark:
        mark = self.journal.fence
        assert mark is not None  # a role other than following begins with a fence
        return mark

    # --- the requests' side ---------------------------------------------------------------------------
    def take(self, delivery: Delivery) -> None:
        """However many come, they are taken: those of other resources are behind them in the same reader."""
        queue = self._queue
        if not self._far and (not queue or (len(queue) < NEAR_MAX and self._host.has_room)):
            self._keep(delivery)
        else:
            self._far.append(FarDelivery(delivery.arrival, delivery.grant, delivery.ack))
        self._wake()

    def _keep(self, delivery: Delivery) -> None:
        self._queue.append(delivery)
        self._host.kept()

    def forget_unbegun(self, grant: str) -> int:
        """The reader of `grant` starts again and delivers these once more; how many they are."""
        kept = deque(d for d in self._queue if d.grant != grant)
        far = deque(d for d in self._far if d.grant != grant)
        near = len(self._queue) - len(kept)
        forgotten = near + len(self._far) - len(far)
        self._queue, self._far = kept, far
        self._host.finished(near)
        self._restarts += 1
        return forgotten

    async def _bring_near(self) -> None:
        """Read the first of what is kept as places. A restart meanwhile brings all of it again."""
        while self._far and self._far[0].grant in self._left:
            self._far.popleft().ack()  # another reader has it
        places, restarts = list(itertools.islice(self._far, FAR_AT_ONCE)), self._restarts
        read = [self._host.read(place.arrival.stream_seq) for place in places]
        requests = await asyncio.gather(*read, return_exceptions=True)
        if restarts != self._restarts:
            return
        for place, request in zip(places, requests, strict=True):
            if isinstance(request, BaseException):
                await self._not_read(request)
                return
            self._far.popleft()
            if request is None:
                place.ack()  # past the age to which requests are kept, or removed by an operator
            else:
                self._keep(
                    Delivery(request, place.arrival, place.grant, place.ack, _nothing, _nothing)
                )

    def pause(self) -> None:
        """Begin nothing new; `idle` waits for what runs."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._wake()

    async def _not_read(self, error: BaseException) -> None:
        if not isinstance(error, StoreError):  # a bug of ours
            log.error("request_not_read", service=self._host.service, exc_info=error)
        await asyncio.sleep(READ_WAIT_S if isinstance(error, StoreError) else FAILED_WAIT_S)

    @property
    def is_paused(self) -> bool:
        return self._paused

    def serve_after(self, prepared: asyncio.Task[None]) -> None:
        """Begin nothing before that has ended."""
        self._prepared = prepared
        prepared.add_done_callback(self._is_prepared)

    def _is_prepared(self, prepared: asyncio.Task[None]) -> None:
        if self._prepared is prepared:
            self._prepared = None
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
        self._stopped = True
        if self._worker is not None:
            self._worker.cancel()

    def checkpoint_soon(self) -> None:
        """Store the state when no request is between run and commit, if its newest checkpoint is behind."""
        if self.is_active and not self.journal.is_covered:
            self._checkpoint_due = True
            self._wake()

    def _wake(self) -> None:
        has_work = self._queue or self._far or self._checkpoint_due
        is_free = not self._paused and self._prepared is None
        if has_work and is_free and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while (self._queue or self._far or self._checkpoint_due) and not self._paused:
            if self._checkpoint_due:
                await self._checkpoint_now()
            elif not self._queue:
                await self._bring_near()
            elif not self._may_judge(self._queue[0]):
                return  # the fence that decides has not been read yet
            elif len(late := self._late()) > 1:
                await self._end_late(late)
            elif self._host.batches and len(together := self._together()) > 1:
                await self._serve_together(together)
            else:
                await self._serve_next()

    async def _serve_next(self) -> None:
        delivery = self._queue.popleft()
        try:
            await self._serve(delivery)
        except (Exception, asyncio.CancelledError) as error:
            # A bug of ours, or a stranger's cancellation: the request must neither be lost nor skipped.
            self._queue.appendleft(delivery)
            await self._go_on_after(error, delivery)
        else:
            self._host.finished()

    async def _go_on_after(self, error: BaseException, delivery: Delivery) -> None:
        """Raises: CancelledError when this actor was stopped."""
        worker = asyncio.current_task()
        while not self._stopped and worker is not None and worker.cancelling():
            worker.uncancel()
        if isinstance(error, asyncio.CancelledError) and self._stopped:
            raise error
        log.error("delivery_failed", **about(delivery.request), exc_info=error)
        await asyncio.sleep(FAILED_WAIT_S)

    # --- several at once ----------------------------------------------------------------------------------
    def _together(self) -> list[Delivery]:
        """The deliveries at the queue's head that may run before those in front of them are stored."""
        found: list[Delivery] = []
        last_seq = self.journal.last_request_seq
        for delivery in itertools.islice(self._queue, BATCH_MAX):
            if delivery.arrival.stream_seq <= last_seq or not self._only_runs(delivery):
                break
            last_seq = delivery.arrival.stream_seq
            found.append(delivery)
        return found

    def _only_runs(self, delivery: Delivery) -> bool:
        """Whether it is to be run without a look at anything, and has a pure handler."""
        request, arrival = delivery.request, delivery.arrival
        # A process that died had up to a batch in hand. If one of these killed it, it must not take
        # those in front of it along again: each serves one more, until the killer is the first.
        suspect = self._judged < BATCH_MAX and could_be_second(arrival)
        return (
            not suspect
            and self._is_served(delivery)
            and not needs_lookup(request, arrival)
            and request.request_id not in self.journal.attempts
            and has_time(request)
            and self._host.runner.is_pure(request)
            and self._host.isolation.admits(request.request_id)
        )

    async def _serve_together(self, deliveries: list[Delivery]) -> None:
        mark = self._mark()
        batch = Batch(self._host.runner, self.journal.values, epoch=mark.fence.epoch)
        try:
            with self._host.isolation, batch:
                self._compute(batch, deliveries)
                await self._store(batch, mark)
            await self._checkpoint_if_wanted(mark)
        except FenceRefused:
            self._refused(deliveries[0], mark)
            self._let_go(batch)
        except (Exception, asyncio.CancelledError) as error:
            # As in `_serve_next`.
            self._take_back(batch)
            await self._go_on_after(error, deliveries[0])

    def _compute(self, batch: Batch, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            batch.run(delivery)
            self._queue.popleft()
            if batch.is_full:
                return

    async def _store(self, batch: Batch, mark: FenceMark) -> None:
        begun_s, count = time.perf_counter(), len(batch.open)
        self._judged += count
        last_seq = 0
        if count > 1:
            last_seq = await commit_together(self._host.store, batch.commits, fence_seq=mark.seq)
        if not last_seq:
            await self._store_one_by_one(batch, mark, begun_s)
            return
        self._host.recorder.batched(self._host.service, count)
        for seq in range(last_seq - count + 1, last_seq + 1):
            self._stored(batch, batch.open[0].outcome, seq, mark, begun_s)

    async def _store_one_by_one(self, batch: Batch, mark: FenceMark, begun_s: float) -> None:
        """Commit what was computed by itself, as long as what it was computed on is what is stored.

        It ends only when all of the batch is stored, or never can be: no checkpoint may be written
        between, which would hide from its readers what was stored and is not applied here yet.
        """
        while batch.open:
            run = batch.open[0]
            seq, stored = await commit(
                self._host.store, run.delivery.request, run.outcome, fence_seq=mark.seq
            )
            self._stored(batch, stored, seq, mark, begun_s)
            if stored != run.outcome:
                self._take_back(batch)

    def _stored(
        self, batch: Batch, stored: Outcome, seq: int, mark: FenceMark, begun_s: float
    ) -> None:
        """The first open one of the batch has its outcome."""
        run = batch.open.popleft()
        run.span.stored(stored)
        self._host.recorder.served(
            run.delivery.request,
            run.delivery.arrival,
            run.outcome,
            stored,
            begun_s=run.begun_s,
            process_s=run.process_s,
            commit_s=time.perf_counter() - begun_s,
        )
        self._committed(run.delivery, stored, seq, mark)
        run.delivery.ack()
        self._host.finished()

    def _take_back(self, batch: Batch) -> None:
        """What is not stored runs again: in the queue's order, in front."""
        self._queue.extendleft(run.delivery for run in reversed(batch.open))
        batch.open.clear()

    def _let_go(self, batch: Batch) -> None:
        """What is not stored is another active's."""
        self._host.finished(len(batch.open))
        batch.open.clear()

    def _late(self) -> list[Delivery]:
        """The deliveries at the queue's head whose deadline has passed."""
        found: list[Delivery] = []
        for delivery in itertools.islice(self._queue, LATE_MAX):
            if not is_expired(delivery.request) or not self._is_served(delivery):
                break
            found.append(delivery)
        return found

    async def _end_late(self, late: list[Delivery]) -> None:
        """Nobody waits for these and they change nothing, so they end side by side: one by one, an active
        with a slow store would never catch up with callers who give up and ask again.
        """
        mark = self._mark()
        for _ in late:
            self._queue.popleft()
        ends = await asyncio.gather(
            *(self._expire(delivery, mark) for delivery in late), return_exceptions=True
        )
        # Taken over in their order: all behind one that has no outcome yet are done again.
        for n, (delivery, end) in enumerate(zip(late, ends, strict=True)):
            if isinstance(end, FenceRefused):
                self._refused(delivery, mark)
                self._host.finished(len(late) - n)
                return
            if isinstance(end, BaseException):
                log.error("delivery_failed", **about(delivery.request), exc_info=end)
                self._queue.extendleft(reversed(late[n:]))
                await asyncio.sleep(FAILED_WAIT_S)
                return
            if end is not None:
                seq, stored = end
                self._committed(delivery, stored, seq, mark)
            delivery.ack()
            self._host.finished()

    async def _expire(self, delivery: Delivery, mark: FenceMark) -> tuple[int, Outcome] | None:
        """What `commit` says; None when there is an outcome already. Raises: FenceRefused."""
        request, arrival, epoch = delivery.request, delivery.arrival, mark.fence.epoch
        if arrival.stream_seq <= self.journal.last_request_seq:
            self._host.suppressed(delivery)
            return None
        if needs_lookup(request, arrival) and await self._answered(delivery):
            return None
        begun_s, started_s = time.time(), time.perf_counter()
        with self._host.runner.span(request, begun=1, epoch=epoch) as span:
            outcome = self._host.runner.expire(request, epoch=epoch)
            seq, stored = await commit(self._host.store, request, outcome, fence_seq=mark.seq)
            span.stored(stored)
        self._host.recorder.served(
            request,
            arrival,
            outcome,
            stored,
            begun_s=begun_s,
            process_s=0.0,
            commit_s=time.perf_counter() - started_s,
        )
        return seq, stored

    # --- one by one -----------------------------------------------------------------------------------------
    def _may_judge(self, delivery: Delivery) -> bool:
        return self._is_served(delivery) or delivery.grant in self._left

    def _is_served(self, delivery: Delivery) -> bool:
        return (
            self.role is InstanceRole.ACTIVE
            and (mark := self.journal.fence) is not None
            and delivery.grant == mark.fence.grant
            and mark.fence.session == self._host.connected.session
        )

    def _refused(self, delivery: Delivery, mark: FenceMark) -> None:
        """The server knows a newer fence than this actor: stop, and read what it missed."""
        log.warning(
            "commit_fenced",
            **about(delivery.request),
            instance_id=self._host.instance_id,
            epoch=mark.fence.epoch,
        )
        self._host.count_fenced()
        self._step_down(mark)

    def _step_down(self, mark: FenceMark) -> None:
        if mark.fence.session != self._host.connected.session:
            return  # its claim for this connection came first: what was let go is delivered again
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
        await self._checkpoint_if_wanted(mark)

    async def _answered(self, delivery: Delivery) -> bool:
        stored = await first_outcome(self._host.store, delivery.request)
        if stored is None:
            return False
        self._host.suppressed(delivery)
        return True

    async def _run_judged(self, delivery: Delivery, mark: FenceMark) -> None:
        request = delivery.request
        noted = self.journal.attempts.get(request.request_id, 0)
        # Stored in their order: what a process was at when it died is the first after a promotion, or
        # will be when those in front of it, which it had run but not stored, are done.
        second = not self._judged and could_be_second(delivery.arrival)
        self._judged += 1
        isolation = self._host.isolation
        match judge(second=second, noted=noted):
            case Verdict.RUN:
                await isolation.admitted(request.request_id)
                with isolation:
                    await self._run(delivery, mark, begun=1)
            case Verdict.RUN_NOTED:
                await isolation.admitted(request.request_id)
                with isolation:
                    await self._note(request, noted + 1, mark)
                    await self._run(delivery, mark, begun=noted + 2)
            case Verdict.RUN_ALONE:
                async with isolation.alone(request.request_id):
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
                    instance_id=self._host.instance_id,
                    replaced=mark.fence.reason,
                )
                self._host.recorder.gave_up(request)
                self._committed(delivery, outcome, seq, mark)

    async def _note(self, request: Request, n: int, mark: FenceMark) -> None:
        await note_attempt(self._host.store, request, n, fence_seq=mark.seq)
        self.journal.attempts[request.request_id] = n

    async def _run(self, delivery: Delivery, mark: FenceMark, *, begun: int) -> None:
        runner, epoch = self._host.runner, mark.fence.epoch
        begun_s, started_s = time.time(), time.perf_counter()
        with runner.span(delivery.request, begun=begun, epoch=epoch) as span:
            outcome = await runner.run(
                delivery.request,
                begun=begun,
                request_seq=delivery.arrival.stream_seq,
                epoch=epoch,
                values=self.journal.values,
                span=span,
            )
            ran_s = time.perf_counter()
            seq, stored = await commit(
                self._host.store, delivery.request, outcome, fence_seq=mark.seq
            )
            span.stored(stored)
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
        if ours:
            self.journal.apply_outcome(delivery.request.request_id, stored)
        self.journal.attempts.pop(delivery.request.request_id, None)
        self.journal.last_request_seq = max(
            self.journal.last_request_seq, delivery.arrival.stream_seq
        )
        self.journal.position = max(self.journal.position, seq)

    async def _checkpoint_now(self) -> None:
        self._checkpoint_due = False
        if not self.is_active:
            return
        mark = self._mark()
        try:
            await self._checkpoint(mark)
        except FenceRefused:
            self._step_down(mark)

    async def _checkpoint_if_wanted(self, mark: FenceMark) -> None:
        if not self.journal.wants_checkpoint(every_changes=self._host.checkpoint_changes):
            return
        now_s = time.monotonic()
        if now_s >= self._no_checkpoint_until_s:
            self._no_checkpoint_until_s = now_s + self._host.checkpoint_rest_s
            await self._checkpoint(mark)

    async def _checkpoint(self, mark: FenceMark) -> None:
        checkpoint = self.journal.checkpoint()
        replaced = self.journal.parts_of  # now: it may read the new one itself while it is stored
        try:
            seq, stored = await self._host.store.store_checkpoint(
                self._host.service, self.resource, checkpoint, fence_seq=mark.seq
            )
        except FenceRefused:
            raise
        except StoreError as error:
            log.warning(
                "checkpoint_failed",
                service=self._host.service,
                instance_id=self._host.instance_id,
                resource=self.resource,
                error_code=type(error).__name__,
            )
            return
        self.journal.checkpointed(stored, len(checkpoint.values))
        self.journal.position = max(self.journal.position, seq)
        if replaced:
            with contextlib.suppress(StoreError):  # removed past the retention at the latest
                await self._host.store.forget_parts(self._host.service, self.resource, replaced)


def _nothing(*_: object) -> None:
    """A grant's requests are never taken from its one reader by time."""
