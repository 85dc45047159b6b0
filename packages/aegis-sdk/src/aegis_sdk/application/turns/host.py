"""Executes a writer: hands it what happens, does what it says, and feeds back what became of that.

Theory of operation. What comes in are sent requests and cancels, stored requests, entries of the log, what became
of what was stored, outcomes of handlers that wait. Each is given to the writer as it comes. Once in a turn of the
event loop, the writer composes, and its output is executed: so all that one read of the socket brought shares an
entry. While that entry is on its way the next one collects.

It decides two things, and no more. Stored requests of resources that are served elsewhere are kept until their
outcomes are read, since this instance may be the next owner. The writer composes only on a connection that is
claimed (domain/turns/claims.py). Everything else is decided by `Writer`.

What must stay true:
- `_act` has no `await`. The writer judges, takes the gate and hands the entry to the log in one step of the loop,
  so nothing can be read in between (R1). Whatever has to wait (a lookup, a checkpoint, a gate) runs aside, in a
  task of its own.
- What such a task brings may be late: the request was dropped, the resource moved, the gate is another one. So it
  is fed back to the writer, which judges it again. A task of this module never acts on what it saw before its
  `await`.
- `Output` is executed in the order of its lists. Gates of other writers and entries go first, since others wait for
  them.
- Who is told what is served (`_moved`) comes last. So what was dropped in the same step still finds the old
  `serving`. It is accepted once more, dropped again, and then kept elsewhere.

What a crash leaves. This process keeps nothing on disk. A turn that was on its way is in the log or is not. If it
is, the next owner reads it before the gate that shuts this writer out (R4), and answers from it whoever asks again.
If it is not, nothing of it took effect: who sent those requests sends or stores them again (G1, G3). What handlers
handed in and is not marked is sent again. A group's request that was stored is delivered to another member when its
ack_wait is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Final

from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.letters import keep_letter
from aegis_sdk.application.patience import until_answered
from aegis_sdk.application.ports import (
    Accepted,
    Connected,
    Delivery,
    GateRefused,
    GroupSource,
    Letters,
    RequestLog,
    StoreError,
    StoreTooLarge,
)
from aegis_sdk.application.turns.aside import Aside
from aegis_sdk.application.turns.deliveries import (
    AWAY_DELAY_S,
    AWAY_MAX,
    LACKING_DELAY_S,
    PAUSED_DELAY_S,
    Deliveries,
)
from aegis_sdk.application.turns.elsewhere import Elsewhere
from aegis_sdk.application.turns.emitting import Emitter
from aegis_sdk.application.turns.firing import Firing
from aegis_sdk.application.turns.lanes import Appender
from aegis_sdk.application.turns.lookups import Lookups
from aegis_sdk.application.turns.ports import FoundCheckpoint, Sent, Tap, WriterLog
from aegis_sdk.application.turns.reads import Reads, ReadsIn
from aegis_sdk.application.turns.relaying import NOT_ROUTED, Unroutable, resource_of
from aegis_sdk.application.turns.roles import Roles
from aegis_sdk.application.turns.running import Running
from aegis_sdk.application.turns.sending import UNSENT_S, Sender
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import is_nested
from aegis_sdk.contract.subscription import Subscription
from aegis_sdk.contract.turns.events import Emitted
from aegis_sdk.contract.turns.sent import Answer
from aegis_sdk.contract.turns.timers import Timer
from aegis_sdk.domain.delivery import backoff_s, could_be_second
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.turns.claims import Claims
from aegis_sdk.domain.turns.entries import Claim, End, Entry, Gate, Turn
from aegis_sdk.domain.turns.output import Output, Save, Sending
from aegis_sdk.domain.turns.ownership import MissingOwnership
from aegis_sdk.domain.turns.sessions import Seen, is_single, split
from aegis_sdk.domain.turns.states import HeldState, Why
from aegis_sdk.domain.turns.work import BehindTrim, Work, Write
from aegis_sdk.domain.turns.writer import OUTCOMES_KEPT_S, Writer
from aegis_sdk.errors import Cancelled
from aegis_sdk.service import Service
from aegis_sdk.telemetry import about, log

TICK_S: Final = 1.0
"""How often the host looks after what no event announces: ends that may be forgotten, checkpoints that are old,
marks, timers, doubts about stored requests. Nothing on a request's way waits for it.
"""
GIVEN_AWAY_S: Final = 0.5
"""Control has stored by then who owns its resources, and it reads that in a moment."""
STORE_S: Final = 2.0
"""One try to store a request. It is tried until it is stored."""
SLEPT_S: Final = 2.0
"""An event loop that was away for so long may have missed what operators have paused. Twice a tick, which wakes an idle one."""
SENT_BEFORE_S: Final = 2.0
"""A stored request was sent at most so long before (doubt.py), and may have been begun since."""
_NO_CHECKPOINTS: Final[Mapping[str, FoundCheckpoint]] = {}
"""Nothing found: each resource begins where its part of the log does."""
_SERVING: Final = frozenset({HeldState.TAKING, HeldState.SERVING, HeldState.PAUSED})
"""The log gives it to this writer, though it may not be shut in yet."""
_SAID: Final = {Why.BUSY: Answer.BUSY, Why.MOVED: Answer.MOVED, Why.LATE: Answer.LATE}
"""What the caller of a dropped request is told. One whose caller has ended it (`Why.ENDED`) is told nothing."""


class TurnHost:
    """One run of an instance of a service, for as long as it has one writer. After `stop`, or after its writer had
    to end, it serves nothing any more, and what begins anew has another one, with another writer.

    All of it runs on one event loop. Heartbeats read counts from another thread (`held_counts`, `requests_done`,
    `serving`): for these, what is iterated is copied first.

    Three views of a resource differ for a moment, on purpose: `writer.held` follows the log, `serving` is what
    callers and callbacks were told, `_expected` is what control was asked for and is not followed yet.
    """

    _awake_s = math.inf
    """When its event loop was last seen to run."""

    def __init__(
        self,
        name: str,
        *,
        runner: Runner,
        log_: WriterLog,
        sent: Sent,
        reads: ReadsIn,
        isolation: Isolation,
        requests: RequestLog,
        letters: Letters,
        events: Appender[Emitted],
        connected: Connected,
        ends_kept_s: float,
        service: Service,
        on_copied: Callable[[str], None],
        on_behind: Callable[[str], None],
        deliveries: Deliveries | None = None,
        unsent_s: float = UNSENT_S,
        outcomes_kept_s: float = OUTCOMES_KEPT_S,
        log_id: str = "",
        batched: bool = False,
        recorder: Recorder = NO_RECORDER,
    ) -> None:
        """`name` is the writer's, `log_id` its log's. `on_copied` is told that another process has this one's identity,
        `on_behind` that something is missing in what was read: it has to begin anew. Nothing is served any more then.
        """
        self.writer = Writer(
            name,
            self._compute,
            ends_kept_s=ends_kept_s,
            expire=self._expire,
            outcomes_kept_s=outcomes_kept_s,
            batched=batched,
            log=log_id,
        )
        self._runner = runner
        self._recorder = recorder
        self._log = log_
        self._sent = sent
        self._requests, self._letters = requests, letters
        self._connected = connected
        self._on_copied = on_copied
        self._on_behind = on_behind
        self.on_unreadable: Callable[[str], None] = lambda resource: None
        """Told of each resource whose state is not known here any more."""
        self.on_unknown: Callable[[list[str]], None] = lambda resources: None
        """Told what the log gives to this writer and it does not hold."""
        self._service = service
        self.aside = Aside(name)
        """Runs work in a task of its own, until `stop`."""
        self.deliveries = deliveries or Deliveries()
        self._runs = Running(
            self.writer,
            runner=runner,
            isolation=isolation,
            log_=log_,
            letters=letters,
            deliveries=self.deliveries,
            soon=self._soon,
            aside=self.aside,
        )
        self._roles = Roles(self.writer, service, runner.instance_id, self._soon)
        self.reads = Reads(
            self.writer,
            service=service,
            runner=runner,
            port=reads,
            log_=log_,
            log_id=log_id,
            aside=self.aside,
            recorder=recorder,
            may_write=lambda: self.may_write,
        )
        self.emitter = Emitter(
            events,
            is_wanted=self._has_to_send,
            on_sent=self._is_sent,
            aside=self.aside,
            together=batched,
        )
        self._sender = Sender(
            requests,
            letters,
            self.emitter,
            is_wanted=self._has_to_send,
            on_sent=self._is_sent,
            aside=self.aside,
            unsent_s=unsent_s,
        )
        self._firing = Firing(
            self.writer,
            instance_id=runner.instance_id,
            recorder=recorder,
            accept=self._accept_timer,
            soon=self._soon,
        )
        self._lookups = Lookups(log_, position=lambda: self.writer.position, aside=self.aside)
        self._elsewhere = Elsewhere(self._lookups, self.aside)
        self._claims = Claims(name)
        self.writer.is_claimed = False
        self._claiming: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._is_due = self._stopped = False
        # `_is_due`: `_act` is scheduled for this turn of the loop. `_stopped` never falls back.
        self._alone: set[str] = set()
        """Requests whose turn has no other outcome: the server republishes it to their callers, and nothing else is
        sent. It holds an id from the storing of its entry to its answer or its drop. One that is stored again
        beside others leaves it.
        """
        self._of_group: list[Write] = []
        """Outcomes of the group without an answer: no gate holds them back, should the new connection bring another log."""
        self._stored_to = 0
        """The place in the request stream that was read last."""
        self.on_moved: Callable[[list[str], list[str]], None] = lambda serving, left: None
        """Told what is served from now on, and what no longer."""
        self._expected: set[str] = set()
        """Resources that are not held yet, and will be. What is stored for them meanwhile is kept elsewhere."""
        self._unreadable: set[str] = set()
        """Resources whose state is not known here any more."""
        self.taps: list[Tap] = []
        """Folds that read beside this one (further.py), told of each entry after it was folded here."""
        self._changed = asyncio.Event()
        # Set whenever `until` may have another answer: after each `_act`, and after each gate.
        log_.on_stored, log_.on_refused = self._stored, self._refused
        log_.on_taken, log_.on_clashed = self._taken, self._clashed
        sent.on_request, sent.on_cancel = self._request, self._cancel
        sent.on_asked = self._has_in_hand

    def follow(
        self,
        resources: Iterable[str],
        checkpoints: Mapping[str, FoundCheckpoint] = _NO_CHECKPOINTS,
        *,
        fold: Writer | None = None,
        after: int = 0,
    ) -> int:
        """Hold them as their checkpoints have them; the log is to be read from behind where it returns. `fold`: it
        holds them. `after`: where the log's part of those without a checkpoint begins.

        A checkpoint that can't be read concerns its own resource alone: this instance stands back from it, and
        follows the others.
        """
        fold = fold or self.writer
        for resource in resources:
            found = checkpoints.get(resource, (None, 0.0))
            try:
                if isinstance(found, ValueError):
                    raise found
                fold.restore(resource, found[0], saved_s=found[1], after=after)
            except ValueError as error:
                fold.restore_unreadable(resource)
                self._stand_back(resource, f"its checkpoint: {error}")
        return fold.position

    async def start(self) -> None:
        """What it reads counts from now on, and its claim is on its way. Returns before that is stored, so before
        anything is served: `may_write` tells when. Its readers have started (serving.py). Raises: StoreUnreachable.
        """
        await self._log.open()
        # The server's max_payload bounds a turn, and may be another one after the next connection.
        self.writer.turn_bytes_max = self._log.turn_bytes_max
        self._claim()
        self._loop.call_later(TICK_S, self._tick)

    def begin_group(self, source: GroupSource) -> None:
        """Its requests are taken from now on. Raises: StoreUnreachable, when the connection is closed."""
        self.deliveries.begin(source)
        self._sent.serve_group(self._runner.instance_id)

    async def stop(self) -> None:
        """At once; what is under way ends elsewhere. Safe twice."""
        self._end()
        self.aside.stop()
        self._runs.stop()
        self._roles.stop()
        await self.deliveries.stop()
        await self._runner.stop()

    async def leave_group(self) -> None:
        """Take nothing more of the group's; returns when all that was taken has ended, however long that takes: who
        calls has a deadline.

        Draining is set first. So a member that is asked meanwhile answers `moved`, and its caller goes to another
        one.
        """
        self._roles.is_draining = True
        await self.deliveries.retire()
        await self.until(lambda: not self._has_of_group)

    async def leave(self) -> None:
        """Its resources are given away: who sends to it all the same is told so, until nothing more can come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVEN_AWAY_S):
                await self.until(lambda: not self.serving or self._stopped)
        self._sent.leave_all()
        await self._sent.settle()

    @property
    def _has_of_group(self) -> bool:
        of_group = (work.request.resource is None for work in self.writer.desk.open.values())
        return bool(self.deliveries) or any(of_group)

    async def until(self, true: Callable[[], bool]) -> None:
        """Return when `true` of what is served and read. It is asked again after each step of the host, so it has
        to be cheap, and it must become true of a host that was stopped, or the caller has a deadline.
        """
        while not true():
            self._changed.clear()
            await self._changed.wait()

    async def pause(self, resources: Collection[str] | None, *, lease_s: float) -> bool:
        """Begin nothing new on them (None: on all, for good); returns when nothing of them is under way.

        Those that are named go on by themselves after `lease_s`, unless they belong to another by then. False: one of them
        went on before this ended.
        """
        await self.until(self._roles.pause(resources, lease_s=lease_s))
        return all(map(self._roles.holds, resources or ()))

    def resume(self, resources: Iterable[str] | None = None) -> None:
        """End the pauses of these (None: of all) before their time. What this instance gives up (`release`) stays
        paused.
        """
        self._roles.resume(resources)

    # --- resources that come and go ----------------------------------------------------------------------------
    def expect(self, resources: Iterable[str]) -> None:
        """They are about to be followed: what is stored for them from now on is kept."""
        self._expected.update(resources)

    def unexpect(self, resources: Iterable[str]) -> None:
        """They are followed by now, or do not come after all."""
        for name in resources:
            self._expected.discard(name)
            if name not in self.writer.held:
                self._elsewhere.take(name)
        self._changed.set()

    def is_expected(self, resource: str) -> bool:
        """Whether it was announced by `expect`, and neither came nor was called off."""
        return resource in self._expected

    @property
    def stored_to(self) -> int:
        """The place in the request stream that was read last."""
        return self._stored_to

    async def release(self, resources: Iterable[str]) -> None:
        """Begin nothing new on them, until they are another's or `keep`; returns when nothing of them is under way."""
        await self.until(self._roles.leave(resources))

    def keep(self, resources: Iterable[str]) -> None:
        """They are not given up after all: what `release` held back goes on."""
        self._roles.stay(resources)

    async def forget(self, resources: Collection[str], *, after: int) -> None:
        """Follow them no more, when the log is read up to `after`, and all that was begun with them is settled.

        Those that are to be kept again meanwhile stay.
        """
        await self.until(lambda: self.writer.position >= after or self._stopped)
        left = set(resources)

        def are_gone() -> bool:
            left.intersection_update(self._roles.leaving)
            not_served = left - self._roles.serving  # as those know who were told
            for name in [name for name in not_served if self.writer.forget(name)]:
                left.discard(name)
                self._roles.leaving.discard(name)
                self._elsewhere.take(name)
                self._unreadable.discard(name)
            self.reads.follow()
            return not left or self._stopped

        await self.until(are_gone)

    @property
    def serving(self) -> Set[str]:
        """What callers may send to here: the log gives it to this writer, all owners before are shut out, and
        callers were told. It is the live set: who keeps it copies it.
        """
        return self._roles.serving

    @property
    def paused(self) -> Collection[str]:
        """About to be given away."""
        return self._roles.paused

    @property
    def holds_number(self) -> int:
        """The newest ownership entry of which it knows what is paused."""
        return self.writer.holding.number

    def held_counts(self) -> tuple[int, int]:
        """Requests to what operators have paused: how many have begun and have no outcome yet, and how many wait."""
        if not self.writer.holding.holds:
            return 0, 0
        return self.writer.holding.counts(list(self.writer.desk.open.values()))

    @property
    def has_stopped(self) -> bool:
        """Nothing is served any more, for good: by `stop`, by a copy, or since it has to begin anew."""
        return self._stopped

    @property
    def hand_ins(self) -> int:
        """What handlers handed in or emitted and is not sent yet."""
        return self._sender.waiting + self.emitter.waiting

    @property
    def timers_open(self) -> int:
        """Timers of what is served here."""
        return self.writer.timers_open

    @property
    def may_write(self) -> bool:
        """It has read its own claim, on the connection that it has now; so it has read all before that, too."""
        return self._claims.may_write(self._connected.session)

    @property
    def unreadable_count(self) -> int:
        """How many of its resources it stands back from, since their state can't be told here."""
        return len(self._unreadable)

    @property
    def requests_done(self) -> int:
        """Up to here, each stored request to a resource that is held here has an outcome."""
        return min([seq - 1 for seq in self.waits_from().values()], default=self._stored_to)

    def requests_done_of(self, resource: str, waits_from: Mapping[str, int]) -> int:
        """The same of one resource."""
        return waits_from.get(resource, self._stored_to + 1) - 1

    def waits_from(self) -> dict[str, int]:
        """For each resource with a stored request that has no outcome, the first one."""
        open_here = (
            (work.request, work.stored_seq) for work in list(self.writer.desk.open.values())
        )
        elsewhere = ((kept.request, kept.seq) for kept in self._elsewhere)
        found: dict[str, int] = {}
        for request, seq in itertools.chain(elsewhere, open_here):
            if seq:
                resource = request.resource or ""
                found[resource] = min(seq, found.get(resource, seq))
        return found

    # --- what comes in ----------------------------------------------------------------------------------------
    def _request(self, request: Request, sent_s: float, after: int) -> None:
        if request.resource is None and (answer := self._refusal(request)) is not None:
            self._sent.refuse(request.request_id, answer)
            return
        sent_s = sent_s or time.time()
        self._accept(request, sent_s=sent_s, after=after, born_s=sent_s)

    def _refusal(self, request: Request) -> Answer | None:
        """Why a request of the group is for another member: None, if it is accepted here. MOVED sends it on
        immediately, BUSY has it stored, and so spread by the broker's credit.
        """
        if self._roles.is_draining or self._runner.lacks(request):
            return Answer.MOVED
        return Answer.BUSY if self._is_full(request) else None

    def _is_full(self, request: Request) -> bool:
        """Too many wait here: another instance may have it, or this one later."""
        return self._runs.away >= AWAY_MAX and not is_nested(request.request_id)

    def group_delivery(self, delivery: Delivery) -> None:
        """A group request that its caller had stored, and that the server gives to this instance."""
        request, arrival = delivery.request, delivery.arrival
        if arrival.delivered > 1:
            self._recorder.redelivered(request.service)
        if self._is_full(request):
            self.deliveries.hand_back(delivery, AWAY_DELAY_S)
        elif self._runner.lacks(request):
            self.deliveries.hand_back(delivery, LACKING_DELAY_S)
        elif self._waits_for_resume(delivery):
            self.deliveries.hand_back(delivery, PAUSED_DELAY_S)
        elif self.deliveries.take(delivery):
            if (subscription := self._runner.route(request)) is not None:
                self.aside(self._route(delivery, subscription))
            elif request.given_to in ("", self._runner.instance_id):
                self._accept_delivery(delivery, suspect=could_be_second(arrival))
            else:
                self.aside(self._take_over(delivery))

    def _waits_for_resume(self, delivery: Delivery) -> bool:
        """It is paused, and was submitted; or a member that is gone may have begun it."""
        request, holding = delivery.request, self.writer.holding
        is_kept = request.deadline_s is None or could_be_second(delivery.arrival)
        return bool(holding.holds) and is_kept and holding.covers(request)

    async def _route(self, delivery: Delivery, subscription: Subscription) -> None:
        """An event is sent again that could not be routed before."""
        request = delivery.request
        try:
            resource = resource_of(subscription, request.payload)
        except Unroutable as error:
            outcome = Outcome.error(OutcomeKind.FAILED, NOT_ROUTED, str(error))
            await keep_letter(self._letters, request, outcome)
        else:
            await self._keep_until_stored(replace(request, resource=resource))
        self.deliveries.acknowledge(request.request_id)

    def _accept_delivery(self, delivery: Delivery, *, suspect: bool) -> None:
        seq = delivery.arrival.stream_seq
        self._accept(delivery.request, sent_s=math.inf, stored_seq=seq, suspect=suspect)

    async def _take_over(self, delivery: Delivery) -> None:
        """Another member was sent it. If that one has it in hand, it is only slow; if it says nothing, it may have died of it."""
        request = delivery.request
        has = await self._sent.has_in_hand(request.given_to, request.request_id)
        if has:
            self.deliveries.give_up(request.request_id, later=True)
        else:
            delivery.request = replace(request, attempt=2)  # it may have an outcome by now
            suspect = has is None or could_be_second(delivery.arrival)
            self._accept_delivery(delivery, suspect=suspect)

    def _has_in_hand(self, request_id: str) -> bool:
        return request_id in self.writer.desk.open

    def stored_request(self, request: Request, seq: int, stored_s: float) -> None:
        """Its end outlives it in the log, so it may wait as long as it has to (R9)."""
        if request.not_before_s and request.resource is not None:
            request, stored_s = request.until_its_time(), math.inf  # no handler: nobody dies of it
        held = self.writer.held.get(request.resource or "")
        born_s = stored_s - SENT_BEFORE_S
        if held is None:
            if request.resource in self._expected:
                self._elsewhere.keep(request, seq, born_s, unsure=True)
            return
        if held.state in _SERVING and request.resource in self.serving:
            self._accept(request, sent_s=math.inf, stored_seq=seq, born_s=born_s)
            return  # before it is served, what was stored earlier waits elsewhere, and comes first
        # DONE: a second copy, or one whose stream was read again. UNKNOWN: no session tells (a key,
        # a child, a number below the window). Its outcome may stand before the checkpoint, so the
        # log is asked once, at the next tick.
        seen = held.sessions.seen(*split(request.request_id))
        if seen is Seen.DONE or self.writer.desk.known(request.request_id) is not None:
            return
        self._elsewhere.keep(request, seq, born_s, unsure=seen is Seen.UNKNOWN)

    def past_requests(self, seq: int) -> None:
        """Each stored request up to that place was given to `stored_request`, or is gone."""
        self._stored_to = max(self._stored_to, seq)
        self.writer.past_requests(seq)
        self._soon()

    def _accept(
        self,
        request: Request,
        *,
        sent_s: float,
        stored_seq: int = 0,
        after: int = 0,
        born_s: float = math.inf,
        suspect: bool = False,
        timer: str = "",
    ) -> None:
        """Hand a request to the writer. `sent_s`, `born_s`: Unix time; `math.inf` for what can't be too old (R9),
        or can't have been begun elsewhere. `stored_seq`: its place in the stream, 0 for one that was only sent.
        `after`: the place that comes first (G7).
        """
        work = Work(
            request,
            sent_s=sent_s,
            pure=self._runner.is_pure(request) or request.waits is not None,
            urgent=self._runner.is_urgent(request),
            single=is_single(request.request_id),
            stored_seq=stored_seq,
            after=after,
            born_s=born_s,
            suspect=suspect,
            timer=timer,
        )
        work.came_s = time.perf_counter()
        self.writer.accept(work)
        self._soon()

    def _accept_timer(self, request: Request, timer: Timer) -> None:
        """Another owner may have begun it since it was due, by clocks that differ."""
        born_s = timer.due_s - SENT_BEFORE_S
        self._accept(request, sent_s=math.inf, born_s=born_s, timer=timer.name)

    def _cancel(self, request_id: str) -> None:
        """Its caller asks politely. The writer ends it if it has not begun, and the caller hears the stored
        outcome.
        """
        outcome = Outcome.error(OutcomeKind.CANCELLED, Cancelled.code, "its caller gave up")
        self.writer.cancel(request_id, outcome)
        self._soon()

    def entry(self, entry: Entry | Claim) -> None:
        """The next one of the log, in its order and without a gap. What shows a gap ends this writer: a state that
        misses an entry must not answer anybody (G6). The checkpoints have what was trimmed, so the instance begins
        anew from them.
        """
        if self._stopped:
            return
        try:
            self._read(entry)
        except (MissingOwnership, BehindTrim, ValueError) as error:
            self._halt(f"entry {entry.seq} of the log: {error}", self._on_behind)
        self._soon()

    def adopt(self, fold: Writer) -> None:
        """Serve and follow what that one holds, too, which has read just as far."""
        self.writer.adopt(fold)
        self.reads.follow()
        self._soon()

    def _read(self, entry: Entry | Claim) -> None:
        if isinstance(entry, Claim):
            if why := self._claims.read_claim(entry.writer, entry.nonce):
                self._halt(why, self._on_copied)
            return
        self.writer.read(entry)
        if self.taps:
            for tap in tuple(self.taps):
                tap.folded(entry)
        if isinstance(entry, Gate):
            # Any writer's gate wakes those who wait in `until`; only the own one can complete the
            # claim.
            self._claims.read_gate(entry.writer)
            self.writer.is_claimed = self._claims.is_claimed
            if entry.writer == self.writer.name:
                self.reads.follow()
            self._changed.set()
        elif self._elsewhere and isinstance(entry, Turn):
            for settled in entry.settled:
                self._elsewhere.forget(settled.resource, settled.request_id)
        elif self._elsewhere and isinstance(entry, End):
            self._elsewhere.forget(entry.resource, entry.request_id)

    def unreadable(self, seq: int, why: str, words: Sequence[str]) -> None:
        """An entry of the log can't be read."""
        self.stand_back(self.writer, seq, why, words)
        for tap in tuple(self.taps):
            tap.not_folded(seq, why, words)

    def stand_back(self, fold: Writer, seq: int, why: str, words: Sequence[str]) -> None:
        """`fold` can't read that entry: somebody who can read it has to serve what it concerns. What it does not
        concern goes on here. A resource stays so until it is forgotten here: later entries build on one that is
        missing.
        """
        for resource in fold.read_unreadable(seq, words):
            self._stand_back(resource, f"entry {seq}: {why}")
        self._soon()

    def _stand_back(self, resource: str, why: str) -> None:
        if resource in self._unreadable:
            return
        log.error(
            "resource_unreadable",
            service=self._service.name,
            resource=resource,
            instance_id=self._runner.instance_id,
            reason=f"{why}; run the version that wrote it, or remove that message",
        )
        self._unreadable.add(resource)
        self.reads.follow()
        self.on_unreadable(resource)

    def restored(self) -> None:
        """There is a new connection. Of what was on its way on the old one, nobody will say any more what became of
        it.

        A turn counts as refused: the claim brings a newer gate, and when that is read it is known whether the turn
        stands before it. A group's outcome has no gate. It is stored again once the new claim was read, for the new
        server may hold another log.
        """
        self.writer.turn_bytes_max = self._log.turn_bytes_max
        for write in self._log.forget_unanswered():
            if write.gate:  # the claim brings a newer one
                self.writer.refused(write)
            else:
                self._of_group.append(write)
        self._claim()
        self._announce(self.serving)  # what was sent meanwhile is lost

    # --- what became of entries ---------------------------------------------------------------------------------
    def _stored(self, write: Write, at_s: float) -> None:
        """`write` is in the log since `at_s` (Unix time). Under a gate it also proves that nobody had replaced this
        writer when it was begun.
        """
        if write.k:
            self._recorder.turn_stored(self._service.name, len(write.works))
        if write.gate:
            self.reads.stored(write.begun_s, write.seq)
        self.writer.stored(write, at_s)
        self._soon()

    def _refused(self, write: Write) -> None:
        """The gate that it named is not the newest one any more: nothing is computed until the newer one is read
        (R7).
        """
        log.debug("turn_refused", service=self._service.name, writer=self.writer.name)
        self.writer.refused(write)
        self._soon()

    def _taken(self, write: Write) -> None:
        """A turn that is in the log already comes from there, ours or another's (R10)."""
        if not write.k:
            self.aside(self._who_was_first(write))

    def _clashed(self, write: Write) -> None:
        """An atomic batch holds a single whose subject is taken. The server does not say which one: the writer asks
        the log for each.
        """
        self.writer.clashed(write)
        self._soon()

    async def _who_was_first(self, write: Write) -> None:
        """The subject of a single is taken: by an earlier try of ours, which the reader brings, or for good."""
        (work,) = write.works
        found = await self._look(work.request)
        if found is None and work.request.resource is None:
            self._store(write)  # it was removed meanwhile
        elif found is not None and (work.request.resource is None or found != work.outcome):
            self.writer.taken(write, found)
            self._soon()

    # --- acting ---------------------------------------------------------------------------------------------------
    def _soon(self) -> None:
        """Have the writer compose once, after all that this turn of the loop brings. Calls in between cost nothing."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._act)

    def _act(self) -> None:
        self._is_due = False
        if self._stopped:
            return
        if self.writer.desk.out.serving:
            self._roles.hold_back(self.writer.desk.out.serving)
        # Before anything else: what follows begins handlers, and a process that slept must not.
        self._doubt_after_sleep()
        self.reads.go_on()  # before a next turn is in flight
        if self.may_write:
            now_s = time.time()
            self._store_of_group()
            self._firing.fire(now_s)
            self.writer.compose(now_s)
        out = self.writer.take_output()
        self._changed.set()  # something may have ended
        if out.stop:
            self._halt(out.stop, self._on_copied)
        else:
            self._execute(out)
            self._log.push()

    def _doubt_after_sleep(self) -> None:
        """A process that slept begins nothing before it has read all that came meanwhile: a claim of its own tells it that."""
        now_s = time.monotonic()
        slept_s, self._awake_s = now_s - self._awake_s, now_s
        if slept_s > SLEPT_S and self.may_write:
            log.warning("writer_slept", writer=self.writer.name, duration_s=round(slept_s, 3))
            self._claims.doubt()
            self._claim()

    def _execute(self, out: Output) -> None:
        for writer in out.shut_out:
            self.aside(self._shut_out(writer))
        for write in out.store:
            self._store(write)
        for work in out.answer:
            self._answer(work)
        for work in out.run:
            self._runs.begin(work)
        for work in out.noted:
            self._runs.noted(work)
        for work in out.cancel:
            self._runs.cancel(work)
        for work in out.look_up:
            self.aside(self._look_up(work))
        for work in out.keep:
            self.aside(self._keep_in_stream(work))
        for work in out.dropped:
            self._dropped(work)
        for save in out.save:
            self.aside(self._save(save))
        self._sender.send(out.send)
        if out.unknown:
            self.on_unknown(out.unknown)
        if out.serving or out.left:
            self._moved(out)

    def _store_of_group(self) -> None:
        writes, self._of_group = self._of_group, []
        for write in writes:
            self._store(write)

    def _compute(self, request: Request, values: Any, epoch: int) -> Outcome:
        return self._runs.compute(request, values, epoch)

    def _expire(self, request: Request, epoch: int) -> Outcome:
        return self._runner.expire(request, epoch=epoch)

    def _store(self, write: Write) -> None:
        """Hand an entry to the log, which tells what became of it however many tries it takes. `begun_s` is that of
        the first try: as a proof it may only be too early.
        """
        write.begun_s = write.begun_s or time.monotonic()
        answers = self._log.store(write)
        if answers:
            self._alone.add(write.works[0].request.request_id)
        elif self._alone:
            self._alone.difference_update(work.request.request_id for work in write.works)

    def _answer(self, work: Work) -> None:
        """Its outcome is stored: tell its caller, the broker, the metrics. Nobody is told before that (R8)."""
        request, outcome = work.request, work.outcome
        assert outcome is not None
        if request.resource is None:
            self.deliveries.acknowledge(request.request_id)
        if request.request_id in self._alone:
            self._alone.discard(request.request_id)
        else:
            if request.resource is not None:
                outcome.position = self.reads.position
            self._sent.answer(request.request_id, outcome)
        self._runs.stored(work, outcome)
        if work.timer:
            self._firing.ended(work, outcome)
        if work.found:
            self._recorder.suppressed(request.service)
            log.info("duplicate_suppressed", **about(request), instance_id=self._runner.instance_id)
        # What only makes a timer of a submitted request is nobody's request: it is not counted.
        elif request.waits is None:
            self._recorder.settled(
                request,
                outcome,
                wait_s=work.began_s - work.came_s if work.began_s else None,
                process_s=work.ready_s - work.began_s,
                commit_s=time.perf_counter() - work.ready_s,
            )

    def _dropped(self, work: Work) -> None:
        """Nothing of it was stored here, and nothing will be. What happens to it depends on who still has it: a
        timer fires again, the broker delivers the group's again, the caller of a sent one is told and sends it
        elsewhere. A stored one is only here to lose: it is kept for its next owner, or, when the resource is still
        served here, accepted once more.
        """
        request, why = work.request, work.why
        self._alone.discard(request.request_id)
        if why is Why.MOVED and work.began_s:  # whatever comes of it can't be stored any more
            self._recorder.fenced(self._service.name)
            log.warning(
                "commit_fenced",
                **about(request),
                instance_id=self._runner.instance_id,
                epoch=work.epoch,
            )
        self._runs.dropped(work)
        if work.timer:
            self.writer.unfired(work)
            return
        if self.deliveries.give_up(request.request_id) or why is None or why is Why.ENDED:
            return
        if not work.stored_seq:
            self._sent.refuse(request.request_id, _SAID[why])
        elif why is Why.MOVED and request.resource not in self.serving:
            self._elsewhere.keep(request, work.stored_seq, work.born_s)
        else:
            self._accept(request, sent_s=math.inf, stored_seq=work.stored_seq, born_s=work.born_s)

    def _moved(self, out: Output) -> None:
        """What is served, and what no longer, as the log has it by now. In this order: what left is left before
        anything is promoted, and what is stored is accepted before callers may send.
        """
        self._sent.leave(out.left)
        self._roles.demoted(out.left)
        self._roles.promoted(out.serving)
        for resource in out.serving:  # what is stored comes before what is sent from now on (G7)
            for request, seq, born_s in self._elsewhere.take(resource):
                self._accept(request, sent_s=math.inf, stored_seq=seq, born_s=born_s)
        self._sent.serve(out.serving)
        self.reads.moved(out.serving, out.left)
        self._roles.serving.update(out.serving)
        self._announce(out.serving)
        self._changed.set()
        self.on_moved(list(out.serving), out.left)

    def withdraw(self) -> None:
        """After `stop`, when it has to begin anew: what was served here is not any more."""
        self._roles.withdraw()

    def _has_to_send(self, sending: Sending) -> bool:
        """Whether this instance still has to send what an outcome handed in. A group's outcome has no next owner
        (domain/turns/group.py).
        """
        return sending.work is not None or sending.resource in self.serving

    def _is_sent(self, sending: Sending) -> None:
        self.writer.sent(sending)
        self._soon()

    def _announce(self, resources: Collection[str]) -> None:
        """Callers have requests in hand that nobody answers."""
        if resources:
            self._sent.announce(self._runner.instance_id, resources)

    # --- the log, aside -----------------------------------------------------------------------------------------------
    def _claim(self) -> None:
        """A new claim for the connection that there is now. Nothing is written until it and a gate behind it are
        read (R10).
        """
        if self._claiming is not None:
            self._claiming.cancel()
        self.writer.is_claimed = False  # whatever is read next may be a copy's
        self._claiming = self.aside(self._store_claim())

    async def _store_claim(self) -> None:
        """Until both are stored. Each try has a nonce of its own: of one whose answer was lost, nobody knows where
        it stands.
        """
        for n in itertools.count(1):
            session, nonce = self._connected.session, secrets.token_hex(8)
            self._claims.begin(nonce, session)
            self.writer.is_claimed = False
            try:
                await self._log.claim(nonce)
                await self._log.gate(self.writer.name)
                self._recorder.gate("claimed")
                return
            except StoreError as error:
                log.debug("claim_not_stored", writer=self.writer.name, error=str(error))
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))

    async def _shut_out(self, writer: str) -> None:
        """Store a gate of `writer`, until one is: an owner that comes later waits for it (R4). One too many does no
        harm.
        """
        for n in itertools.count(1):
            try:
                await self._log.gate(writer)
                self._recorder.gate("own" if writer == self.writer.name else "taken_over")
                return
            except StoreError as error:
                log.debug("gate_not_stored", writer=writer, error=str(error))
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))

    async def _save(self, save: Save) -> None:
        """By one try: a late copy would replace a newer one."""
        try:
            await self._log.save(save)
        except (GateRefused, StoreTooLarge) as error:
            log.info("checkpoint_not_stored", resource=save.checkpoint.resource, error=str(error))
            self.writer.save_refused(save)
        except StoreError:
            self.writer.save_lost(save)
        else:
            self.writer.saved(save, time.time())
        self._soon()

    async def _keep_in_stream(self, work: Work) -> None:
        """A group's request that hands something in is stored before its outcome is."""
        accepted = await self._keep_until_stored(work.request)
        self.writer.kept(work, accepted.seq)
        self._soon()

    async def _keep_until_stored(self, request: Request) -> Accepted:
        """Where the request stream has it. Tried without end: its outcome can't be stored, or its event can't be
        acknowledged, before.
        """
        for n in itertools.count(1):
            try:
                return await self._requests.append(request, timeout_s=STORE_S)
            except StoreError as error:
                log.debug("request_not_stored", **about(request), error=str(error))
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
        raise AssertionError("it counts for ever")

    async def _look_up(self, work: Work) -> None:
        """One doubt of the writer. The answer is good for what was read when it was asked; the writer knows what
        came later.
        """
        self.writer.looked_up(work, await self._look(work.request))
        self._soon()

    async def _look(self, request: Request) -> Outcome | None:
        """In all that this writer has read so far; whatever comes later it knows. What the group has it does not read."""
        request_id = request.request_id
        if request.resource is None:
            return await until_answered(lambda: self._log.find_of_group(request_id))
        return await self._lookups.find(request_id)

    # --- the end ----------------------------------------------------------------------------------------------------------
    def _tick(self) -> None:
        if not self._stopped:
            self.writer.tick(time.time())
            self._elsewhere.look_up_unsure()
            self._soon()
            self._loop.call_later(TICK_S, self._tick)

    def _halt(self, why: str, tell: Callable[[str], None]) -> None:
        """It must not go on. `tell` says so to the instance, once: it begins anew with another writer, or ends."""
        if not self._stopped:
            log.critical("writer_stopped", writer=self.writer.name, reason=why)
            self._end()
            tell(why)

    def _end(self) -> None:
        """Nothing comes in and nothing is composed any more. Entries on their way may still be stored: that is a
        crash, in small.
        """
        if self._stopped:
            return
        self._stopped = True
        self._firing.stop()
        self._sent.leave_all()
        self.reads.stop()
        self._log.close()
        self._roles.end()
        self._changed.set()
