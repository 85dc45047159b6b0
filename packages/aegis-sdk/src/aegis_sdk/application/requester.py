"""What callers and handlers ask: one request, one definite answer within its deadline (G1, G4, G8).

A request is composed (composing.py) and goes its way (turns/caller.py), which gives its outcome. Here the outcome
becomes a reply or an error. Each request is traced and counted, and a handler that waits for an answer gives its
place to others meanwhile.

Theory of operation. A caller's call has one id and one outcome. A handler's call is a *child*: its handler may run
again, in this process or in another, and must be given the same reply. Three things follow (calls.py, children.py
have the reasons):

- Before a child is sent by a run after the first, it waits until what earlier runs asked is asked again
  (`_before_child`).
- A failure that the handler was told of may be asked anew by a retry, as a further *generation* of the child: the
  n-th retry goes through up to n of them, in order, until one has an outcome that stands.
- An error that says "nobody knows" is told to the handler's place, too (`told_doubt`). So a run that ends with it
  is repeated instead of becoming an outcome. The same error of the handler's own making is an ordinary failure.

Arguments are checked before anything else is done, and a wrong one has no effect. `hand_in` and `later` send
nothing: they become part of the handler's outcome (G3), and are lost with a run that has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from aegis_sdk.application.calls import Calls, may_be_asked_anew
from aegis_sdk.application.children import Children
from aegis_sdk.application.composing import Composer
from aegis_sdk.application.outcomes import DOUBTS, error_of, result_of
from aegis_sdk.application.place import told_doubt, waiting
from aegis_sdk.application.reading import Reading, ReadsOut
from aegis_sdk.application.tracing import LOG_TRACER, Tracer
from aegis_sdk.application.turns.caller import BeforeSending, Caller
from aegis_sdk.context import Ticket
from aegis_sdk.contract import arguments
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import check_request_id, generation_id
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.metrics import Answer
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.turns.doubt import Because
from aegis_sdk.errors import (
    AegisError,
    ContractError,
    InvalidArgument,
    NotExecuted,
    OutcomeUnknown,
    Unavailable,
)
from aegis_sdk.telemetry import log

Req = TypeVar("Req")
Rep = TypeVar("Rep")

TIMEOUT_S: Final = 5.0
"""Outlasts the election of a new stream leader in a cluster of three (4-5 s seen)."""


class Requester:
    """Makes requests for one client. `caller` is its token, unique to this process and connection.

    It lives as long as its client or instance. Ids come from `Composer` alone, so no two requests of a client share
    one but by a key.
    """

    def __init__(
        self,
        way: Caller,
        *,
        caller: str,
        payload_bytes_max: Callable[[], int],
        reads: ReadsOut,
        recorder: Recorder = NO_RECORDER,
        tracer: Tracer = LOG_TRACER,
    ) -> None:
        self._way = way
        self._composer = Composer(caller=caller, payload_bytes_max=payload_bytes_max)
        self._children = Children(way)
        self.reading = Reading(
            reads,
            self._composer,
            way.directory,
            way.open.positions,
            recorder=recorder,
            tracer=tracer,
        )
        self._recorder = recorder
        self._tracer = tracer

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
        """One call: its reply. `timeout_s` is the time to its deadline, in seconds; `key` is the user's own id for
        it, within the service.

        Raises: what `Aegis.request` lists.
        """
        resource = arguments.optional_text(resource, "resource")
        key = arguments.optional_text(key, "key")
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        request = self._composer.compose(
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
        not_before: Any = None,
        traceparent: str = "",
    ) -> Ticket:
        """Store a request and return its ticket; nobody waits for its outcome. `expires_s`: seconds to its
        deadline, None for never. `not_before`: a datetime, or seconds from now; it needs a resource. `timeout_s`
        bounds the storing alone.

        Raises: what `Aegis.submit` lists.
        """
        resource = arguments.optional_text(resource, "resource")
        key = arguments.optional_text(key, "key")
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        expires_s = arguments.optional_duration_s(expires_s, "expires_s")
        not_before_s = _begins_s(not_before, resource, expires_s)
        request = self._composer.compose(
            method,
            payload,
            resource=resource,
            key=key,
            deadline_s=None if expires_s is None else time.time() + expires_s,
            traceparent=traceparent,
            ticket=True,
            not_before_s=not_before_s,
        )
        self._recorder.stored(request.service, Because.SUBMITTED)
        begun_s = time.perf_counter()
        try:
            with self._tracer.sending(request, parent=traceparent):
                await self._way.store(request, method, timeout_s=timeout_s)
        except AegisError as error:
            self._note_error(request, error, begun_s)
            raise
        return Ticket(request.request_id, request.service, request.resource)

    async def attach(self, request_id: Any, method: Method[Any, Rep], *, timeout_s: Any) -> Rep:
        """The reply to a request that anybody made. In a handler it gives its place to others, and leaves its run
        in doubt if nobody knows.

        Raises: what `Aegis.attach` lists.
        """
        request_id = check_request_id(request_id)
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        arguments.instance_of(method, Method, "method")
        try:
            with waiting():
                outcome = await self._way.find(request_id, method, timeout_s=timeout_s)
        except OutcomeUnknown:
            told_doubt()
            raise
        return result_of(outcome, method, request_id)

    async def cancel(
        self, request_id: Any, method: Method[Any, Any] | None, *, resource: Any, timeout_s: Any
    ) -> OutcomeKind:
        """End a request, whoever made it, and say how it ended. `method` spares the search in all services,
        `resource` is needed where it was only sent.

        Raises: what `Aegis.cancel` lists.
        """
        request_id = check_request_id(request_id)
        resource = arguments.optional_text(resource, "resource")
        timeout_s = arguments.duration_s(timeout_s, "timeout_s")
        if method is not None:
            arguments.instance_of(method, Method, "method")
        outcome = await self._way.cancel(request_id, method, resource, timeout_s=timeout_s)
        log.info("request_cancelled", request_id=request_id, outcome=outcome.kind.value)
        return outcome.kind

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
        """A handler's call to another service or resource: its reply. `parent` is the request being served, `calls`
        those of this run.

        Without `timeout_s` it has its parent's deadline, and TIMEOUT_S if that has none. With one it ends with its
        parent at the latest.

        Raises: CallChanged, Deadlock, and what `Aegis.request` lists.
        """
        resource = arguments.optional_text(resource, "resource")
        timeout_s = arguments.optional_duration_s(timeout_s, "timeout_s")
        request = self._composer.derive(
            method,
            payload,
            resource=resource,
            parent=parent,
            calls=calls,
            deadline_s=_deadline_s(parent, timeout_s),
            waits=True,
        )
        call = request.request_id
        # The handler answered this failure by another call, in an earlier run: both would take
        # effect if it were asked again.
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
        before = partial(self._before_child, calls, again)
        for generation in range(calls.retry + 1):
            asked = replace(request, request_id=generation_id(request.request_id, generation))
            outcome = await self._outcome_of(
                asked, method, again=again, parent=above, before=before
            )
            if not may_be_asked_anew(outcome):
                break
        return outcome

    async def _before_child(self, calls: Calls, again: bool, child: Request) -> None:
        """Hold the call while earlier ones are missing, then note that it may take effect from now on. In this
        order: what is refused was never sent. Raises: CallChanged, Unavailable.
        """
        if again:
            await self._children.unless_changed(child, calls)
        calls.sent(child)

    async def hand_in(
        self,
        method: Method[Req, Any],
        payload: Req,
        *,
        resource: Any,
        parent: Request,
        calls: Calls,
    ) -> Ticket:
        """What a handler submits: part of its outcome, sent when that is stored. The ticket's id is known before,
        and the same in each run.
        """
        resource = arguments.optional_text(resource, "resource")
        request = self._composer.derive(
            method, payload, resource=resource, parent=parent, calls=calls, waits=False
        )
        begun_s = time.perf_counter()
        try:
            with self._tracer.sending(request, parent=parent.traceparent):
                await self._way.hand_in(request, method, parent=parent, calls=calls)
        except AegisError as error:
            self._note_error(request, error, begun_s)
            raise
        return Ticket(request.request_id, request.service, request.resource)

    def later(
        self, method: Method[Any, Any], payload: Any, *, name: str, parent: Request
    ) -> Request:
        """What a timer of that name asks, as a request: part of the handler's outcome. Also in a handler's thread."""
        return self._composer.later(method, payload, name=name, parent=parent)

    # --- life -------------------------------------------------------------------------------------
    def rename(self, caller: str) -> None:
        """New requests go by this name: a copy of this process numbers its own from the same number on."""
        self._composer.rename(caller)

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Refuse new requests, wait up to `drain_s` for open ones, and end those left: each is told what is known."""
        self._composer.is_closed = True
        await self._way.close(drain_s=drain_s)

    # --- one request ------------------------------------------------------------------------------
    async def _outcome_of(
        self,
        request: Request,
        method: Method[Any, Any],
        *,
        again: bool,
        parent: str,
        before: BeforeSending | None = None,
    ) -> Outcome:
        """Trace it, count it, and wait for it; a handler that waits gives its place to others. Raises: as
        `Caller.settle`.
        """
        begun_s = time.perf_counter()
        try:
            with self._tracer.sending(request, parent=parent) as span, waiting():
                outcome = await self._way.settle(request, method, again=again, before=before)
                span.stored(outcome)
        except AegisError as error:
            self._note_error(request, error, begun_s)
            raise
        self._recorder.answered(request, outcome, time.perf_counter() - begun_s)
        return outcome

    def _note_error(self, request: Request, error: AegisError, begun_s: float) -> None:
        """Count a request without an outcome. A doubt is told to the handler that runs here, if one does."""
        answer = Answer.UNKNOWN if isinstance(error, OutcomeUnknown) else Answer.REFUSED
        self._recorder.unanswered(request, answer, time.perf_counter() - begun_s)
        if isinstance(error, DOUBTS):
            told_doubt()


def _begins_s(not_before: Any, resource: str | None, expires_s: float | None) -> float:
    """Unix time; 0.0: at once. Raises: InvalidArgument."""
    if not_before is None:
        return 0.0
    if resource is None:
        raise InvalidArgument(
            "not_before needs a resource, whose state keeps the request until then; a group has no state: let a resource's"
            " handler ask the group when it is time"
        )
    if isinstance(not_before, datetime):
        begins_s = arguments.moment_s(not_before, "not_before")
    else:
        begins_s = time.time() + arguments.duration_s(not_before, "not_before")
    if expires_s is not None and begins_s >= time.time() + expires_s:
        raise InvalidArgument(
            f"it would expire before it may begin: expires_s ({expires_s:g}) counts from now, not from not_before"
        )
    return max(begins_s, 0.001)


def _deadline_s(parent: Request, timeout_s: float | None) -> float:
    """Of a child: its parent's, at the latest."""
    deadline_s = time.time() + (TIMEOUT_S if timeout_s is None else timeout_s)
    if parent.deadline_s is None:
        return deadline_s
    return parent.deadline_s if timeout_s is None else min(deadline_s, parent.deadline_s)
