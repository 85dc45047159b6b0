"""Runs a handler for one request and turns whatever happens into an outcome.

It knows nothing of resources' order, fences or acknowledgements. Invariant: it returns an outcome, whatever
users' code raises and does to the task that it runs in; only an instance that stops leaves a request without
one (its worker is cancelled), and the next active runs it. Users' code is the handler, and what pydantic
calls of its models on the way in and out.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import time
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any, Final

from aegis_sdk.application.calls import Calls
from aegis_sdk.application.outcomes import DOUBTS, deciding, failed_by, rejected_by
from aegis_sdk.application.place import NOTHING, PLACE, Holder, Place
from aegis_sdk.application.runs import DeadlinePassed, Run, Runs
from aegis_sdk.application.threads import Threads
from aegis_sdk.application.tracing import LOG_TRACER, NO_SPAN, Span, Tracer, code_of
from aegis_sdk.context import Asks, Context, ResourceContext
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import is_nested
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.errors import (
    ContractError,
    Expired,
    Rejected,
    UnknownMethod,
)
from aegis_sdk.service import Handler, Service
from aegis_sdk.telemetry import about, log

DOUBT_WAIT_S_MAX: Final = 1.0
BLOCKED_S: Final = 1.0
"""So long a blocked event loop is told of; after stall_limit_s its resources go elsewhere."""


class Runner:
    """Runs the handlers of one service on this instance."""

    def __init__(
        self,
        service: Service,
        *,
        instance_id: str,
        asks: Asks,
        threads: Threads,
        tracer: Tracer = LOG_TRACER,
    ) -> None:
        self.instance_id = instance_id
        self._service = service
        self._tracer = tracer
        self._asks = asks
        self._threads = threads
        self._runs = Runs(instance_id=instance_id)
        self._last_pure = ""
        self.running = 0

    def span(self, request: Request, *, begun: int, epoch: int = 0) -> Span:
        """Around the run and the storing of its outcome."""
        return self._tracer.serving(
            request, attempt=begun, epoch=epoch, instance_id=self.instance_id
        )

    async def run(
        self,
        request: Request,
        *,
        begun: int,
        request_seq: int,
        epoch: int = 0,
        values: Mapping[str, Any] | None = None,
        span: Span = NO_SPAN,
        credit: Holder = NOTHING,
    ) -> Outcome:
        """The outcome of `request`; `begun` counts this run among its begins, from 1.

        `request_seq` is its place in the request stream; `values` and `epoch` are the resource's, for a
        targeted request. The outcome carries no change unless it is `executed`. `credit` is told when
        the handler waits for others, or hangs.
        """
        self.running += 1
        place = Place()
        place.hold(credit)
        try:
            outcome = await self._outcome(request, begun, epoch, values, span, place)
        finally:
            place.end()
            self.running -= 1
        return self._signed(request, outcome, request_seq, epoch)

    async def stop(self) -> None:
        """After all runs were dropped: returns when they have ended, or soon without those that don't end."""
        self._threads.close()
        await self._runs.stop()

    def blocked(self, late_s: float) -> None:
        """The loop is told to have been blocked for so long: say by whose handlers, as far as can be known."""
        if late_s < BLOCKED_S:
            return
        methods = self._runs.methods_since(late_s * 0.9)
        log.warning(
            "event_loop_blocked",
            service=self._service.name,
            instance_id=self.instance_id,
            duration_s=round(late_s, 3),
            methods=methods or [self._last_pure],
            hint="your handler blocked the event loop: make it a plain `def`, which runs in a thread, or let it await",
        )

    def is_pure(self, request: Request) -> bool:
        """Whether `compute` can give its outcome."""
        handler = self._service.handlers.get(request.method)
        return handler is not None and handler.pure

    def compute(
        self, request: Request, *, request_seq: int, epoch: int, values: Mapping[str, Any]
    ) -> Outcome:
        """`run` of a pure handler, at once."""
        try:
            handler = self._handler(request)
        except ContractError as error:
            outcome = rejected_by(error)
        else:
            outcome = self._computed(handler, self._context(request, 1, epoch, values, Calls()))
        return self._signed(request, outcome, request_seq, epoch)

    def expire(self, request: Request, *, epoch: int) -> Outcome:
        """The outcome of a request that is not run, since its deadline has passed. It names no place in the
        request stream, for it may be stored before those in front of it are.
        """
        return self._signed(request, expired(request), 0, epoch)

    def _signed(self, request: Request, outcome: Outcome, request_seq: int, epoch: int) -> Outcome:
        if outcome.kind is OutcomeKind.EXECUTED and is_expired(request):
            outcome = expired(request)
        outcome.request_seq = request_seq
        outcome.epoch = epoch
        outcome.instance_id = self.instance_id
        outcome.fingerprint = request.fingerprint
        outcome.traceparent = request.traceparent
        return outcome

    async def _outcome(
        self,
        request: Request,
        begun: int,
        epoch: int,
        values: Mapping[str, Any] | None,
        span: Span,
        place: Place,
    ) -> Outcome:
        try:
            handler = self._handler(request)
        except ContractError as error:
            return rejected_by(error)
        if handler.pure:
            return self._computed(handler, self._context(request, begun, epoch, values, Calls()))
        retry = doubts = 0
        calls = Calls(has_past=begun > 1)
        while True:
            if is_expired(request):
                return expired(request)
            context = self._context(request, begun + retry + doubts, epoch, values, calls)
            place.is_in_doubt = False
            ended = await self._ended(handler, context, place)
            if isinstance(ended, Outcome):
                return ended
            cause = deciding(ended.error)
            if isinstance(cause, Rejected):
                return rejected_by(cause)
            in_doubt = isinstance(cause, DOUBTS) and place.is_in_doubt  # not of its own making
            calls = calls.retried(retry=retry + (not in_doubt))
            if in_doubt:
                # A nested request is in doubt: an outcome now would fix the doubt. Its id is the same
                # in the next run, so asking again resolves it.
                doubts += 1
                self._note("handler_in_doubt", request, cause, attempt=context.attempt)
                span.retried(cause, attempt=begun + retry + doubts)
                await asyncio.sleep(backoff_s(doubts, first_s=0.05, max_s=DOUBT_WAIT_S_MAX))
                continue
            retry += 1
            wait_s = handler.retries.wait_before(retry + 1)
            self._note(
                "handler_failed",
                request,
                cause,
                attempt=context.attempt,
                will_retry=wait_s is not None,
            )
            if wait_s is None:
                return failed_by(cause)
            span.retried(cause, attempt=begun + retry + doubts)
            await asyncio.sleep(wait_s)

    async def _ended(self, handler: Handler, context: Context, place: Place) -> Outcome | _Raised:
        """The outcome of one run, or what it raised.

        It is a task or a thread of its own: what a handler does to "its task" ends with that (it cancels it,
        leaves a scope or a timeout behind, sets context variables).
        """
        request, loop = context._request, asyncio.get_running_loop()
        ended: Outcome | _Raised | _Later
        try:
            run = Run(request, place, loop, _left_s(request))
            if handler.is_async:
                work: asyncio.Future[Any] = loop.create_task(_in_task(handler, context, run))
            else:
                work = self._in_thread(handler, context, place)
                work.add_done_callback(run.end)
            ended = await self._runs.of(run, work)
            if isinstance(ended, _Later):
                run = Run(request, place, loop, _left_s(request))
                work = loop.create_task(_later(handler, context, ended.reply, run))
                ended = await self._runs.of(run, work)
            assert not isinstance(ended, _Later)
            return ended
        except DeadlinePassed:
            return expired(request)
        except BaseException as error:
            if _is_being_cancelled():  # whatever the handler made of it
                raise asyncio.CancelledError from None
            return _Raised(error)

    def _computed(self, handler: Handler, context: Context) -> Outcome:
        request = context._request
        if is_expired(request):
            return expired(request)
        self._last_pure = request.method
        try:
            with _NoTask():
                return _computed(handler, context)
        except BaseException as error:
            cause = deciding(error)
            if isinstance(cause, Rejected):
                return rejected_by(cause)
            self._note("handler_failed", request, cause, attempt=context.attempt, will_retry=False)
            return failed_by(cause)

    def _handler(self, request: Request) -> Handler:
        handler = self._service.handlers.get(request.method)
        if handler is None:
            raise UnknownMethod(
                f"service {self._service.name} has no method {request.method!r};"
                f" it has {', '.join(sorted(self._service.handlers)) or 'none'}"
            )
        if handler.targeted and request.resource is None:
            raise ContractError(f"{handler.method!r} needs a resource")
        return handler

    def _context(
        self,
        request: Request,
        begun: int,
        epoch: int,
        values: Mapping[str, Any] | None,
        calls: Calls,
    ) -> Context:
        if begun > 1:
            request = replace(request, attempt=2)  # its nested requests may have outcomes already
        if values is None:
            return Context(
                request, instance_id=self.instance_id, begun=begun, asks=self._asks, calls=calls
            )
        return ResourceContext(
            request,
            instance_id=self.instance_id,
            begun=begun,
            asks=self._asks,
            calls=calls,
            epoch=epoch,
            values=values,
        )

    def _in_thread(
        self, handler: Handler, context: Context, place: Place
    ) -> asyncio.Future[Outcome | _Raised | _Later]:
        context._loop = asyncio.get_running_loop()
        # The handler's context variables, the current span among them, hold in its thread too.
        here = contextvars.copy_context()
        here.run(PLACE.set, place)

        def work() -> object:
            return here.run(_in_thread, handler, context)

        return self._threads.start(work, place, nested=is_nested(context.request_id))

    def _note(self, event: str, request: Request, error: BaseException, **more: object) -> None:
        log.warning(
            event,
            **about(request),
            instance_id=self.instance_id,
            error_code=code_of(error),
            exc_info=error,
            **more,
        )


