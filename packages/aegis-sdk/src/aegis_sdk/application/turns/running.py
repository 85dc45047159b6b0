"""Runs handlers for a writer: computes what is pure at once, starts what waits, and feeds back their outcomes.

A run that needs more takes a task of its own: a suspect, whose begin is noted first; one that must be alone; one
that is traced until its outcome is stored. A request that was begun too often is given up here, with a dead letter.

Theory of operation. Most runs need no task but the handler's own: `begin` starts it, and its end calls back. That
is the path of each ordinary request, so it pays for none of the rest. The rest is one coroutine, `_run_aside`,
whose steps are in the order of domain/turns/begins.py: look how often it was begun, note this begin, wait for
quiet, run.

What must stay true:
- Each work in `_running` ends in one of two ways: its outcome is given to the writer, or it is dropped, by
  `cancel`. The writer cancels what it drops, so an outcome that comes later than that is for nobody.
- A suspect's handler begins when its note is stored, never before. A process that dies in between leaves a begin
  that was counted and not made: a request may be given up one begin early, and never goes on killing for ever.
- The dead letter comes before the outcome. A crash between the two leaves a request that runs, or is given up,
  again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from pydantic_core import from_json

from aegis_sdk.application.handlers import Execution, Runner
from aegis_sdk.application.isolation import ALONE_S_MAX, Isolation
from aegis_sdk.application.letters import keep_letter, why_given_up
from aegis_sdk.application.outcomes import is_missed, too_large, until_its_time
from aegis_sdk.application.patience import until_answered
from aegis_sdk.application.place import NOTHING, Holder
from aegis_sdk.application.ports import Letters
from aegis_sdk.application.tracing import NO_SPAN, Span
from aegis_sdk.application.turns.deliveries import Deliveries, GroupPlace
from aegis_sdk.application.turns.ports import WriterLog
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.turns.timers import NO_TIMERS, Timer
from aegis_sdk.domain.delivery import Verdict
from aegis_sdk.domain.turns.ahead import Ahead
from aegis_sdk.domain.turns.begins import decide
from aegis_sdk.domain.turns.work import Work
from aegis_sdk.domain.turns.writer import Writer
from aegis_sdk.telemetry import about, log


class Running:
    """Of one instance, from its start to `stop`. `soon` has the writer compose; `aside` runs what takes a task of
    its own.

    A pure handler is computed by `compute`, in the step in which the writer composes: it may run again, so it must
    not be counted as running, and has nothing to be dropped. All others come by `begin`, once for each begin.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        runner: Runner,
        isolation: Isolation,
        log_: WriterLog,
        letters: Letters,
        deliveries: Deliveries,
        soon: Callable[[], None],
        aside: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._writer = writer
        self._runner = runner
        self._isolation = isolation
        self._log = log_
        self._letters = letters
        self._deliveries = deliveries
        self._soon = soon
        self._aside = aside
        self._loop = asyncio.get_running_loop()
        self._running: dict[Work, Callable[[], object]] = {}
        """What drops each. Its handler may go on for a while; its outcome is nobody's by then."""
        self._spans: dict[Work, asyncio.Future[Outcome]] = {}
        """Runs whose span ends when their outcome is stored."""
        self._noted: dict[Work, asyncio.Future[None]] = {}
        """Runs that begin when that is in the log."""
        self.away = 0
        """Clients' requests to the group whose handlers wait for others."""

    # --- what became of it --------------------------------------------------------------------------------------
    def noted(self, work: Work) -> None:
        """That it is begun is in the log."""
        if (noted := self._noted.pop(work, None)) is not None:
            noted.set_result(None)

    def cancel(self, work: Work) -> None:
        """Its outcome can't count any more: the resource moved, or its caller gave up."""
        if (drop := self._running.pop(work, None)) is not None:
            drop()

    def stored(self, work: Work, outcome: Outcome) -> None:
        """Its outcome is in the log: a run that is traced until then ends."""
        if work in self._spans:
            self._spans.pop(work).set_result(outcome)

    def dropped(self, work: Work) -> None:
        """Nothing of it will be stored here."""
        if work in self._spans:
            self._spans.pop(work).cancel()

    def stop(self) -> None:
        """Drop all. What they would have answered is run by the next owner."""
        for drop in list(self._running.values()):
            drop()
        self._running.clear()

    # --- runs ---------------------------------------------------------------------------------------------------
    def compute(self, request: Request, values: Any, epoch: int) -> Outcome:
        """The outcome of a pure handler, at once, on `values`, which may hold changes that are not stored yet.

        It is called while the writer composes, so it never waits and never raises. Its turn may be refused, and
        then it is called again with other values.
        """
        if request.waits is not None:
            count = len(self._timers_of(request, values))
            return self._runner.signed(request, until_its_time(request.waits, count), epoch)
        work = self._writer.desk.open[request.request_id]
        work.began_s = time.perf_counter()
        with self._runner.span(request, begun=work.begun, epoch=epoch) as span:
            timers = self._timers_of(request, values)
            outcome = self._runner.compute(request, epoch=epoch, values=values, timers=timers)
            outcome = self._fitting(request, outcome)
            if self._runner.ends_in_letter(request, outcome):
                self._aside(self._keep_unread(request, outcome))
            span.stored(outcome)
        work.ready_s = time.perf_counter()
        return outcome

    def begin(self, work: Work) -> None:
        """Start the handler of `work` on its resource's stored values. Its outcome comes later: by
        `Writer.computed`, never in this call.
        """
        request = work.request
        place: Holder = NOTHING
        if request.resource is None:
            place = GroupPlace(self._deliveries, request.request_id, moved=self._group_moved)
        epoch, values = self._state_of(request)
        timers = self._timers_of(request, values)
        work.epoch = epoch
        span = self._runner.span(request, begun=work.begun, epoch=epoch)
        is_plain = work.verdict is Verdict.RUN or work.verdict is Verdict.RUN_NOTED
        if (
            work.suspect
            or not is_plain
            or span is not NO_SPAN
            or not self._isolation.admits(request.request_id)
        ):
            task = self._aside(self._run_aside(work, place, span))
            self._running[work] = task.cancel
            return
        self._isolation.begun()
        work.began_s = time.perf_counter()
        execution = self._runner.start(
            request,
            partial(self._ran, work, place),
            begun=work.begun,
            epoch=epoch,
            values=values,
            timers=timers,
            credit=place,
        )
        self._running[work] = partial(self._drop_run, execution, place)

    def _state_of(self, request: Request) -> tuple[int, Mapping[str, Any] | None]:
        """Its resource's epoch and values."""
        resource = request.resource
        if resource is None:
            return 0, None
        return self._writer.ownership.epoch(resource), self._writer.held[resource].values

    def _timers_of(self, request: Request, values: Any) -> Mapping[str, Timer]:
        """Its resource's, as `values` are its values."""
        # Computed on changes that are not stored yet: its timers are ahead in the same way.
        if type(values) is Ahead:  # compiled, any mapping passes for an instance of it
            return values.timers
        held = self._writer.held.get(request.resource or "")
        return NO_TIMERS if held is None or held.timers is None else held.timers.by_name

    def _ran(self, work: Work, place: Holder, outcome: Outcome) -> None:
        """A plain run has ended. What an operator has to see is copied before its outcome is given to the writer."""
        work.ready_s = time.perf_counter()
        self._run_ended(place)
        if self._is_letter(work, outcome):
            self._running[work] = self._aside(self._end_unread(work, outcome)).cancel
            return
        self._running.pop(work, None)
        self._writer.computed(work, self._fitting(work.request, outcome))
        self._soon()

    async def _end_unread(self, work: Work, outcome: Outcome) -> None:
        await self._keep_unread(work.request, outcome)
        self._running.pop(work, None)
        self._writer.computed(work, outcome)
        self._soon()

    async def _keep_unread(self, request: Request, outcome: Outcome) -> None:
        """An operator can send it again: another version may be able to read it, and of an event nobody else is told."""
        await keep_letter(self._letters, request, outcome)
        self._tell_letter(request, outcome)

    def _drop_run(self, execution: Execution, place: Holder) -> None:
        execution.drop()
        self._run_ended(place)

    def _run_ended(self, place: Holder) -> None:
        self._isolation.ended()
        if isinstance(place, GroupPlace):
            place.end()

    async def _run_aside(self, work: Work, place: Holder, span: Span) -> None:
        """With what takes a task of its own: a suspect's note, its turn to be alone, a span that ends when all is stored."""
        request_id = work.request.request_id
        try:
            # The group's. A resource's suspects were judged by their owner's fold, and have their
            # verdict already.
            if work.suspect:
                await self._judge_again(work)
            if work.verdict is Verdict.GIVE_UP:
                self._writer.computed(work, await self._given_up(work))
            elif work.verdict is Verdict.RUN_ALONE:
                async with self._isolation.alone(request_id, place):
                    await self._run_alone(work, place, span)
            else:
                await self._isolation.admitted(request_id, place)
                with self._isolation:
                    await self._run_beside(work, place, span)
        finally:
            if isinstance(place, GroupPlace):
                place.end()
            self._running.pop(work, None)
            self._noted.pop(work, None)
            self._soon()

    async def _run_alone(self, work: Work, place: Holder, span: Span) -> None:
        """Nothing else runs by now. It is noted here, so that nobody else's death counts.

        The quiet is bounded on both sides (isolation.py): a handler that hangs is not what kills its process.
        """
        self._writer.is_quiet = True
        timer = self._loop.call_later(ALONE_S_MAX, self._be_loud)
        try:
            if work.request.resource is not None:
                self._noted[work] = noted = self._loop.create_future()
                self._writer.note(work)
                self._soon()
                await noted
            await self._run_beside(work, place, span)
        finally:
            timer.cancel()
            self._be_loud()

    def _be_loud(self) -> None:
        """Pure handlers may begin again, whether the suspect has ended or has had its time."""
        self._writer.is_quiet = False
        self._soon()

    async def _run_beside(self, work: Work, place: Holder, span: Span) -> None:
        """Run it, and with a span stay until the outcome is stored: the span tells how long that took. `stored` is
        cancelled when the work is dropped, and ends the task with it.
        """
        request = work.request
        epoch, values = self._state_of(request)
        work.began_s = time.perf_counter()
        with span:
            outcome = await self._runner.run(
                request,
                begun=work.begun,
                epoch=epoch,
                values=values,
                timers=self._timers_of(request, values),
                span=span,
                credit=place,
            )
            if self._is_letter(work, outcome):
                await self._keep_unread(request, outcome)
            work.ready_s = time.perf_counter()
            self._writer.computed(work, self._fitting(request, outcome))
            if span is not NO_SPAN:
                self._soon()
                self._spans[work] = stored = self._loop.create_future()
                span.stored(await stored)

    def _group_moved(self, running: int, away: int) -> None:
        """A group's handler began or ended a wait for others: the writer may begin more, or fewer."""
        self._writer.group.moved(running)
        self.away += away
        self._soon()

    async def _judge_again(self, work: Work) -> None:
        """The group's suspects: their begins are noted beside, since no owner folds them (begins.py)."""
        request_id = work.request.request_id
        decide(work, await until_answered(lambda: self._log.begins(request_id)))
        if work.verdict is not Verdict.GIVE_UP:
            n = work.begun - 1
            await until_answered(lambda: self._log.note_begin(request_id, n))

    async def _given_up(self, work: Work) -> Outcome:
        """The copy comes first: a crash between the two leaves a request that is given up again."""
        request = work.request
        epoch, replaced = 0, ""
        if request.resource is not None:
            epoch = self._writer.ownership.epoch(request.resource)
            replaced = self._writer.ownership.why(request.resource)
        outcome = Outcome.error(
            OutcomeKind.FAILED,
            "gave_up",
            why_given_up(request, work.begun, replaced),
            fingerprint=request.fingerprint,
            traceparent=request.traceparent,
            epoch=epoch,
            instance_id=self._runner.instance_id,
        )
        await keep_letter(self._letters, request, outcome)
        self._tell_letter(request, outcome, attempt=work.begun)
        return outcome

    def _is_letter(self, work: Work, outcome: Outcome) -> bool:
        """Whether an operator has to see it, and may send it again when another version can do it."""
        if outcome.kind is OutcomeKind.EXECUTED:
            return False
        return self._runner.ends_in_letter(work.request, outcome) or (
            bool(work.timer) and is_missed(outcome)
        )

    def _tell_letter(self, request: Request, outcome: Outcome, **more: int) -> None:
        log.error(
            "request_dead_lettered",
            **about(request),
            **more,
            instance_id=self._runner.instance_id,
            epoch=outcome.epoch,
            outcome=outcome.kind.value,
            error=from_json(outcome.body)["message"],
        )

    def _fitting(self, request: Request, outcome: Outcome) -> Outcome:
        """The outcome, or what is stored in its place when it is too large for an entry. That one has an outcome of
        its own: a request whose outcome nobody can store would come again and again.
        """
        size, limit = len(outcome.body) + len(outcome.change), self._log.outcome_bytes_max
        if len(outcome.change) > self._runner.large_change_bytes:
            self._runner.tell_large_change(request, len(outcome.change))
        if size <= limit:
            return outcome
        why = f"{size} bytes, and at most {limit} fit beside the rest in the server's max_payload"
        log.error("outcome_too_large", **about(request), outcome=outcome.kind.value, error=why)
        return too_large(outcome, f"{request.service}.{request.method}", why)
