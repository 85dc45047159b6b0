"""Spans for OpenTelemetry, by its messaging conventions; the only file that knows it.

The caller's span is a PRODUCER, a child of the user's current span; its context travels in the request's
`traceparent` and `tracestate`. The instance's is a CONSUMER, a child of that, and is current while the
handler runs, so that whatever the handler does is a child again. It ends when the outcome is stored: only
then is known what became of the run. Sampling is the user's: a trace that isn't sampled travels on as such.

A run that is repeated has a span for each run, with a link to the one before. A request that is answered by an outcome
of an earlier one (a duplicate, a key) has a link to the span that made it. So one trace tells a failover: the first
instance's span may be missing, if it died before it was exported, and the second one's is there.

The API may be installed, as a dependency of something else, without a provider. Then a span per request would be made for
nobody. So it is looked first whether anybody records, now and then (`_nobody_records`), and if not, `inner` alone is told.
What is never lost either way are the trace's ids: they come from the request, and stand in the log lines and in the log's
entries.

`inner` is always told: the log's lines do not depend on whether a trace is sampled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import Token
from importlib import metadata
from types import TracebackType
from typing import Final, Self

from opentelemetry import context as contexts
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TracerProvider,
    TraceState,
)

from aegis_sdk.application.tracing import Span, Tracer, code_of
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.trace import new_traceparent, parse_traceparent

Attributes = dict[str, str | int]

OUTCOME: Final = "aegis.outcome"
ATTEMPT: Final = "aegis.attempt"
_ERROR_TYPE: Final = "error.type"
ASK_AGAIN_S: Final = 0.05
"""How late a provider may be noticed that is set after the first request: the API reads the environment each
time that it is asked, for 2 % of a caller's time."""
_FAULTS: Final = frozenset({OutcomeKind.FAILED, OutcomeKind.EXPIRED, OutcomeKind.CANCELLED})
"""`rejected` is an answer."""


class OtelTracer:
    """Spans of one connection; `inner` is told the same.

    Invariant: once somebody was found to record, it is not asked again; a provider can't be taken away.
    """

    def __init__(
        self, subjects: Subjects, *, inner: Tracer, provider: TracerProvider | None = None
    ) -> None:
        """`provider` None is the global one, also when that is set later."""
        self._subjects = subjects
        self._inner = inner
        self._recorded = provider is not None
        self._ask_s = 0.0
        self._tracer = otel.get_tracer(
            "aegis_sdk", metadata.version("aegis-sdk"), tracer_provider=provider
        )

    def sending(self, request: Request, *, parent: str = "") -> Span:
        """Where somebody records, it writes the request's trace headers; so it comes before the sending and the first log line.

        `parent`: a traceparent that was given by hand; the user's current span comes before it.
        """
        if self._nobody_records() and not _has_current():
            return self._inner.sending(request, parent=parent)
        span = self._tracer.start_span(
            f"send {request.service}.{request.method}",
            context=None if _has_current() else _context_of(parent),
            kind=SpanKind.PRODUCER,
            attributes=self._attributes(request, "send"),
        )
        _inject(request, span.get_span_context())
        return _Sending(span, request, self._inner.sending(request, parent=parent))

    def serving(self, request: Request, *, attempt: int, epoch: int, instance_id: str) -> Span:
        """Of one request at one instance, from its first run until its outcome is stored. `epoch` 0: of the group."""
        inner = self._inner.serving(request, attempt=attempt, epoch=epoch, instance_id=instance_id)
        if self._nobody_records():
            return inner
        attributes = self._attributes(request, "process")
        attributes["messaging.client.id"] = instance_id
        if epoch:
            attributes["aegis.epoch"] = epoch
        return _Serving(self._tracer, request, attributes, attempt, inner)

    def _nobody_records(self) -> bool:
        """The API is there, as a dependency of something else, and no provider is set (so far)."""
        if self._recorded or time.monotonic() < self._ask_s:
            return not self._recorded
        self._ask_s = time.monotonic() + ASK_AGAIN_S
        self._recorded = not isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider)
        return not self._recorded

    def _attributes(self, request: Request, operation: str) -> Attributes:
        """Of OpenTelemetry's messaging conventions, and our own under `aegis.`. No payload, and of it no more than its size."""
        attributes: Attributes = {
            "messaging.system": "nats",
            "messaging.operation.type": operation,
            "messaging.operation.name": operation,
            "messaging.destination.name": self._subjects.request(request.service, request.resource),
            "messaging.message.id": request.request_id,
            "messaging.message.body.size": len(request.payload),
            "aegis.service": request.service,
            "aegis.method": request.method,
        }
        if request.resource is not None:
            attributes["aegis.resource"] = request.resource
        return attributes


