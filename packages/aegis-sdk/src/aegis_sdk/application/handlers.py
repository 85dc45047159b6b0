"""Runs a handler for one request and turns whatever happens into an outcome.

It knows nothing of resources' order, gates or acknowledgements. Invariant: it returns an outcome, whatever users'
code raises and does to the task that it runs in. Only a run that is dropped leaves a request without one. The host
drops it when its instance stops, when the resource goes to another owner, or when the caller gave up or may have.
Users' code is the handler, and what pydantic calls of its models on the way in and out.

Theory of operation. An `Execution` is one begin of a request: one run of its handler, or several, until one gives
the outcome.

| the run ended with | what follows |
| --- | --- |
| a reply that its type can hold | `executed`, with the change of state and what was handed in |
| `Rejected`, or a payload that does not fit | `rejected`: the answer, never tried again |
| a call whose outcome nobody knows | the handler runs again, without end: a reply now would fix the doubt |
| any other exception | it runs again as `retries=` says, then `failed` |
| its deadline | `expired`, whatever the handler does afterwards |

Why a run never ends in the loop's own hands: a handler may cancel "its" task, raise SystemExit, or leave a timeout
behind. So each run that waits is a task or a thread of its own, and its exception is carried as a value (`Raised`).
What runs on the loop itself (pure handlers, readers) is run outside of any task.

Each run decodes the payload anew and has a context of its own: what a run before it has changed in its values is
gone with it. What the runs share are the calls that they made (calls.py), so that a later run is given the same
replies.

A crash in a run leaves nothing here. The next owner begins the request once more, with `begun` one higher where it
may be a suspect.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from aegis_sdk.application.calls import Calls
from aegis_sdk.application.outcomes import (
    DOUBTS,
    deciding,
    failed_by,
    is_unread,
    not_here,
    rejected_by,
)
from aegis_sdk.application.place import NOTHING, PLACE, Holder, Place
from aegis_sdk.application.runs import Run, Runs
from aegis_sdk.application.threads import Threads
from aegis_sdk.application.tracing import LOG_TRACER, NO_SPAN, Span, Tracer, code_of
from aegis_sdk.context import Asks, Context, ReadContext, ResourceContext
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import is_nested
from aegis_sdk.contract.subscription import Subscription
from aegis_sdk.contract.turns.timers import NO_TIMERS, Timer
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.errors import (
    ContractError,
    Expired,
    Rejected,
    UnknownMethod,
)
from aegis_sdk.service import Handler, Reader, Service
from aegis_sdk.telemetry import about, log

DOUBT_WAIT_S_MAX: Final = 1.0
"""Between two runs of a handler whose call is in doubt: it waits for NATS, or for the service that it asked."""
FAILED_WAIT_S: Final = 1.0
"""Before the next run, where a bug of ours kept the last one from being judged."""
BLOCKED_S: Final = 1.0
"""So long a blocked event loop is told of; after stall_limit_s its resources go elsewhere."""


_REFUSALS: Final = (OutcomeKind.REJECTED, OutcomeKind.FAILED)
"""Of an event: its effect will not come, and whoever emitted it is not told."""


class Runner:
    """Runs the handlers of one service on this instance, from its start to `stop`. All of it runs on one event
    loop, but for what `Threads` runs. It keeps no state of resources: values, timers and epoch are given with each
    run.
    """

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
        self.runs = Runs(instance_id=instance_id)
        self._last_pure = ""
        """The method that ran last on the loop itself: whom a blocked loop is told of, when no other handler has
        run for so long.
        """
        self.running = 0
        """Executions that have neither ended nor were dropped. Heartbeats read it from another thread."""
        self.large_change_bytes = service.large_change_bytes
        """A change of state over this many bytes is told of, once a method. Nothing is refused by it."""
        self._told_large: set[str] = set()
        """Methods whose large changes were told of."""

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
        epoch: int = 0,
        values: Mapping[str, Any] | None = None,
        timers: Mapping[str, Timer] = NO_TIMERS,
        span: Span = NO_SPAN,
        credit: Holder = NOTHING,
    ) -> Outcome:
        """The outcome of `request`, as by `start`; of a pure handler at once. When it is cancelled, the run is
        dropped.
        """
        if self.is_pure(request):
            outcome = self._outcome_of_pure(request, begun, epoch, values, timers)
        else:
            ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

            def end(outcome: Outcome) -> None:
                if not ended.done():
                    ended.set_result(outcome)

            execution = self.start(
                request,
                end,
                begun=begun,
                epoch=epoch,
                values=values,
                timers=timers,
                span=span,
                credit=credit,
            )
            try:
                outcome = await ended
            except asyncio.CancelledError:
                execution.drop()
                raise
        return outcome

    def start(
        self,
        request: Request,
        on_end: Callable[[Outcome], None],
        *,
        begun: int,
        epoch: int = 0,
        values: Mapping[str, Any] | None = None,
        timers: Mapping[str, Timer] = NO_TIMERS,
        span: Span = NO_SPAN,
        credit: Holder = NOTHING,
    ) -> Execution:
        """Run the handler of `request`; the loop calls `on_end` with the outcome, later and once, unless it is dropped.

        `begun` counts this run among its begins, from 1. `values`, `timers` and `epoch` are the resource's, for a targeted
        request. The outcome carries no change unless it is `executed`. `credit` is told when the handler waits
        for others, or hangs.
        """
        return Execution(self, request, on_end, begun, epoch, values, timers, span, credit)

    @property
    def threads_at_work(self) -> int:
        """Plain `def` handlers that neither wait for an answer nor were given up."""
        return self._threads.at_work

    async def stop(self) -> None:
        """After all runs were dropped: returns when they have ended, or soon without those that don't end."""
        self._threads.close()
        await self.runs.stop()

    def blocked(self, late_s: float) -> None:
        """The loop is told to have been blocked for so long: say by whose handlers, as far as can be known."""
        if late_s < BLOCKED_S:
            return
        methods = self.runs.methods_since(late_s * 0.9)
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

    def is_urgent(self, request: Request) -> bool:
        """Whether it passes those of its resource that wait."""
        handler = self._service.handlers.get(request.method)
        return handler is not None and handler.urgent

    def tell_large_change(self, request: Request, size: int) -> None:
        """Once a method: it would fill the log of who does not look, and its time grows with the value."""
        if request.method not in self._told_large:
            self._told_large.add(request.method)
            log.warning(
                "change_large",
                **about(request),
                instance_id=self.instance_id,
                change_bytes=size,
                hint="a key that is set is stored whole: give each item a key of its own, and read them by"
                " ctx.state.items(prefix) (docs/howto/state.md)",
            )

    def ends_in_letter(self, request: Request, outcome: Outcome) -> bool:
        """Whether an operator has to see this outcome: of an event, nobody else is told that it has no effect."""
        if outcome.kind is OutcomeKind.EXECUTED:
            return False
        handler = self._service.handlers.get(request.method)
        is_event = handler is not None and bool(handler.takes)
        return is_unread(outcome) or (is_event and outcome.kind in _REFUSALS)

    def route(self, request: Request) -> Subscription | None:
        """Of an event's request that names no resource, and whose handler needs one."""
        subscription = self._service.subscriptions.get(request.method)
        if subscription is None or subscription.resource is None or request.resource is not None:
            return None
        return subscription

    def lacks(self, request: Request) -> bool:
        """Whether this version has no such method."""
        return request.method not in self._service.handlers

    def not_here(self, request: Request, error: UnknownMethod) -> Outcome:
        """The outcome for a request whose method another version has, but not this one."""
        log.warning("method_not_here", **about(request), instance_id=self.instance_id)
        return not_here(error)

    def compute(
        self,
        request: Request,
        *,
        epoch: int,
        values: Mapping[str, Any],
        timers: Mapping[str, Timer] = NO_TIMERS,
    ) -> Outcome:
        """`run` of a pure handler, at once."""
        return self._outcome_of_pure(request, 1, epoch, values, timers)

    def expire(self, request: Request, *, epoch: int) -> Outcome:
        """The outcome of a request that is not run, since its deadline has passed. `epoch` is its resource's."""
        return self.signed(request, expired(request), epoch)

    def signed(self, request: Request, outcome: Outcome, epoch: int) -> Outcome:
        """What all outcomes of this instance say. A reply that comes past its deadline becomes `expired`, by this
        clock: it spares the caller the question, and is not what makes the answer exact (G4).
        """
        if outcome.kind is OutcomeKind.EXECUTED and is_expired(request):
            outcome = expired(request)
        outcome.epoch = epoch
        outcome.instance_id = self.instance_id
        outcome.fingerprint = request.fingerprint
        outcome.traceparent = request.traceparent
        return outcome

    def _outcome_of_pure(
        self,
        request: Request,
        begun: int,
        epoch: int,
        values: Mapping[str, Any] | None,
        timers: Mapping[str, Timer],
    ) -> Outcome:
        """Computed on the loop, on values that may not be stored yet. Its calls are none: a pure handler asks
        nobody.
        """
        try:
            handler = self.handler_of(request)
        except ContractError as error:
            outcome = rejected_by(error)
        else:
            context = self.context(request, begun, epoch, values, timers, Calls())
            outcome = self._guarded(request, begun, _computed, handler, context)
        return self.signed(request, outcome, epoch)

    def read(self, request: Request, values: Mapping[str, Any]) -> Outcome:
        """What the reader of `request` says of these values, at once."""
        reader = self._service.readers.get(request.method)
        if reader is None:
            outcome = rejected_by(
                UnknownMethod(f"service {self._service.name} has no reader {request.method!r} here")
            )
        else:
            context = ReadContext(
                request,
                instance_id=self.instance_id,
                values=values,
                evolution=self._service.evolution,
            )
            outcome = self._guarded(request, 1, _read, reader, context)
        return self.signed(request, outcome, 0)

    def work(
        self, handler: Handler, context: Context, place: Place
    ) -> asyncio.Future[Outcome | Raised | _Later]:
        """One run of a handler that can wait. It is a task or a thread of its own: what a handler does to "its task" ends with
        that (it cancels it, leaves a scope or a timeout behind, sets context variables).
        """
        if handler.is_async:
            return asyncio.get_running_loop().create_task(_in_task(handler, context, place))
        return self._in_thread(handler, context, place)

    def _guarded(
        self,
        request: Request,
        attempt: int,
        function: Callable[[Any, Any], Outcome],
        of: Any,
        context: Any,
    ) -> Outcome:
        """The outcome of users' code that runs on the loop itself, whatever that does."""
        if is_expired(request):
            return expired(request)
        self._last_pure = request.method
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        # Private in asyncio, which has no public name for it.
        if task is not None:  # users' code that runs in none can cancel nobody's
            asyncio._leave_task(loop, task)
        try:
            return function(of, context)
        except BaseException as error:
            cause = deciding(error)
            if isinstance(cause, Rejected):
                return rejected_by(cause)
            self.note("handler_failed", request, cause, attempt=attempt, will_retry=False)
            return failed_by(cause)
        finally:
            if task is not None:
                asyncio._enter_task(loop, task)

    def handler_of(self, request: Request) -> Handler:
        """Raises: ContractError."""
        handler = self._service.handlers.get(request.method)
        if handler is None:
            raise UnknownMethod(
                f"service {self._service.name} has no method {request.method!r};"
                f" it has {', '.join(sorted(self._service.handlers)) or 'none'}"
            )
        if handler.targeted and request.resource is None:
            raise ContractError(f"{handler.method!r} needs a resource")
        return handler

    def context(
        self,
        request: Request,
        begun: int,
        epoch: int,
        values: Mapping[str, Any] | None,
        timers: Mapping[str, Timer],
        calls: Calls,
    ) -> Context:
        """What the handler is given."""
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
            timers=timers,
            methods=self._service.handlers,
            evolution=self._service.evolution,
        )

    def _in_thread(
        self, handler: Handler, context: Context, place: Place
    ) -> asyncio.Future[Outcome | Raised | _Later]:
        context._loop = asyncio.get_running_loop()
        # The handler's context variables, the current span among them, hold in its thread too.
        here = contextvars.copy_context()
        here.run(PLACE.set, place)

        def work() -> object:
            return here.run(_in_thread, handler, context)

        return self._threads.start(work, place, nested=is_nested(context.request_id))

    def note(self, event: str, request: Request, error: BaseException, **more: object) -> None:
        """At warning level."""
        log.warning(
            event,
            **about(request),
            instance_id=self.instance_id,
            error_code=code_of(error),
            exc_info=error,
            **more,
        )


