"""Makes requests in the second form: executes what `Doubts` decides, and hands each caller its one definite answer.

Each request is sent, stored, sent again, ended or given up as domain/turns/doubt.py has it. This module knows whom a group's
request goes to: the members in turn. It bounds how many requests are stored at once, and keeps their order. Without the bound, a
service that has lost its active would have thousands on their way together. Those that give up at one moment do so together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from aegis_sdk.application.outcomes import cancelled_at_deadline, result_of
from aegis_sdk.application.ports import RequestLog, StoreError, StoreTooLarge, StoreUnreachable
from aegis_sdk.application.turns.ports import CallsOut, LastWord
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.trace import new_traceparent
from aegis_sdk.contract.turns.sent import Answer
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.turns.doubt import Because, Call, Doubts
from aegis_sdk.domain.turns.states import CallState
from aegis_sdk.errors import Draining, OutcomeUnknown, PayloadTooLarge
from aegis_sdk.telemetry import about, log

Req = TypeVar("Req")
Rep = TypeVar("Rep")

STORING_MAX: Final = 256
"""Requests that are being stored at once. More wait for their turn, and many are answered until it comes."""
STORE_S: Final = 1.0
RESOLVE_S: Final = 3.0
"""How long past its deadline a caller tries to end the doubt before it says OutcomeUnknown."""
_BECAUSE: Final = {
    Answer.BUSY: Because.BUSY,
    Answer.MOVED: Because.OWNER_CHANGED,
    Answer.LATE: Because.OPEN_LONG,
    Answer.NOBODY: Because.NO_RESPONDER,
}


class _Waiting:
    """Who waits for a request's answer, and how it is sent."""

    __slots__ = ("after", "answer", "member", "request", "sent_at")

    def __init__(self, request: Request, answer: asyncio.Future[Outcome]) -> None:
        self.request = request
        self.answer = answer
        self.sent_at = time.time()
        """Unix time: all its copies carry the same."""
        self.member = ""
        """Of the group: whom it is sent to."""
        self.after = 0
        """The last place that this caller had stored for the resource when it was first sent (G7)."""