class _Sending(Span):
    """A caller's hop: from sending until the outcome is known (or the request accepted, for `submit`).

    It is never made current: the caller's own code goes on meanwhile, and its spans are not the request's children.
    """

    __slots__ = ("_inner", "_request", "_span")

    def __init__(self, span: otel.Span, request: Request, inner: Span) -> None:
        self._span = span
        self._request = request
        self._inner = inner

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inner.__exit__(kind, error, traceback)
        if error is not None:
            _fail(self._span, code_of(error))
        self._span.end()

    def stored(self, outcome: Outcome) -> None:
        self._inner.stored(outcome)
        _finish(self._span, outcome)
        # Asked before under the same id, by a run that died or by another caller with the same key.
        if outcome.traceparent != self._request.traceparent:
            self._span.add_link(_remote(outcome.traceparent))


class _Serving(Span):
    """An instance's hop: a span for each run of the handler, linked to the one before.

    `_span` and `_token` are of the run that is under way; entering makes the first. It must be left in the task in which it
    was entered, since a context is attached to that.
    """

    __slots__ = ("_attempt", "_attributes", "_inner", "_request", "_span", "_token", "_tracer")

    _span: otel.Span
    _token: Token[Context]

    def __init__(
        self,
        tracer: otel.Tracer,
        request: Request,
        attributes: Attributes,
        attempt: int,
        inner: Span,
    ) -> None:
        self._tracer = tracer
        self._request = request
        self._attributes = attributes
        self._attempt = attempt
        self._inner = inner

    def __enter__(self) -> Self:
        self._inner.__enter__()
        self._start(self._attempt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inner.__exit__(kind, error, traceback)
        if error is not None:
            _fail(self._span, code_of(error))
        self._end()

    def stored(self, outcome: Outcome) -> None:
        self._inner.stored(outcome)
        _finish(self._span, outcome)

    def retried(self, error: BaseException, *, attempt: int) -> None:
        self._inner.retried(error, attempt=attempt)
        self._span.record_exception(error)
        _fail(self._span, code_of(error))
        before = Link(self._span.get_span_context())
        self._end()
        self._start(attempt, [before])

    def _start(self, attempt: int, links: Sequence[Link] = ()) -> None:
        self._span = self._tracer.start_span(
            f"process {self._request.service}.{self._request.method}",
            context=_context_of(self._request.traceparent, self._request.tracestate),
            kind=SpanKind.CONSUMER,
            attributes={**self._attributes, ATTEMPT: attempt},
            links=links,
        )
        self._token = contexts.attach(otel.set_span_in_context(self._span))

    def _end(self) -> None:
        contexts.detach(self._token)
        self._span.end()


def _fail(span: otel.Span, code: str) -> None:
    span.set_status(Status(StatusCode.ERROR, code))
    span.set_attribute(_ERROR_TYPE, code)


def _finish(span: otel.Span, outcome: Outcome) -> None:
    span.set_attribute(OUTCOME, outcome.kind.value)
    if outcome.kind in _FAULTS:
        _fail(span, outcome.kind.value)


def _has_current() -> bool:
    return otel.get_current_span().get_span_context().is_valid


def _context_of(traceparent: str, tracestate: str = "") -> Context:
    """A context whose span is the remote one; an empty one when there is none.

    Built from nothing, not from the current context: what happens to be current in the instance's task is of another request.
    """
    remote = _remote(traceparent, tracestate)
    if not remote.is_valid:
        return Context()
    return otel.set_span_in_context(NonRecordingSpan(remote), Context())


def _remote(traceparent: str, tracestate: str = "") -> SpanContext:
    trace_id, span_id, flags = parse_traceparent(traceparent) or (0, 0, 0)
    state = TraceState.from_header([tracestate]) if tracestate else None
    return SpanContext(trace_id, span_id, True, TraceFlags(flags), state)


def _inject(request: Request, span: SpanContext) -> None:
    """The request's trace headers are the span's. Without a provider there is none of ours: then the
    request is one hop more in the trace of the user's, if there is one."""
    if not span.is_valid:
        return
    ours = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    passed_on = span.is_remote or (
        _has_current() and span == otel.get_current_span().get_span_context()
    )
    request.traceparent = new_traceparent(ours) if passed_on else ours
    request.tracestate = span.trace_state.to_header()
