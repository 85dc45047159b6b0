"""Spans on the in-memory bus: parents, kinds, attributes, links, sampling; and the way without OpenTelemetry."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aegis_sdk import Context, Method, Rejected, ResourceContext, Retries, Role, Service
from aegis_sdk.application.tracing import LOG_TRACER, NO_SPAN
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.trace import new_traceparent, parse_traceparent, span_id, trace_id
from aegis_sdk.errors import HandlerFailed, UnknownService
from aegis_sdk.infrastructure.otel import ASK_AGAIN_S, OtelTracer
from aegis_sdk.testing import harness
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)

from tests.unit.sdk.support import ADD, ECHO, SERVICE, Add, add_request, ledger, until

RELAY = Method("relays", "relay", request=int, reply=int)
SLOW = Method("relays", "slow", request=int, reply=int)
FLAKY = Method("flakies", "flaky", request=int, reply=int)


class Traced:
    """A provider of its own, and what it has recorded."""

    def __init__(self, **options: Any) -> None:
        self.provider = TracerProvider(**options)
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.user = self.provider.get_tracer("user")
        self.ours = OtelTracer(Subjects(), inner=LOG_TRACER, provider=self.provider)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """In the order in which they began."""
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time or 0)

    async def served(self, runs: int = 1) -> None:
        """Until that many runs of handlers have ended: a caller has its answer a moment before that."""
        await until(lambda: sum(span.kind is SpanKind.CONSUMER for span in self.spans) >= runs)

    def only(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span


@pytest.fixture
def traced() -> Traced:
    return Traced()


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def is_error(span: ReadableSpan) -> bool:
    return span.status.status_code is StatusCode.ERROR


def trace_ids(spans: Sequence[ReadableSpan]) -> set[int]:
    return {context_of(span).trace_id for span in spans}


def relays() -> Service:
    """Each asks the ledger: one on the event loop, one from a thread."""
    service = Service("relays")

    @service.handles(RELAY)
    async def relay(ctx: Context, n: int) -> int:
        return await ctx.request(ADD, Add(n=n), resource="A")

    @service.handles(SLOW)
    def slow(ctx: Context, n: int) -> int:
        return ctx.request_blocking(ADD, Add(n=n), resource="A")

    return service


async def test_a_request_is_a_child_of_the_callers_span_and_its_handling_a_child_of_that(
    traced: Traced,
) -> None:
    async with harness(ledger()[0], resources={"A"}, tracer=traced.ours) as aegis:
        with traced.user.start_as_current_span("user"):
            await aegis.request(ADD, Add(n=2), resource="A")
        await traced.served()
    user = traced.only("user")
    sent, served = traced.only("send ledger.add"), traced.only("process ledger.add")
    assert (sent.kind, served.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert parent_of(sent) == context_of(user).span_id
    assert parent_of(served) == context_of(sent).span_id
    assert len(trace_ids(traced.spans)) == 1


async def test_spans_say_what_was_asked_of_whom_and_what_became_of_it(traced: Traced) -> None:
    async with harness(ledger()[0], resources={"ACC 1"}, tracer=traced.ours) as aegis:
        # The first one after a promotion may be taken for one that was begun before.
        await aegis.request(ADD, Add(n=1), resource="ACC 1")
        await aegis.request(ADD, Add(n=2), resource="ACC 1")
        await traced.served(2)
    sent, served = traced.named("send ledger.add")[1], traced.named("process ledger.add")[1]
    assert sent.attributes is not None
    assert served.attributes is not None
    request_id = sent.attributes["messaging.message.id"]
    common = {
        "messaging.system": "nats",
        "messaging.destination.name": "aegis.req.ledger.at.ACC=201",
        "messaging.message.id": request_id,
        "messaging.message.body.size": len(ADD.request.encode(Add(n=2))),
        "aegis.service": SERVICE,
        "aegis.method": "add",
        "aegis.resource": "ACC 1",
        "aegis.outcome": "executed",
    }
    send = {"messaging.operation.type": "send", "messaging.operation.name": "send"}
    process = {
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.client.id": "ledger-1",
        "aegis.epoch": 1,
        "aegis.attempt": 1,
    }
    assert dict(sent.attributes) == common | send
    assert dict(served.attributes) == common | process


async def test_requests_that_are_stored_together_have_a_span_each(traced: Traced) -> None:
    """Current while its own handler runs, and none of them afterwards."""
    service, current = Service(SERVICE), []

    @service.handles(ADD, pure=True)
    def add(ctx: ResourceContext, request: Add) -> int:
        current.append(otel.get_current_span().get_span_context().span_id)
        return request.n

    async with harness(service, resources={"A"}, tracer=traced.ours) as aegis:
        await aegis.request(ADD, Add(n=1), resource="A")
        await asyncio.gather(*(aegis.request(ADD, Add(n=n), resource="A") for n in range(2, 6)))
        await traced.served(5)
        assert not otel.get_current_span().get_span_context().is_valid
    served = traced.named("process ledger.add")
    assert [context_of(span).span_id for span in served] == current
    sent = {context_of(span).span_id for span in traced.named("send ledger.add")}
    assert {parent_of(span) for span in served} == sent
    outcomes = [(span.attributes or {})["aegis.outcome"] for span in served]
    assert outcomes == ["executed"] * 5


@pytest.mark.parametrize("method", [RELAY, SLOW])
async def test_nested_requests_are_children_of_the_handler_that_made_them(
    traced: Traced, method: Method[int, int]
) -> None:
    """Also of a plain `def` handler, in its thread."""
    async with harness(ledger()[0], resources={"A"}, tracer=traced.ours) as aegis:
        await aegis.serve(relays())
        await aegis.request(method, 3)
        await traced.served(2)
    outer = traced.only(f"process relays.{method.name}")
    inner = traced.only("send ledger.add")
    assert parent_of(inner) == context_of(outer).span_id
    assert parent_of(traced.only("process ledger.add")) == context_of(inner).span_id
    assert len(trace_ids(traced.spans)) == 1


async def test_one_trace_outlives_the_death_of_its_active(traced: Traced) -> None:
    """G6, G8: two runs under one request, and the second asks the nested question of the first."""
    service, runs = ledger()
    inner = Method("inners", "inner", request=int, reply=int)
    outer = Method("outers", "outer", request=int, reply=int)
    inners, outers = Service("inners"), Service("outers")

    @inners.handles(inner)
    async def handle_inner(ctx: Context, n: int) -> int:
        return n + 1

    @outers.handles(outer)
    async def handle_outer(ctx: ResourceContext, n: int) -> int:
        answer = await ctx.request(inner, n)
        await runs.note(ctx, "outer")
        return answer

    release = runs.hold("outer")
    async with harness(service, tracer=traced.ours) as aegis:
        await aegis.serve(inners)
        first = await aegis.serve(outers, resources={"R": Role.AUTO}, instance_id="outers-old")
        await aegis.serve(outers, resources={"R": Role.STANDBY}, instance_id="outers-new")
        with traced.user.start_as_current_span("user"):
            answer = asyncio.create_task(aegis.request(outer, 1, resource="R"))
            await until(lambda: runs.begun)
            await first.kill()
            release.set()
            assert await answer == 2
        await traced.served(3)
    old, new = traced.named("process outers.outer")
    sent = traced.only("send outers.outer")
    assert [span.attributes and span.attributes["messaging.client.id"] for span in (old, new)] == [
        "outers-old",
        "outers-new",
    ]
    assert [span.attributes and span.attributes["aegis.attempt"] for span in (old, new)] == [1, 2]
    assert [span.attributes and span.attributes["aegis.epoch"] for span in (old, new)] == [1, 2]
    assert {parent_of(old), parent_of(new)} == {context_of(sent).span_id}
    assert len(trace_ids(traced.spans)) == 1
    asked, asked_again = traced.named("send inners.inner")
    assert parent_of(asked_again) == context_of(new).span_id
    assert [link.context.span_id for link in asked_again.links] == [context_of(asked).span_id]
    assert len(traced.named("process inners.inner")) == 1


async def test_a_retried_handler_has_a_span_for_each_run_linked_to_the_one_before(
    traced: Traced,
) -> None:
    service = Service("flakies")

    @service.handles(FLAKY, retries=Retries(attempts=3, wait_s=0.001))
    async def flaky(ctx: Context, n: int) -> int:
        if ctx.attempt < n:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return n

    async with harness(service, tracer=traced.ours) as aegis:
        await aegis.request(FLAKY, 3)
        await traced.served(3)
    runs = traced.named("process flakies.flaky")
    assert [span.attributes and span.attributes["aegis.attempt"] for span in runs] == [1, 2, 3]
    assert [[link.context.span_id for link in span.links] for span in runs] == [
        [],
        [context_of(runs[0]).span_id],
        [context_of(runs[1]).span_id],
    ]
    assert [is_error(span) for span in runs] == [True, True, False]
    assert [len(span.events) for span in runs] == [1, 1, 0]


async def test_a_refusal_is_an_answer_and_a_failure_an_error(traced: Traced) -> None:
    service = Service("flakies")

    @service.handles(FLAKY)
    async def flaky(ctx: Context, n: int) -> int:
        if n:
            raise RuntimeError("broken")
        raise Rejected("no")

    async with harness(service, tracer=traced.ours) as aegis:
        with pytest.raises(Rejected):
            await aegis.request(FLAKY, 0)
        with pytest.raises(HandlerFailed):
            await aegis.request(FLAKY, 1)
        with pytest.raises(UnknownService):
            await aegis.request(ADD, Add(), resource="nobody")
    rejected, failed = traced.named("send flakies.flaky")
    assert not is_error(rejected)
    assert failed.attributes is not None
    assert (is_error(failed), failed.attributes["error.type"]) == (True, "failed")
    [unsent] = [span for span in traced.spans if span.name == "send ledger.add"]
    assert unsent.attributes is not None
    assert unsent.attributes["error.type"] == "unknown_service"


async def test_the_same_key_again_links_to_the_request_that_was_executed(traced: Traced) -> None:
    async with harness(ledger()[0], resources={"A"}, tracer=traced.ours) as aegis:
        for _ in range(2):
            await aegis.request(ADD, Add(n=1), resource="A", key="order-7")
        await traced.served()
    first, second = traced.named("send ledger.add")
    assert [link.context.span_id for link in second.links] == [context_of(first).span_id]
    assert not first.links
    assert len(traced.named("process ledger.add")) == 1


async def test_a_submitted_request_is_served_in_the_trace_of_who_handed_it_in(
    traced: Traced,
) -> None:
    async with harness(ledger()[0], resources={"A"}, tracer=traced.ours) as aegis:
        ticket = await aegis.submit(ADD, Add(n=1), resource="A")
        assert await aegis.attach(ticket.id, ADD) == 1
        await traced.served()
    sent = traced.only("send ledger.add")
    assert parent_of(traced.only("process ledger.add")) == context_of(sent).span_id


async def test_what_the_user_does_not_sample_is_not_recorded_on_the_other_side_either(
    traced: Traced,
) -> None:
    """The sampled flag travels; the instance's own sampler would record everything."""
    caller = Traced(sampler=ParentBased(ALWAYS_OFF))
    request = add_request("c.1")
    caller.ours.sending(request)
    _, _, flags = parse_traceparent(request.traceparent) or (0, 0, 1)
    assert not flags & TraceFlags.SAMPLED
    with traced.ours.serving(request, attempt=1, epoch=1, instance_id="i"):
        current = otel.get_current_span().get_span_context()
    assert f"{current.trace_id:032x}" == trace_id(request.traceparent)
    assert not traced.spans
    assert not caller.spans


