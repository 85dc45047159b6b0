"""A caller in the second form: sends its request, stores it in doubt, and has one definite answer within its deadline.

Theory of operation. A request is sent to its resource's active and nothing else happens, as a rule. Doubt is about the owner, not
about one request: an owner that has answered anything within SILENCE_S is alive, and what waits in its queue is not to be
stored, else an overloaded active would be given twice the work. What is in doubt is stored under the same id, once: from then on
whoever owns the resource will serve it, and the copy that was sent is recognised by its number. It is also sent again, less and
less often: a new owner may be there before it is stored, and the answer itself may have been lost.

At the deadline the caller asks the active to end the request unless it has begun. If that is not answered within POLITE_S,
the caller ends the doubt itself (`Doubts`, R6), together with all others that give up at that moment.

A caller that was away itself (a blocked loop, a stopped process) knows nothing about the silence of others: it waits anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from aegis_sdk.application.outcomes import result_of
from aegis_sdk.application.ports import (
    RequestLog,
    StoreError,
    StoreTooLarge,
    StoreUnreachable,
)
from aegis_sdk.application.turns.ports import CallsOut, Doubts
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.trace import new_traceparent
from aegis_sdk.contract.turns.sent import Answer
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.errors import Cancelled, Draining, OutcomeUnknown, PayloadTooLarge
from aegis_sdk.telemetry import about, log

Req = TypeVar("Req")
Rep = TypeVar("Rep")

TICK_S: Final = 0.01
"""How often open requests are looked at, while there are any."""
AWAY_S: Final = 0.04
"""A look that comes so much later than it should says that this process was away."""
SILENCE_S: Final = 0.05
"""An owner that has answered nothing for so long is in doubt."""
OPEN_S: Final = 1.0
"""A request that is open for so long is stored in any case."""
AGAIN_S: Final = 0.05
STORED_AGAIN_S: Final = 0.5
AGAIN_S_MAX: Final = 2.0
"""A request in doubt is sent again: at first after AGAIN_S or STORED_AGAIN_S, then after twice as long each time."""
STORING_MAX: Final = 256
"""Requests that are being stored at once. More wait for their turn, and many are answered until it comes."""
POLITE_S: Final = 0.1
RESOLVE_S: Final = 3.0
"""How long past its deadline a caller tries to end the doubt before it says OutcomeUnknown."""
STORE_S: Final = 1.0


class _Call:
    """A request without an answer so far. Times are of the loop's clock."""

    __slots__ = ("after", "again_s", "answer", "asked_s", "deadline_s", "is_left", "is_storing", "member", "place", "request", "sent_at", "sent_s", "stored_seq", "wait_s")  # fmt: skip

    def __init__(self, request: Request, answer: asyncio.Future[Outcome], now_s: float) -> None:
        self.request = request
        self.answer = answer
        self.sent_s = now_s
        self.sent_at = time.time()
        """Unix time: all its copies carry the same."""
        self.deadline_s = now_s
        self.place = request.service, request.resource or ""
        """Whose silence counts: the owner of a resource, or the member of the group that it was sent to."""
        self.member = ""
        self.after = 0
        """The last place that this caller had stored for the resource when it was first sent (G7)."""
        self.stored_seq = 0
        self.is_storing = False
        self.is_left = False
        """The active did not say how it ended: its doubt is being ended otherwise."""
        self.again_s = 0.0
        """When it is sent again."""
        self.wait_s = AGAIN_S
        self.asked_s = 0.0
        """When the active was asked to end it; 0.0 before."""