class _Raised:
    """What a handler raised. A task that raises SystemExit itself would end the loop, no future carries StopIteration."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Later:
    """What a plain `def` returned that wraps an async one: its reply is to be awaited."""

    __slots__ = ("reply",)

    def __init__(self, reply: Awaitable[object]) -> None:
        self.reply = reply


async def _in_task(handler: Handler, context: Context, run: Run) -> Outcome | _Raised:
    PLACE.set(run.place)
    try:
        payload = _decoded(handler, context)
        if isinstance(payload, Outcome):
            return payload
        return _executed(handler, context, await handler.function(context, payload))
    except BaseException as error:
        return _Raised(error)
    finally:
        run.end()


def _in_thread(handler: Handler, context: Context) -> Outcome | _Raised | _Later:
    try:
        payload = _decoded(handler, context)
        if isinstance(payload, Outcome):
            return payload
        reply = handler.function(context, payload)
        return _Later(reply) if inspect.isawaitable(reply) else _executed(handler, context, reply)
    except BaseException as error:
        return _Raised(error)


async def _later(
    handler: Handler, context: Context, reply: Awaitable[object], run: Run
) -> Outcome | _Raised:
    PLACE.set(run.place)
    try:
        return _executed(handler, context, await reply)
    except BaseException as error:
        return _Raised(error)
    finally:
        run.end()


def _computed(handler: Handler, context: Context) -> Outcome:
    payload = _decoded(handler, context)
    if isinstance(payload, Outcome):
        return payload
    reply = handler.function(context, payload)
    if inspect.isawaitable(reply):
        if inspect.iscoroutine(reply):
            reply.close()  # else Python warns that it was never awaited
        raise ContractError(
            f"the pure handler of {handler.method!r} returned something to be awaited, and can't wait:"
            " register it without pure=True"
        )
    return _executed(handler, context, reply)


class _NoTask:
    """Within it no task is the current one: users' code that runs here can cancel nobody's."""

    __slots__ = ("_loop", "_task")

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if self._task is not None:
            asyncio._leave_task(self._loop, self._task)

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            asyncio._enter_task(self._loop, self._task)


def _decoded(handler: Handler, context: Context) -> object:
    """The payload as a value of its own for each run; the outcome, when it does not fit."""
    try:
        return handler.method.request.decode(context._request.payload)
    except ContractError as error:
        return rejected_by(error)


def _is_being_cancelled() -> bool:
    """Whether the instance ends this task. No handler can reach it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _executed(handler: Handler, context: Context, reply: object) -> Outcome:
    body = handler.method.reply.encode(reply)
    change = context._change()
    encoded = change.encode() if change else b""
    return Outcome(OutcomeKind.EXECUTED, body, encoded, changed=change)


def _left_s(request: Request) -> float:
    return math.inf if request.deadline_s is None else request.deadline_s - time.time()


def is_expired(request: Request) -> bool:
    """By this machine's clock; the caller's `cancelled` is exact whatever the clocks say."""
    return request.deadline_s is not None and time.time() >= request.deadline_s


def expired(request: Request) -> Outcome:
    return Outcome.error(
        OutcomeKind.EXPIRED,
        Expired.code,
        "the deadline had passed when its turn came",
        fingerprint=request.fingerprint,
        traceparent=request.traceparent,
    )