def test_tracestate_travels_both_ways(traced: Traced) -> None:
    state = TraceState([("vendor", "1")])
    remote = SpanContext(1, 2, True, TraceFlags(1), state)
    request = add_request("c.1")
    with otel.use_span(NonRecordingSpan(remote)):
        traced.ours.sending(request)
    assert request.tracestate == "vendor=1"
    assert trace_id(request.traceparent) == f"{1:032x}"
    with traced.ours.serving(request, attempt=1, epoch=1, instance_id="i"):
        assert otel.get_current_span().get_span_context().trace_state == state


def test_with_the_api_alone_a_request_is_one_more_hop_in_the_users_trace() -> None:
    """A provider that records nothing: the trace id and the flag are kept, the hop is the request's own."""
    ours = OtelTracer(Subjects(), inner=LOG_TRACER, provider=otel.NoOpTracerProvider())
    remote = SpanContext(1, 2, True, TraceFlags(0), TraceState())
    request = add_request("c.1")
    with otel.use_span(NonRecordingSpan(remote)):
        ours.sending(request)
    assert trace_id(request.traceparent) == f"{1:032x}"
    assert span_id(request.traceparent) != f"{2:016x}"
    assert request.traceparent.endswith("-00")


def test_without_a_users_trace_the_api_alone_changes_nothing() -> None:
    ours = OtelTracer(Subjects(), inner=LOG_TRACER, provider=otel.NoOpTracerProvider())
    request = add_request("c.1", traceparent=new_traceparent())
    before = request.traceparent
    ours.sending(request)
    assert request.traceparent == before


