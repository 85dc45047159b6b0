"""A caller's use case: one request, one definite answer within its deadline (G1, G4, G8).

It publishes, waits for the outcome that the server republishes, and covers every way to miss it: a
request that was not acknowledged is sent again under the same id, an outcome that did not arrive is
read from the journal, and at the deadline the caller writes `cancelled` itself. Whichever is stored
first is the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from aegis_sdk.application.calls import HOLD_S_MAX, Calls, may_be_asked_anew
from aegis_sdk.application.outcomes import DOUBTS, cancelled_at_deadline, error_of, result_of
from aegis_sdk.application.place import told_doubt, waiting
from aegis_sdk.application.ports import (
    Accepted,
    AlreadyStored,
    Directory,
    Journal,
    Replies,
    RequestLog,
    StoreError,
    StoreForbidden,
    StoreFull,
    StoreUnreachable,
)
from aegis_sdk.application.tracing import LOG_TRACER, Tracer
from aegis_sdk.context import Ticket
from aegis_sdk.contract import arguments
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import (
    check_request_id,
    child_id,
    children_of,
    generation_id,
    is_keyed,
    keyed_id,
    parent_of,
)
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.metrics import Answer
from aegis_sdk.contract.subjects import resource_token
from aegis_sdk.contract.trace import new_traceparent
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.errors import (
    AegisError,
    CallChanged,
    ContractError,
    Deadlock,
    Draining,
    InvalidPayload,
    KeyReused,
    NeverAccepted,
    NotExecuted,
    OutcomeUnknown,
    Overloaded,
    PayloadTooLarge,
    RefusedByNats,
    Unavailable,
)
from aegis_sdk.telemetry import about, log

Req = TypeVar("Req")
Rep = TypeVar("Rep")

TIMEOUT_S: Final = 5.0
"""Outlasts the election of a new stream leader in a cluster of three (4-5 s seen)."""
RECHECK_S: Final = 0.25
"""First look at a request that is still open; doubles up to RECHECK_S_MAX."""
RECHECK_S_MAX: Final = 2.0
WATCH_S: Final = RECHECK_S / 2
"""How often open requests are looked at."""
RESOLVE_S: Final = 3.0
"""How long past its deadline a caller tries to end the doubt before it says OutcomeUnknown."""
CLOSED: Final = "this client is closing or closed: it takes no new requests"
RECHECKS_AT_ONCE_MAX: Final = 64


@dataclass(slots=True, eq=False)
class _Open:
    """A request without an answer so far."""

    request: Request
    method: Method[Any, Any]
    answer: asyncio.Future[Outcome | None]
    """The outcome, or None when the time was up."""
    recheck_s: float
    until_s: float = math.inf
    """When the time is up, by the loop's clock."""
    timer: asyncio.TimerHandle | None = None
    is_held: bool = False
    """It is not to be sent yet."""
    sent_again: int = 0
    accepted: Accepted | None = None
    refused: AegisError | None = None
    """The answer, if the request turns out to have no effect: why it was not stored."""
    log: str = ""
    """The identity of the log that has its service's requests, as it was first known; empty before."""
    is_sent: bool = False
    """It may be stored, now or soon; also when another process sent it."""

    def deliver(self, outcome: Outcome) -> None:
        if not self.answer.done():
            self.answer.set_result(outcome)

    async def wait(self, timeout_s: float) -> Outcome | None:
        """The outcome, or None after `timeout_s`; the entry stays open for a later one.

        The timer is set when it is near: most calls have ended long before.
        """
        loop = self.answer.get_loop()
        self.until_s = loop.time() + max(0.0, timeout_s)
        self.arm(loop.time())
        try:
            return await self.answer
        finally:
            if self.timer is not None:
                self.timer.cancel()

    def arm(self, now_s: float) -> None:
        if self.timer is None and self.until_s - now_s < 2 * WATCH_S:
            self.timer = self.answer.get_loop().call_at(self.until_s, self.time_out)

    def time_out(self) -> None:
        if not self.answer.done():
            waited, self.answer = self.answer, self.answer.get_loop().create_future()
            waited.set_result(None)

    def refuse(self, error: AegisError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # known, also when whoever asked is not waiting yet

    def close(self) -> None:
        """The client closes: no answer will be heard any more."""
        self.refuse(_left_open(self.request) if self.is_sent else Draining(CLOSED))


class Requester:
    """Makes requests for one client. `caller` is its token, unique to this process and connection."""

    def __init__(
        self,
        *,
        log_: RequestLog,
        journal: Journal,
        replies: Replies,
        directory: Directory,
        caller: str,
        payload_bytes_max: Callable[[], int],
        recorder: Recorder = NO_RECORDER,
        tracer: Tracer = LOG_TRACER,
    ) -> None:
        self._log = log_
        self._journal = journal
        self._replies = replies
        self._directory = directory
        self._caller = caller
        self._payload_bytes_max = payload_bytes_max
        self._recorder = recorder
        self._tracer = tracer
        self._numbers = itertools.count(1)
        self._open: set[_Open] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False
        self._is_gone = False
        """Closed, and no longer draining: whoever still tries is told so at once."""

    # --- what callers use -------------------------------------------------------------------------
    # What is `Any` here is checked here: compiled, a parameter of another type would refuse a wrong one by itself.
    async def request(
        self,
        method: Method[Req, Rep],
        payload: Req,
        *,
        resource: Any,
        timeout_s: Any,
        key: Any,
        traceparent: str = "",
    ) -> Rep:
        resource = arguments.optional_text(resource, "resource")
        key = arguments.optional_text(key, "key")
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        request = self._compose(
            method,
            payload,
            resource=resource,
            key=key,
            deadline_s=time.time() + timeout_s,
            traceparent=traceparent,
        )
        again = key is not None
        outcome = await self._outcome_of(request, method, again=again, parent=traceparent)
        return result_of(outcome, method, request.request_id)

    async def submit(
        self,
        method: Method[Req, Any],
        payload: Req,
        *,
        resource: Any,
        key: Any,
        timeout_s: Any,
        expires_s: Any,
        traceparent: str = "",
    ) -> Ticket:
        resource = arguments.optional_text(resource, "resource")
        key = arguments.optional_text(key, "key")
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        expires_s = arguments.optional_duration_s(expires_s, "expires_s")
        request = self._compose(
            method,
            payload,
            resource=resource,
            key=key,
            deadline_s=None if expires_s is None else time.time() + expires_s,
            traceparent=traceparent,
        )
        return await self._hand_in(request, method, timeout_s=timeout_s, parent=traceparent)

    async def attach(self, request_id: Any, method: Method[Any, Rep], *, timeout_s: Any) -> Rep:
        request_id = check_request_id(request_id)
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        arguments.instance_of(method, Method, "method")
        request = Request(request_id, method.service, method.name, None, b"")
        entry = self._begin(request, method)
        try:
            entry.accepted = Accepted(0, duplicate=True)  # never send: this is not our request
            entry.is_sent = True
            await self._expect(entry)
            try:
                outcome = await self._journal.outcome(request, anywhere=True)
            except StoreForbidden as error:
                raise RefusedByNats(f"{request_id} can't be looked up: {error}") from error
            except StoreError:
                outcome = None  # the watcher asks again
            if outcome is None:
                with waiting():
                    outcome = await entry.wait(timeout_s)
        finally:
            self._end(entry)
        if outcome is None:
            outcome = await self._late_outcome(request, timeout_s)
        return result_of(outcome, method, request.request_id)

    async def _late_outcome(self, request: Request, waited_s: float) -> Outcome:
        """Say why there is none after so long. Raises: OutcomeUnknown."""
        request_id = request.request_id
        try:
            accepted = await self._log.holds(request.service, request_id, timeout_s=RESOLVE_S)
            outcome = await self._journal.outcome(request, anywhere=True)
            why = ""
        except StoreError as error:
            accepted, outcome, why = True, None, f" ({error})"  # as far as can be told now
        if outcome is not None:
            return outcome
        if not accepted:
            raise _never_accepted(request)
        told_doubt()
        raise OutcomeUnknown(
            f"{request_id} has no outcome yet after {waited_s:g} s{why}: attach again", request_id
        )

    # --- what handlers use (context.Asks) ----------------------------------------------------------
    async def ask(
        self,
        method: Method[Req, Rep],
        payload: Req,
        *,
        resource: Any,
        timeout_s: Any,
        parent: Request,
        calls: Calls,
    ) -> Rep:
        resource = arguments.optional_text(resource, "resource")
        timeout_s = arguments.optional_duration_s(timeout_s, "timeout_s")
        request = self._derive(
            method, payload, resource=resource, parent=parent, calls=calls, waits=True
        )
        deadline_s = time.time() + (TIMEOUT_S if timeout_s is None else timeout_s)
        if parent.deadline_s is not None:
            own = parent.deadline_s if timeout_s is None else min(deadline_s, parent.deadline_s)
            deadline_s = own
        request = replace(request, deadline_s=deadline_s)
        call = request.request_id
        if (known := calls.final.get(call)) is not None:
            raise known
        try:
            outcome = await self._ask(request, method, parent, calls)
        except (NotExecuted, Unavailable, ContractError) as error:  # nothing was stored
            calls.failed(call, error)
            raise
        if outcome.kind in (OutcomeKind.EXECUTED, OutcomeKind.UNREADABLE):
            return result_of(outcome, method, call)
        failure = error_of(outcome, method, call)
        calls.failed(call, failure)
        raise failure

    async def _ask(
        self, request: Request, method: Method[Any, Any], parent: Request, calls: Calls
    ) -> Outcome:
        """Of the child, or of the last generation of it that this run may ask."""
        again, above = parent.attempt > 1, parent.traceparent
        for generation in range(calls.retry + 1):
            asked = replace(request, request_id=generation_id(request.request_id, generation))
            outcome = await self._outcome_of(asked, method, again=again, parent=above, calls=calls)
            if not may_be_asked_anew(outcome):
                break
        return outcome

    async def hand_in(
        self,
        method: Method[Req, Any],
        payload: Req,
        *,
        resource: Any,
        parent: Request,
        calls: Calls,
    ) -> Ticket:
        resource = arguments.optional_text(resource, "resource")
        request = self._derive(
            method, payload, resource=resource, parent=parent, calls=calls, waits=False
        )
        if parent.attempt > 1 and await self._read_outcome(request) is None:
            await self._unless_changed(request, calls)
        calls.sent(request)
        timeout_s = TIMEOUT_S
        if parent.deadline_s is not None:
            timeout_s = max(0.1, parent.deadline_s - time.time())
        return await self._hand_in(request, method, timeout_s=timeout_s, parent=parent.traceparent)

    # --- life -------------------------------------------------------------------------------------
    def recheck_all(self) -> None:
        """After a reconnect: whatever was in flight may have been missed."""
        now = time.monotonic()
        for entry in self._open:
            entry.recheck_s = now

    def rename(self, caller: str) -> None:
        """New requests go by this name: a copy of this process numbers its own from the same number on."""
        self._caller = caller

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Refuse new requests, wait up to `drain_s` for open ones, and end those left: each is told what is known."""
        self._closed = True
        answers = [entry.answer for entry in self._open]
        if answers and drain_s > 0:
            await asyncio.wait(answers, timeout=drain_s)
        self._is_gone = True
        for entry in self._open:
            entry.close()
        if self._watcher is not None:
            self._watcher.cancel()

    # --- composing --------------------------------------------------------------------------------
    def _compose(
        self,
        method: Method[Any, Any],
        payload: Any,
        *,
        resource: str | None,
        key: str | None,
        deadline_s: float | None,
        traceparent: str,
    ) -> Request:
        body = self._encode(method, payload, resource)
        return Request(
            request_id=(
                f"{self._caller}.{next(self._numbers)}"
                if key is None
                else keyed_id(method.service, key)
            ),
            service=method.service,
            method=method.name,
            resource=resource,
            payload=body,
            deadline_s=deadline_s,
            fingerprint="" if key is None else method.fingerprint(resource, body),
            traceparent=new_traceparent(traceparent),
        )

    def _derive(
        self,
        method: Method[Any, Any],
        payload: Any,
        *,
        resource: str | None,
        parent: Request,
        calls: Calls,
        waits: bool,
    ) -> Request:
        body = self._encode(method, payload, resource)
        asked = method.request.canonical(body)  # a set has another order in the next process
        token = calls.next_token(method.service, method.name, resource, asked)
        request = Request(
            request_id=child_id(parent.request_id, token, waits=waits),
            service=method.service,
            method=method.name,
            resource=resource,
            payload=body,
            attempt=min(parent.attempt, 2),
            chain=_chain(parent, method, resource) if waits else (),
            traceparent=new_traceparent(parent.traceparent),
            tracestate=parent.tracestate,
        )
        calls.made(request)
        return request

    async def _unless_changed(self, request: Request, calls: Calls) -> None:
        """Wait until this run has made what earlier ones asked of this method and what took effect, or may.

        Raises: CallChanged when it does not, Unavailable.
        """
        if not calls.is_new(request) or not (calls.before or calls.has_past):
            return
        left_s = HOLD_S_MAX
        if request.deadline_s is not None:
            left_s = min(left_s, (request.deadline_s - time.time()) / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                while await self._others(request, calls):
                    await calls.more()
        if others := await self._others(request, calls):
            raise CallChanged(
                f"{request.service}.{request.method} on {request.resource!r}: an earlier run of this handler"
                f" asked {others[0]} of this method, which took effect or may, and this run does not: what a"
                " handler asks has to come from its request, its state and earlier replies, not from a clock"
                " or chance"
            )

    async def _others(self, request: Request, calls: Calls) -> list[str]:
        service = request.service
        try:
            if calls.has_past and service not in calls.listed:
                calls.listed[service] = await self._journal.children(
                    service, children_of(parent_of(request.request_id) or "")
                )
            for child in calls.others(request):
                last = replace(request, request_id=calls.last_of(child, service))
                outcome = await self._journal.outcome(last, anywhere=True)
                if outcome is not None and outcome.kind is not OutcomeKind.EXECUTED:
                    calls.is_harmless(child)
        except StoreError as error:
            raise Unavailable(f"the journal of {service} could not be read: {error}") from error
        return calls.others(request)

    def _encode(self, method: Method[Any, Any], payload: Any, resource: str | None) -> bytes:
        if self._closed:
            raise Draining(CLOSED)
        arguments.instance_of(method, Method, "method")
        resource_token(resource)
        body = method.request.encode(payload)
        if len(body) + 4096 > (limit := self._payload_bytes_max()):  # 4 KiB for the headers
            raise PayloadTooLarge(
                f"{method!r}: the payload has {len(body)} bytes; with headers, at most {limit - 4096}"
                " fit the server's max_payload"
            )
        return body

    # --- one request ------------------------------------------------------------------------------
    async def _hand_in(
        self, request: Request, method: Method[Any, Any], *, timeout_s: float, parent: str
    ) -> Ticket:
        begun_s = time.perf_counter()
        try:
            with self._tracer.sending(request, parent=parent):
                return await self._store(request, method, timeout_s=timeout_s)
        except AegisError as error:
            self._note_error(request, error, begun_s)
            raise

    async def _store(
        self, request: Request, method: Method[Any, Any], *, timeout_s: float
    ) -> Ticket:
        await self._check(request)
        if request.fingerprint and (stored := await self._read_outcome(request)) is not None:
            await self._same_key(request, method, stored)
        give_up_s = time.monotonic() + timeout_s
        for n in itertools.count(1):
            try:
                accepted = await self._log.append(
                    request, timeout_s=max(0.05, min(2.0, give_up_s - time.monotonic()))
                )
            except StoreFull as error:
                raise Overloaded(f"{request.service}: {error}") from error
            except StoreError as error:
                if self._is_gone:
                    raise _left_open(request) from error
                forbidden = isinstance(error, StoreForbidden)
                if forbidden and n == 1:
                    raise RefusedByNats(f"{request.service}: {error}") from error
                if forbidden or time.monotonic() >= give_up_s:
                    raise OutcomeUnknown(
                        f"{request.request_id} was not acknowledged within {timeout_s:g} s ({error})",
                        request.request_id,
                    ) from error
                await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
                request = replace(request, attempt=request.attempt + 1)
                continue
            await self._check_key(request, method, accepted)
            return Ticket(request.request_id, request.service, request.resource)
        raise AssertionError("unreachable")

    async def _outcome_of(
        self,
        request: Request,
        method: Method[Any, Any],
        *,
        again: bool,
        parent: str,
        calls: Calls | None = None,
    ) -> Outcome:
        begun_s = time.perf_counter()
        try:
            with self._tracer.sending(request, parent=parent) as span:
                outcome = await self._settle(request, method, again=again, calls=calls)
                span.stored(outcome)
        except AegisError as error:
            self._note_error(request, error, begun_s)
            raise
        self._recorder.answered(request, outcome, time.perf_counter() - begun_s)
        return outcome

    def _note_error(self, request: Request, error: AegisError, begun_s: float) -> None:
        answer = Answer.UNKNOWN if isinstance(error, OutcomeUnknown) else Answer.REFUSED
        self._recorder.unanswered(request, answer, time.perf_counter() - begun_s)
        if isinstance(error, DOUBTS):
            told_doubt()

    async def _settle(
        self, request: Request, method: Method[Any, Any], *, again: bool, calls: Calls | None
    ) -> Outcome:
        """`again`: this id may have an outcome already. `calls`: a handler makes it."""
        assert request.deadline_s is not None
        # From here on by the monotonic clock: the other one may be set back by an hour.
        ends_s = time.monotonic() + request.deadline_s - time.time()
        if not again:
            await self._check(request)
        entry = self._begin(request, method)
        entry.is_held = again
        try:
            await self._expect(entry)
            if again:
                if (stored := await self._read_outcome(request)) is not None:
                    return await self._same_key(request, method, stored)
                await self._check(request)
            if calls is not None:
                if again:
                    await self._unless_changed(request, calls)
                calls.sent(request)
            entry.is_held = False
            if self._closed:
                raise Draining(CLOSED)
            entry.is_sent = True
            with contextlib.suppress(StoreUnreachable):  # sent again by the watcher
                self._log.post(request)
            with waiting():
                outcome = await entry.wait(ends_s - time.monotonic())
            if outcome is None:
                outcome = await self._end_doubt(entry)
                if entry.refused is not None and outcome.kind is OutcomeKind.CANCELLED:
                    raise entry.refused
            if request.fingerprint:
                await self._same_key(request, method, outcome)
            return outcome
        finally:
            self._end(entry)

    async def _end_doubt(self, entry: _Open) -> Outcome:
        """The deadline passed: make `cancelled` the outcome, or return the one that was first (G4)."""
        request = entry.request
        cancelled = cancelled_at_deadline(request)
        log.info("deadline_passed", **about(request))
        give_up_s = time.monotonic() + RESOLVE_S
        for n in itertools.count(1):
            if entry.answer.done() and (late := entry.answer.result()) is not None:
                return late
            if lost := self._directory.lost(request.service):
                raise OutcomeUnknown(
                    f"{lost}: whether {request.request_id} took effect is known when that is accepted",
                    request.request_id,
                )
            try:
                await self._journal.commit(request, cancelled, fence_seq=None)
                return cancelled
            except AlreadyStored:
                if (stored := await self._read_outcome(request)) is not None:
                    return stored
            except StoreError as error:
                if self._is_gone:
                    raise _left_open(request) from error
                if time.monotonic() >= give_up_s or isinstance(error, StoreForbidden):
                    why = "" if entry.refused is None else f"{entry.refused}; "
                    raise OutcomeUnknown(
                        f"NATS could not be reached to end {request.request_id} ({why}{error}):"
                        " attach to it later",
                        request.request_id,
                    ) from error
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.25))
        raise AssertionError("unreachable")

    async def _check(self, request: Request) -> None:
        if not self._directory.admits(request.service, request.method, request.resource):
            try:
                await self._directory.check(request.service, request.method, request.resource)
            except StoreForbidden as error:
                raise RefusedByNats(f"the registry could not be read: {error}") from error
            except StoreError as error:
                if self._is_gone:
                    raise Draining(CLOSED) from error
                raise Unavailable(f"the registry could not be read: {error}") from error

    async def _check_key(
        self, request: Request, method: Method[Any, Any], accepted: Accepted
    ) -> None:
        """An idempotency key that the stream saw before must belong to the same request."""
        if not (request.fingerprint and accepted.duplicate):
            return
        try:
            stored = await self._log.read(request.service, accepted.seq)
        except StoreError:
            return  # the outcome carries the fingerprint too
        if stored is not None and not _is_same(request, method, stored):
            raise _key_reused(request)

    async def _same_key(
        self, request: Request, method: Method[Any, Any], outcome: Outcome
    ) -> Outcome:
        """The outcome, if it is this request's.

        Another version of the type, with a field more, gives the same request another fingerprint: then
        the stored request is read by this version.
        """
        if not request.fingerprint or outcome.fingerprint in ("", request.fingerprint):
            return outcome
        if not outcome.request_seq:
            raise _key_reused(request)
        try:
            stored = await self._log.read(request.service, outcome.request_seq)
        except StoreError as error:
            raise OutcomeUnknown(
                f"{request.request_id} has an outcome, but the request that it belongs to could not be"
                f" looked up: {error}",
                request.request_id,
            ) from error
        if stored is None or not _is_same(request, method, stored):
            raise _key_reused(request)
        return outcome

    async def _read_outcome(self, request: Request) -> Outcome | None:
        try:
            anywhere = not request.payload or is_keyed(request.request_id)
            return await self._journal.outcome(request, anywhere=anywhere)
        except StoreError:
            return None  # the watcher asks again

    # --- open requests ------------------------------------------------------------------------------
    def _begin(self, request: Request, method: Method[Any, Any]) -> _Open:
        if self._is_gone:
            raise Draining(CLOSED)
        answer: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        entry = _Open(request, method, answer, time.monotonic() + RECHECK_S)
        self._open.add(entry)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        return entry

    async def _expect(self, entry: _Open) -> None:
        try:
            await self._replies.expect(entry.request.request_id, entry.deliver)
        except StoreError as error:
            raise Unavailable(f"no answer could be heard: {error}") from error

    def _end(self, entry: _Open) -> None:
        self._open.discard(entry)
        self._replies.forget(entry.request.request_id, entry.deliver)
        entry.answer.cancel()

    async def _watch(self) -> None:
        """Keep the deadlines of what is open, and look after it. Ends when nothing is open."""
        rechecking: asyncio.Task[None] | None = None
        while self._open:
            await asyncio.sleep(WATCH_S)
            for entry in self._open:
                entry.arm(asyncio.get_running_loop().time())
            if (
                rechecking is None or rechecking.done()
            ):  # a slow store must not hold the deadlines up
                rechecking = asyncio.create_task(self._recheck_due())

    async def _recheck_due(self) -> None:
        """Send again what was not accepted, read what was not delivered."""
        now = time.monotonic()
        due = [e for e in self._open if e.recheck_s <= now and not e.is_held]
        for first in range(0, len(due), RECHECKS_AT_ONCE_MAX):
            batch = due[first : first + RECHECKS_AT_ONCE_MAX]
            await asyncio.gather(*(self._recheck(entry) for entry in batch))

    async def _recheck(self, entry: _Open) -> None:
        entry.sent_again += 1
        entry.recheck_s = time.monotonic() + backoff_s(
            entry.sent_again + 1, first_s=RECHECK_S, max_s=RECHECK_S_MAX
        )
        try:
            if self._began_again(entry):
                await self._look_for(entry)
            elif entry.accepted is None:
                again = replace(entry.request, attempt=entry.sent_again + 1)
                entry.accepted = await self._log.append(again, timeout_s=1.0)
                await self._check_key(entry.request, entry.method, entry.accepted)
            elif (outcome := await self._read_outcome(entry.request)) is not None:
                entry.deliver(outcome)
        except StoreFull as error:
            # The first try may be stored nevertheless: cancelling ends that doubt.
            entry.refused = Overloaded(f"{entry.request.service}: {error}")
            entry.time_out()
        except StoreForbidden as error:
            entry.refused = RefusedByNats(f"{entry.request.service}: {error}")
            entry.time_out()
        except KeyReused as error:
            entry.refuse(error)
        except StoreError:
            return  # not reachable now: the next round tries again
        except Exception as error:  # of one answer: the others are looked after
            log.error("recheck_failed", **about(entry.request), exc_info=error)

    def _began_again(self, entry: _Open) -> bool:
        """Whether its service's requests are in another log than it was accepted in."""
        service = entry.request.service
        log_id = self._directory.requests_log(service)
        entry.log = entry.log or log_id
        return log_id != entry.log and not self._directory.lost(service)

    async def _look_for(self, entry: _Open) -> None:
        """Send what is our own again; of another's, say that it is gone. Raises: StoreError."""
        request, log_id = entry.request, self._directory.requests_log(entry.request.service)
        if request.payload:
            entry.accepted = None
        elif not await self._log.holds(request.service, request.request_id, timeout_s=RESOLVE_S):
            outcome = await self._journal.outcome(request, anywhere=True)
            if outcome is None:
                entry.refuse(_never_accepted(request))
            else:
                entry.deliver(outcome)
        entry.log = log_id


def _never_accepted(request: Request) -> NeverAccepted:
    return NeverAccepted(
        f"{request.request_id}: neither the requests of {request.service} nor its journal have it;"
        " it was never accepted, is past its retention, or was lost",
        request.request_id,
    )


def _chain(parent: Request, method: Method[Any, Any], resource: str | None) -> tuple[str, ...]:
    """The resources that wait for a request to `resource`. Raises: Deadlock."""
    chain = parent.chain
    if parent.resource is not None:
        chain = (*chain, f"{parent.service}/{resource_token(parent.resource)}")
    if resource is not None and f"{method.service}/{resource_token(resource)}" in chain:
        raise Deadlock(
            f"{method!r} on {resource!r}: this call chain already holds it ({' > '.join(chain)});"
            " `submit` does not wait"
        )
    return chain


def _is_same(request: Request, method: Method[Any, Any], stored: Request) -> bool:
    """Whether a service reads both as the same request."""
    if stored.request_id != request.request_id:
        return False
    if stored.fingerprint == request.fingerprint:
        return True
    if stored.method != request.method:
        return False
    try:
        return method.fingerprint(stored.resource, stored.payload) == request.fingerprint
    except InvalidPayload:
        return False


def _key_reused(request: Request) -> KeyReused:
    return KeyReused(
        f"idempotency key of {request.request_id} was used for another request"
        " (method, resource or payload differ): use a new key"
    )


def _left_open(request: Request) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the client was closed while {request.request_id} was open: attach to it later",
        request.request_id,
    )
