"""Serves group requests: any instance may get any of them, again and again until one outcome is stored.

While a request is in hand its acknowledgement is extended; when this process dies the broker gives it
to another instance after `ack_wait`. The create-only commit makes two runs one effect (G2, G3).

Credit is for handlers at work. One that waits for an answer gives its credit back meanwhile (place.py), so the
request that it waits for is read, whatever is before it in the stream and however deep the calls go. What bounds
them: with `AWAY_MAX` clients' requests waiting here, further ones of clients go back to the broker for
a while, and only those that handlers made are begun.
"""

from __future__ import annotations

import asyncio
import time

from aegis_sdk.application.commit import commit, give_up, note_attempt
from aegis_sdk.application.following import until_answered
from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.ports import (
    Deliveries,
    Delivery,
    GroupSource,
    Journal,
    StoreError,
)
from aegis_sdk.application.turns.deliveries import (
    AWAY_DELAY_S,
    AWAY_MAX,
    CREDIT,
    EXTEND_S_MAX,
    SOON_S,
)
from aegis_sdk.contract.ids import is_nested
from aegis_sdk.domain.delivery import Verdict, could_be_second, judge, needs_lookup
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.telemetry import about, log


class _Credit:
    """That of one delivery; the Holder of its run's place (place.py)."""

    __slots__ = ("_counts", "_host", "is_given_back")

    def __init__(self, host: GroupHost, delivery: Delivery) -> None:
        self._host = host
        self._counts = not is_nested(delivery.request.request_id)
        self.is_given_back = False

    def leave(self) -> None:
        self.is_given_back = True
        self._host.away += self._counts
        self._host.credit_back()

    def come_back(self) -> None:
        self.is_given_back = False
        self._host.away -= self._counts
        self._host.credit_taken()

    def end(self) -> None:
        if self.is_given_back:
            self._host.away -= self._counts
        else:
            self._host.credit_back()