class Caller:
    """Makes requests for one client. `caller` is its token, which no other process has; `members` names a service's instances."""

    def __init__(
        self,
        *,
        caller: str,
        calls: CallsOut,
        requests: RequestLog,
        doubts: Doubts,
        members: Callable[[str], Sequence[str]],
        resolve_s: float = RESOLVE_S,
    ) -> None:
        self._caller = caller
        self._calls = calls
        self._requests = requests
        self._doubts = doubts
        self._members = members
        self._turn = 0
        self._resolve_s = resolve_s
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._open: dict[str, _Call] = {}
        self._young: deque[_Call] = deque()
        """In the order of their sending; none has been open for SILENCE_S at the last look."""
        self._old: list[_Call] = []
        self._heard_s: dict[str, float] = {}
        """When an instance was last heard."""
        self._owners: dict[tuple[str, str], str] = {}
        """By service and resource: the instance that answered last."""
        self._last_stored: dict[tuple[str, str], int] = {}
        self._storing = 0
        self._to_store: deque[_Call] = deque()
        self._giving_up: list[_Call] = []
        self._settling: asyncio.Task[None] | None = None
        self._ticking = False
        self._next_look_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.stored = 0
        """Requests that were stored in doubt."""
        calls.on_outcome, calls.on_answer = self._on_outcome, self._on_answer

    async def request(
        self, method: Method[Req, Rep], payload: Req, *, resource: str | None, timeout_s: float
    ) -> Rep:
        """The reply, or what the outcome raises."""
        body = method.request.encode(payload)
        request = self.compose(method.service, method.name, resource, body, timeout_s=timeout_s)
        outcome = await self.call(request, timeout_s=timeout_s)
        return result_of(outcome, method, request.request_id)

    def compose(
        self, service: str, method: str, resource: str | None, payload: bytes, *, timeout_s: float
    ) -> Request:
        """A request under the next number."""
        self._number += 1
        return Request(
            f"{self._caller}.{self._number}",
            service,
            method,
            resource,
            payload,
            deadline_s=time.time() + timeout_s,
            traceparent=new_traceparent(),
        )

    async def call(self, request: Request, *, timeout_s: float) -> Outcome:
        """Raises: PayloadTooLarge, OutcomeUnknown, Draining."""
        if self._closed:
            raise Draining("this client is closed")
        now_s = self._loop.time()
        call = _Call(request, self._loop.create_future(), now_s)
        call.deadline_s = now_s + timeout_s
        if request.resource is None:
            self._choose_member(call)
        elif self._last_stored:
            call.after = self._last_stored.get(call.place, 0)
        self._open[request.request_id] = call
        try:
            self._send(call)
            self._watch(call)
            return await call.answer
        finally:
            del self._open[request.request_id]

    def restored(self) -> None:
        """There is a new connection: whatever was sent before may be lost, and its answer too."""
        for call in list(self._open.values()):
            self._store(call)

    def close(self) -> None:
        self._closed = True
        for call in self._open.values():
            _tell_unknown(call, "the client was closed")
        for task in self._tasks:
            task.cancel()

    # --- sending ----------------------------------------------------------------------------------------------
    def _choose_member(self, call: _Call) -> None:
        """The next one in turn: so the shares are even, and one that hangs delays only what it was given."""
        members = self._members(call.request.service)
        if members:
            self._turn += 1
            call.member = members[self._turn % len(members)]
            call.place = call.request.service, f"any {call.member}"
            self._owners[call.place] = call.member

    def _send(self, call: _Call) -> None:
        request = call.request
        try:
            self._calls.send(request, sent_s=call.sent_at, after=call.after, member=call.member)
        except StoreTooLarge as error:
            raise PayloadTooLarge(str(error)) from error
        except StoreUnreachable as error:
            log.debug("request_not_sent", **about(request), error=str(error))

    def _store(self, call: _Call) -> None:
        if not (call.is_storing or call.answer.done()):
            call.is_storing = True
            call.again_s = self._loop.time() + call.wait_s
            self._to_store.append(call)
            self._store_next()

    def _store_next(self) -> None:
        while self._to_store and self._storing < STORING_MAX:
            call = self._to_store.popleft()
            if not (call.answer.done() or call.asked_s):
                self._storing += 1
                self.stored += 1
                self._aside(self._append(call))

    async def _append(self, call: _Call) -> None:
        """Until it is stored, answered, or given up."""
        request, n = call.request, 0
        try:
            while not (call.answer.done() or call.asked_s or call.stored_seq):
                n += 1
                try:
                    accepted = await self._requests.append(request, timeout_s=STORE_S)
                    call.stored_seq = accepted.seq
                    call.wait_s = max(call.wait_s, STORED_AGAIN_S)
                    call.again_s = self._loop.time() + call.wait_s
                except StoreError as error:
                    log.debug("request_not_stored", **about(request), error=str(error))
                    await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
        finally:
            self._storing -= 1
            self._store_next()
        if request.resource is not None:
            last = self._last_stored.get(call.place, 0)
            self._last_stored[call.place] = max(call.stored_seq, last)

    # --- what comes back --------------------------------------------------------------------------------------
    def _on_outcome(self, request_id: str, outcome: Outcome) -> None:
        instance = outcome.instance_id
        if instance:
            self._heard_s[instance] = self._loop.time()
        call = self._open.get(request_id)
        if call is None:
            return
        if instance and not call.member:
            self._owners[call.place] = instance
        if not call.answer.done():
            call.answer.set_result(outcome)

    def _on_answer(self, request_id: str, answer: Answer) -> None:
        """Nothing of it was stored by whoever says so."""
        call = self._open.get(request_id)
        if call is not None:
            if answer is not Answer.BUSY:
                self._owners.pop(call.place, None)
            self._store(call)

    # --- looking after what is open -----------------------------------------------------------------------------
    def _watch(self, call: _Call) -> None:
        if call.deadline_s - call.sent_s < SILENCE_S:
            self._old.append(call)
        else:
            self._young.append(call)
        if not self._ticking:
            self._ticking = True
            self._next_look_s = call.sent_s + TICK_S
            self._loop.call_at(self._next_look_s, self._look)

    def _look(self) -> None:
        now_s = self._loop.time()
        if now_s - self._next_look_s > AWAY_S:
            self._was_away(now_s)
        while self._young and self._is_past(self._young[0], now_s):
            call = self._young.popleft()
            if not call.answer.done():
                self._old.append(call)
        if self._old:
            self._old = [call for call in self._old if not (call.answer.done() or call.is_left)]
            for call in self._old:
                self._look_at(call, now_s)
        self._ticking = bool(self._young or self._old)
        if self._ticking:
            self._next_look_s = now_s + TICK_S
            self._loop.call_at(self._next_look_s, self._look)

    def _was_away(self, now_s: float) -> None:
        for instance in set(self._owners.values()):
            self._heard_s[instance] = now_s

    def _is_past(self, call: _Call, now_s: float) -> bool:
        return call.answer.done() or now_s - call.sent_s >= SILENCE_S

    def _look_at(self, call: _Call, now_s: float) -> None:
        if call.asked_s:
            if now_s - call.asked_s >= POLITE_S:
                self._give_up(call)
        elif now_s >= call.deadline_s:
            self._ask_to_end(call, now_s)
        elif call.is_storing:
            if now_s >= call.again_s:
                call.wait_s = min(2 * call.wait_s, AGAIN_S_MAX)
                call.again_s = now_s + call.wait_s
                self._send(call)
        elif self._is_in_doubt(call, now_s):
            self._store(call)

    def _is_in_doubt(self, call: _Call, now_s: float) -> bool:
        owner = self._owners.get(call.place, "")
        heard_s = max(call.sent_s, self._heard_s.get(owner, 0.0))
        return now_s - heard_s >= SILENCE_S or now_s - call.sent_s >= OPEN_S

    # --- giving up ----------------------------------------------------------------------------------------------
    def _ask_to_end(self, call: _Call, now_s: float) -> None:
        log.info("deadline_passed", **about(call.request))
        call.asked_s = now_s
        try:
            self._calls.cancel(call.request, member=call.member)
        except StoreError as error:
            log.debug("cancel_not_sent", **about(call.request), error=str(error))

    def _give_up(self, call: _Call) -> None:
        call.is_left = True
        self._giving_up.append(call)
        if self._settling is None or self._settling.done():
            self._settling = self._aside(self._settle_all())

    async def _settle_all(self) -> None:
        """All that give up at this moment, by one reading of the log for each service."""
        while self._giving_up:
            calls, self._giving_up = self._giving_up, []
            services = {call.request.service for call in calls}
            await asyncio.gather(
                *(self._settle(s, [c for c in calls if c.request.service == s]) for s in services)
            )

    async def _settle(self, service: str, calls: list[_Call]) -> None:
        requests = [call.request for call in calls]
        give_up_s, n = self._loop.time() + self._resolve_s, 0
        while True:
            n += 1
            open_s = self._loop.time() - min(call.sent_s for call in calls)
            try:
                found = await self._doubts.settle(
                    service, requests, open_s=open_s, stored=any(call.is_storing for call in calls)
                )
                break
            except StoreError as error:
                if self._loop.time() >= give_up_s:
                    for call in calls:
                        _tell_unknown(call, str(error))
                    return
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.25))
        for call in calls:
            if not call.answer.done():
                request = call.request
                call.answer.set_result(found.get(request.request_id) or _cancelled(request))

    def _aside(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._aside_done)
        return task

    def _aside_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("caller_task_failed", exc_info=error)


def _cancelled(request: Request) -> Outcome:
    return Outcome.error(
        OutcomeKind.CANCELLED,
        Cancelled.code,
        "the caller's deadline passed",
        traceparent=request.traceparent,
    )


def _tell_unknown(call: _Call, why: str) -> None:
    if not call.answer.done():
        request_id = call.request.request_id
        call.answer.set_exception(
            OutcomeUnknown(f"{request_id} was open ({why}): attach to it later", request_id)
        )
        call.answer.exception()  # known, also when whoever asked is not waiting any more