class Execution:
    """All runs of one request's handler, until one of them gives the outcome.

    Made by `Runner.start`, which begins the first run. At each moment it has one of these, or none: a run that goes
    on (`_run`), or a timer for the next one (`_timer`). `on_end` is called once, by the loop, and not at all after
    `drop`.

    `_retry` counts failures and `_doubts` counts doubts. Only failures use up `retries=`.
    """

    __slots__ = (
        "_begun",
        "_calls",
        "_context",
        "_doubts",
        "_epoch",
        "_handler",
        "_on_end",
        "_place",
        "_request",
        "_retry",
        "_run",
        "_runner",
        "_span",
        "_timer",
        "_timers",
        "_values",
    )

    def __init__(
        self,
        runner: Runner,
        request: Request,
        on_end: Callable[[Outcome], None],
        begun: int,
        epoch: int,
        values: Mapping[str, Any] | None,
        timers: Mapping[str, Timer],
        span: Span,
        credit: Holder,
    ) -> None:
        self._runner = runner
        self._request = request
        self._on_end = on_end
        self._begun = begun
        self._epoch = epoch
        self._values = values
        self._timers = timers
        self._span = span
        self._retry = self._doubts = 0
        self._calls = Calls(has_past=begun > 1)
        self._place = Place()
        self._place.hold(credit)
        self._run: Run | None = None
        self._timer: asyncio.Handle | None = None
        runner.running += 1
        self._begin()

    def drop(self) -> None:
        """End without an outcome; twice is once."""
        if self._timer is not None:
            self._timer.cancel()
        if self._run is not None:
            self._runner.runs.drop(self._run)
        self._leave()

    def _leave(self) -> None:
        """It holds nothing any more: its place in the group and its thread are given back."""
        self._timer = self._run = None
        if not self._place.is_over:
            self._place.end()
            self._runner.running -= 1

    def _begin(self) -> None:
        """The next run."""
        runner, request, place = self._runner, self._request, self._place
        self._timer = None
        if is_expired(request):
            self._end_soon(expired(request))
            return
        # What the handler sees as `ctx.attempt`: it counts begins of earlier owners, too.
        attempt = self._begun + self._retry + self._doubts
        place.is_in_doubt = False
        try:
            self._handler = runner.handler_of(request)
            self._context = runner.context(
                request, attempt, self._epoch, self._values, self._timers, self._calls
            )
            work = runner.work(self._handler, self._context, place)
        except UnknownMethod as error:
            self._end_soon(runner.not_here(request, error))
        except ContractError as error:
            self._end_soon(rejected_by(error))
        else:
            self._run = runner.runs.begin(request, place, work, self._ended)

    def _ended(self, work: asyncio.Future[Any] | None) -> None:
        """A run has; None: its deadline passed."""
        self._run = None
        if work is None:
            self._end(expired(self._request))
            return
        ended = _result(work)
        if isinstance(ended, Outcome):
            self._end(ended)
        elif isinstance(ended, _Later):
            later = _later(self._handler, self._context, ended.reply, self._place)
            task = work.get_loop().create_task(later)
            self._run = self._runner.runs.begin(self._request, self._place, task, self._ended)
        else:
            self._raised(ended.error)

    def _raised(self, error: BaseException) -> None:
        """Decide by what was raised: an outcome, or when to run again."""
        try:
            outcome, wait_s = self._decide(error)
        except Exception as bug:  # of ours: the request must not be lost
            log.error("execution_failed", **about(self._request), exc_info=bug)
            outcome, wait_s = None, FAILED_WAIT_S
        if outcome is not None:
            self._end(outcome)
        else:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._begin)

    def _decide(self, error: BaseException) -> tuple[Outcome | None, float]:
        """The outcome, or in how many seconds to run again."""
        cause = deciding(error)
        if isinstance(cause, Rejected):
            return rejected_by(cause), 0.0
        in_doubt = isinstance(cause, DOUBTS) and self._place.is_in_doubt  # not of its own making
        attempt = self._context.attempt
        self._calls = self._calls.retried(retry=self._retry + (not in_doubt))
        if in_doubt:
            # A nested request is in doubt: an outcome now would fix the doubt. Its id is the same
            # in the next run, so asking again resolves it.
            self._doubts += 1
            self._runner.note("handler_in_doubt", self._request, cause, attempt=attempt)
            wait_s: float | None = backoff_s(self._doubts, first_s=0.05, max_s=DOUBT_WAIT_S_MAX)
        else:
            self._retry += 1
            wait_s = self._handler.retries.wait_before(self._retry + 1)
            will_retry = wait_s is not None
            self._runner.note(
                "handler_failed", self._request, cause, attempt=attempt, will_retry=will_retry
            )
        if wait_s is None:
            return failed_by(cause), 0.0
        self._span.retried(cause, attempt=self._begun + self._retry + self._doubts)
        return None, wait_s

    def _end_soon(self, outcome: Outcome) -> None:
        """Whoever starts is not called back before it knows what it has started."""
        self._timer = asyncio.get_running_loop().call_soon(self._end, outcome)

    def _end(self, outcome: Outcome) -> None:
        """With `outcome`. Whoever started it is called back last, when nothing is held any more."""
        self._leave()
        self._on_end(self._runner.signed(self._request, outcome, self._epoch))