class GroupHost:
    """One instance's share of its service's group requests."""

    def __init__(
        self,
        service: str,
        *,
        runner: Runner,
        isolation: Isolation,
        journal: Journal,
        deliveries: Deliveries,
        ack_wait_s: float,
        credit: int = CREDIT,
        away_max: int = AWAY_MAX,
        recorder: Recorder = NO_RECORDER,
    ) -> None:
        self._service = service
        self._runner = runner
        self._isolation = isolation
        self._journal = journal
        self._deliveries = deliveries
        self._ack_wait_s = ack_wait_s
        self._credit = credit
        self._away_max = away_max
        self.away = 0
        """Clients' requests in hand that have given their credit back."""
        self._is_full = False
        self._recorder = recorder
        self._source: GroupSource | None = None
        self._in_hand: dict[asyncio.Task[None], tuple[Delivery, float]] = {}
        self._ids: set[str] = set()
        """Of the requests in hand."""
        self._extender: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._source = await until_answered(
            lambda: self._deliveries.open_group(
                self._service, credit=self._credit, on_delivery=self._take
            )
        )
        self._extender = asyncio.create_task(self._extend())

    async def drain(self, *, timeout_s: float) -> None:
        """Ask for nothing more and finish what was given to us, within `timeout_s`.

        What still comes is served, not handed back: the server would wait, and might deal it to us again.
        """
        give_up_s = time.monotonic() + timeout_s
        if self._source is not None:
            await self._source.retire()
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=max(0.0, give_up_s - time.monotonic()))
        late = [delivery for task, (delivery, _) in self._in_hand.items() if not task.done()]
        await self.stop()
        for delivery in late:
            delivery.hand_back(SOON_S)

    async def stop(self) -> None:
        """At once: what is in hand is delivered elsewhere after ack_wait."""
        if self._source is not None:
            await self._source.stop()
        if self._extender is not None:
            self._extender.cancel()
        for task in list(self._in_hand):
            task.cancel()

    def credit_back(self) -> None:
        if self._source is not None:
            self._source.finished()

    def credit_taken(self) -> None:
        if self._source is not None:
            self._source.resumed()

    def _take(self, delivery: Delivery) -> None:
        if self.away >= self._away_max and not is_nested(delivery.request.request_id):
            self._refuse(delivery)
            return
        if (request_id := delivery.request.request_id) in self._ids:
            # Its run blocked the loop, so nothing extended it: another begin would be counted as a death.
            delivery.hand_back(self._ack_wait_s)
            self.credit_back()
            return
        self._is_full = False
        self._ids.add(request_id)
        task = asyncio.create_task(self._serve(delivery))
        self._in_hand[task] = (delivery, time.monotonic())
        task.add_done_callback(self._done)

    def _refuse(self, delivery: Delivery) -> None:
        """Too many wait here: another instance may have it, or this one later."""
        delivery.hand_back(AWAY_DELAY_S)
        self.credit_back()
        if not self._is_full:
            log.warning("group_full", service=self._service, waiting=self.away)
        self._is_full = True

    def _done(self, task: asyncio.Task[None]) -> None:
        delivery, _ = self._in_hand.pop(task)
        self._ids.discard(delivery.request.request_id)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery_failed", service=self._service, exc_info=error)

    async def _serve(self, delivery: Delivery) -> None:
        if delivery.arrival.delivered > 1:
            self._recorder.redelivered(self._service)
        credit = _Credit(self, delivery)
        try:
            lookup = delivery.arrival.suspect or needs_lookup(delivery.request, delivery.arrival)
            if lookup and await self._answered(delivery):
                delivery.ack()
                return
            await self._run_judged(delivery, credit)
            delivery.ack()
        except StoreError as error:
            # No outcome of ours is stored: the broker delivers it again.
            log.warning(
                "delivery_returned",
                **about(delivery.request),
                instance_id=self._runner.instance_id,
                error_code=type(error).__name__,
            )
        finally:
            credit.end()

    async def _answered(self, delivery: Delivery) -> bool:
        request = delivery.request
        stored = await self._journal.outcome(request)
        if stored is not None:
            self._recorder.suppressed(self._service)
            log.info("duplicate_suppressed", **about(request), instance_id=self._runner.instance_id)
        return stored is not None

    async def _run_judged(self, delivery: Delivery, credit: _Credit) -> None:
        request = delivery.request
        second = could_be_second(delivery.arrival)
        noted = await self._journal.attempts(request) if second else 0
        match judge(second=second, noted=noted):
            case Verdict.RUN:
                await self._isolation.admitted(request.request_id, credit)
                with self._isolation:
                    await self._run(delivery, credit, begun=1)
            case Verdict.RUN_NOTED:
                await self._isolation.admitted(request.request_id, credit)
                with self._isolation:
                    await note_attempt(self._journal, request, noted + 1, fence_seq=None)
                    await self._run(delivery, credit, begun=noted + 2)
            case Verdict.RUN_ALONE:
                async with self._isolation.alone(request.request_id, credit):
                    await note_attempt(self._journal, request, noted + 1, fence_seq=None)
                    await self._run(delivery, credit, begun=noted + 2)
            case Verdict.GIVE_UP:
                await give_up(
                    self._journal,
                    request,
                    noted + 1,
                    fence_seq=None,
                    instance_id=self._runner.instance_id,
                )
                self._recorder.gave_up(request)

    async def _run(self, delivery: Delivery, credit: _Credit, *, begun: int) -> None:
        request = delivery.request
        begun_s, started_s = time.time(), time.perf_counter()
        with self._runner.span(request, begun=begun) as span:
            outcome = await self._runner.run(
                request,
                begun=begun,
                request_seq=delivery.arrival.stream_seq,
                span=span,
                credit=credit,
            )
            ran_s = time.perf_counter()
            _, stored = await commit(self._journal, request, outcome, fence_seq=None)
            span.stored(stored)
        self._recorder.served(
            request,
            delivery.arrival,
            outcome,
            stored,
            begun_s=begun_s,
            process_s=ran_s - started_s,
            commit_s=time.perf_counter() - ran_s,
        )

    async def _extend(self) -> None:
        """Tell the broker, thrice in an ack_wait, that what is in hand is alive."""
        while True:
            await asyncio.sleep(self._ack_wait_s / 3)
            now = time.monotonic()
            for delivery, since_s in list(self._in_hand.values()):
                if now - since_s < EXTEND_S_MAX:
                    delivery.extend()