class Caller:
    """Makes requests for one client. `caller` is its token, which no other process has; `members` names a service's instances."""

    def __init__(
        self,
        *,
        caller: str,
        calls: CallsOut,
        requests: RequestLog,
        last_word: LastWord,
        members: Callable[[str], Sequence[str]],
        resolve_s: float = RESOLVE_S,
    ) -> None:
        self._caller = caller
        self._calls = calls
        self._requests = requests
        self._last_word = last_word
        self._members = members
        self._resolve_s = resolve_s
        self._loop = asyncio.get_running_loop()
        self._doubts = Doubts()
        self._waiting: dict[str, _Waiting] = {}
        self._number = 0
        self._turn = 0
        self._last_stored: dict[tuple[str, str], int] = {}
        self._storing = 0
        self._to_store: deque[Call] = deque()
        self._giving_up: list[Call] = []
        self._settling: asyncio.Task[None] | None = None
        self._looks = False
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
        request_id, now_s = request.request_id, self._loop.time()
        waiting = _Waiting(request, self._loop.create_future())
        place = self._place(waiting)
        self._waiting[request_id] = waiting
        self._doubts.sent(Call(request_id, place, sent_s=now_s, deadline_s=now_s + timeout_s))
        try:
            self._send(waiting)
            self._look_later()
            return await waiting.answer
        finally:
            self._doubts.ended(request_id)
            del self._waiting[request_id]

    def restored(self) -> None:
        """There is a new connection."""
        self._doubts.restored()
        self._act()

    def close(self) -> None:
        self._closed = True
        for waiting in self._waiting.values():
            _tell_unknown(waiting, "the client was closed")
        for task in self._tasks:
            task.cancel()

    # --- sending ----------------------------------------------------------------------------------------------
    def _place(self, waiting: _Waiting) -> tuple[str, str]:
        """Whose silence counts: that of a resource's owner, or of the member of the group that it is sent to."""
        request = waiting.request
        if request.resource is not None:
            place = request.service, request.resource
            if self._last_stored:
                waiting.after = self._last_stored.get(place, 0)
            return place
        members = self._members(request.service)
        if members:
            self._turn += 1
            waiting.member = members[self._turn % len(members)]
        return request.service, f"any {waiting.member}"

    def _send(self, waiting: _Waiting) -> None:
        request = waiting.request
        try:
            self._calls.send(
                request, sent_s=waiting.sent_at, after=waiting.after, member=waiting.member
            )
        except StoreTooLarge as error:
            raise PayloadTooLarge(str(error)) from error
        except StoreUnreachable as error:
            log.debug("request_not_sent", **about(request), error=str(error))

    # --- what comes back --------------------------------------------------------------------------------------
    def _on_outcome(self, request_id: str, outcome: Outcome) -> None:
        call = self._doubts.open.get(request_id)
        if call is None:
            return
        if outcome.instance_id:
            self._doubts.heard(outcome.instance_id, call.place, self._loop.time())
        waiting = self._waiting[request_id]
        if not waiting.answer.done():
            waiting.answer.set_result(outcome)

    def _on_answer(self, request_id: str, answer: Answer) -> None:
        """Nothing of it was stored by whoever says so."""
        self._doubts.refused(request_id, _BECAUSE[answer])
        self._act()

    # --- looking after what is open -----------------------------------------------------------------------------
    def _look_later(self) -> None:
        if not self._looks and self._doubts.next_look_s:
            self._looks = True
            self._loop.call_at(self._doubts.next_look_s, self._look)

    def _look(self) -> None:
        self._looks = False
        self._doubts.look(self._loop.time())
        self._act()
        self._look_later()

    def _act(self) -> None:
        asked = self._doubts.take_asked()
        self._to_store += asked.store
        self._store_next()
        for call in asked.send:
            if (waiting := self._waiting.get(call.request_id)) is not None:
                self._send(waiting)
        for call in asked.cancel:
            if (waiting := self._waiting.get(call.request_id)) is not None:
                self._ask_to_end(waiting)
        if asked.give_up:
            self._giving_up += asked.give_up
            if self._settling is None or self._settling.done():
                self._settling = self._aside(self._settle_all())

    def _store_next(self) -> None:
        while self._to_store and self._storing < STORING_MAX:
            call = self._to_store.popleft()
            waiting = self._waiting.get(call.request_id)
            if waiting is not None and call.state is CallState.STORING:
                self._storing += 1
                self.stored += 1
                self._aside(self._store(call, waiting.request))

    async def _store(self, call: Call, request: Request) -> None:
        """Until it is stored, answered, or given up."""
        n = 0
        try:
            while call.state is CallState.STORING:
                n += 1
                try:
                    accepted = await self._requests.append(request, timeout_s=STORE_S)
                except StoreError as error:
                    log.debug("request_not_stored", **about(request), error=str(error))
                    await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
                else:
                    self._is_stored(call, request, accepted.seq)
                    return
        finally:
            self._storing -= 1
            self._store_next()

    def _is_stored(self, call: Call, request: Request, seq: int) -> None:
        self._doubts.stored(call.request_id, self._loop.time())
        if request.resource is not None:
            self._last_stored[call.place] = max(seq, self._last_stored.get(call.place, 0))

    def _ask_to_end(self, waiting: _Waiting) -> None:
        log.info("deadline_passed", **about(waiting.request))
        try:
            self._calls.cancel(waiting.request, member=waiting.member)
        except StoreError as error:
            log.debug("cancel_not_sent", **about(waiting.request), error=str(error))

    # --- giving up ----------------------------------------------------------------------------------------------
    async def _settle_all(self) -> None:
        """All that give up at this moment, by one reading of the log for each service."""
        while self._giving_up:
            calls, self._giving_up = self._giving_up, []
            by_service: dict[str, list[Call]] = {}
            for call in calls:
                by_service.setdefault(call.place[0], []).append(call)
            await asyncio.gather(*(self._settle(s, some) for s, some in by_service.items()))

    async def _settle(self, service: str, calls: list[Call]) -> None:
        waiting = [self._waiting[c.request_id] for c in calls if c.request_id in self._waiting]
        requests = [each.request for each in waiting]
        stored = any(call.because is not None for call in calls)
        first_s = min(call.sent_s for call in calls)
        give_up_s, n = self._loop.time() + self._resolve_s, 0
        while True:
            n += 1
            open_s = self._loop.time() - first_s
            try:
                found = await self._last_word.settle(
                    service, requests, open_s=open_s, stored=stored
                )
                break
            except StoreError as error:
                if self._loop.time() >= give_up_s:
                    for each in waiting:
                        _tell_unknown(each, str(error))
                    return
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.25))
        for each in waiting:
            if not each.answer.done():
                request = each.request
                outcome = found.get(request.request_id) or cancelled_at_deadline(request)
                each.answer.set_result(outcome)

    def _aside(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._aside_done)
        return task

    def _aside_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("caller_task_failed", exc_info=error)


def _tell_unknown(waiting: _Waiting, why: str) -> None:
    if not waiting.answer.done():
        request_id = waiting.request.request_id
        waiting.answer.set_exception(
            OutcomeUnknown(f"{request_id} was open ({why}): attach to it later", request_id)
        )
        waiting.answer.exception()  # known, also when whoever asked is not waiting any more