class Raised:
    """What a handler raised. A task that raises SystemExit itself would end the loop, no future carries StopIteration."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Later:
    """What a plain `def` returned that wraps an async one: its reply is to be awaited."""

    __slots__ = ("reply",)

    def __init__(self, reply: Awaitable[object]) -> None:
        self.reply = reply


def _result(work: asyncio.Future[Any]) -> Outcome | Raised | _Later:
    """Of one that is done. A stranger may have cancelled it before it began."""
    if work.cancelled():
        return Raised(asyncio.CancelledError())
    error = work.exception()
    ended: Outcome | Raised | _Later = work.result() if error is None else Raised(error)
    return ended


async def _in_task(handler: Handler, context: Context, place: Place) -> Outcome | Raised:
    """A run of an `async def` handler: its outcome, or what it raised. It never raises itself."""
    PLACE.set(place)
    try:
        payload = _decoded(handler, context)
        if isinstance(payload, Outcome):
            return payload
        return _executed(handler, context, await handler.function(context, payload))
    except BaseException as error:
        return Raised(error)


def _in_thread(handler: Handler, context: Context) -> Outcome | Raised | _Later:
    """A run of a plain `def`, in its thread. It is never cancelled: nobody can."""
    try:
        payload = _decoded(handler, context)
        if isinstance(payload, Outcome):
            return payload
        reply = handler.function(context, payload)
        return _Later(reply) if inspect.isawaitable(reply) else _executed(handler, context, reply)
    except BaseException as error:
        return Raised(error)


async def _later(
    handler: Handler, context: Context, reply: Awaitable[object], place: Place
) -> Outcome | Raised:
    """The rest of a run whose plain `def` gave back something to be awaited: that has to happen on the loop."""
    PLACE.set(place)
    try:
        return _executed(handler, context, await reply)
    except BaseException as error:
        return Raised(error)


def _computed(handler: Handler, context: Context) -> Outcome:
    """A run of a pure handler, at once. Raises: what the handler does; ContractError, if it can't be computed at
    once.
    """
    payload = _decoded(handler, context)
    if isinstance(payload, Outcome):
        return payload
    reply = handler.function(context, payload)
    if _has_to_be_awaited(reply):
        raise ContractError(
            f"the pure handler of {handler.method!r} returned something to be awaited, and can't wait:"
            " register it without pure=True"
        )
    return _executed(handler, context, reply)


def _read(reader: Reader, context: ReadContext) -> Outcome:
    """A run of a reader, at once. It has no change of state to give. Raises: what the reader does; ContractError."""
    method = reader.method
    try:
        query = method.request.decode(context._request.payload)
    except ContractError as error:
        return rejected_by(error)
    reply = reader.function(context, query)
    if _has_to_be_awaited(reply):
        raise ContractError(
            f"the reader of {method!r} returned something to be awaited, and can't wait"
        )
    return Outcome(OutcomeKind.EXECUTED, method.reply.encode(reply))


def _has_to_be_awaited(reply: object) -> bool:
    if inspect.iscoroutine(reply):
        reply.close()  # else Python warns that it was never awaited
        return True
    return inspect.isawaitable(reply)


def _decoded(handler: Handler, context: Context) -> object:
    """The payload as a value of its own for each run; the outcome, when it does not fit."""
    try:
        return handler.method.request.decode(context._request.payload)
    except ContractError as error:
        return rejected_by(error)


def _executed(handler: Handler, context: Context, reply: object) -> Outcome:
    """The outcome of a run that gave a reply. Both the reply and the change are encoded here, so what can't be kept
    is the handler's failure, before anything is stored. Raises: ContractError.
    """
    body = handler.method.reply.encode(reply)
    change = context._change()
    encoded = change.encode() if change else b""
    return Outcome(OutcomeKind.EXECUTED, body, encoded, changed=change)


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