def test_without_a_provider_the_api_costs_no_span() -> None:
    """It is a dependency of many a library; this process sets no global provider."""
    ours = OtelTracer(Subjects(), inner=LOG_TRACER)
    request = add_request("c.1", traceparent=new_traceparent())
    assert ours.sending(request) is NO_SPAN
    assert ours.serving(request, attempt=1, epoch=1, instance_id="i") is NO_SPAN
    remote = SpanContext(1, 2, True, TraceFlags(1), TraceState())
    with otel.use_span(NonRecordingSpan(remote)), ours.sending(request):
        assert trace_id(request.traceparent) == f"{1:032x}"


def test_a_provider_that_is_set_later_is_noticed_soon(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = OtelTracer(Subjects(), inner=LOG_TRACER)
    request = add_request("c.1", traceparent=new_traceparent())
    assert ours.sending(request) is NO_SPAN
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: traced.provider)
    later_s = time.monotonic() + ASK_AGAIN_S
    monkeypatch.setattr(
        "aegis_sdk.infrastructure.otel.time", SimpleNamespace(monotonic=lambda: later_s)
    )
    assert ours.sending(request) is not NO_SPAN
    monkeypatch.undo()
    assert ours.sending(request) is not NO_SPAN, "a provider can't be taken back"


async def test_a_request_made_outside_of_the_handlers_context_stays_in_its_trace(
    traced: Traced,
) -> None:
    """A thread or task of the user's own, without the handler's context variables."""
    parent, nested = add_request("c.1", traceparent=new_traceparent()), add_request("c~1.1")
    traced.ours.sending(nested, parent=parent.traceparent)
    assert trace_id(nested.traceparent) == trace_id(parent.traceparent)


def test_without_opentelemetry_the_sdk_imports_and_traces_as_before() -> None:
    """In a process that can't import it."""
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from aegis_sdk.client import LOG_TRACER, Subjects, _tracer\n"
        "assert _tracer(Subjects(), None) is LOG_TRACER\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_nothing_is_made_for_a_request_that_nobody_records() -> None:
    request = Request("c.1", SERVICE, "echo", None, ECHO.request.encode("x"))
    assert LOG_TRACER.sending(request) is NO_SPAN
    assert LOG_TRACER.serving(request, attempt=1, epoch=1, instance_id="i") is NO_SPAN
