"""A caller gets one definite answer, whatever was lost on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aegis_sdk import (
    Cancelled,
    ContractError,
    Deadlock,
    Draining,
    Expired,
    InvalidName,
    InvalidPayload,
    KeyReused,
    Method,
    NeverAccepted,
    NoRoute,
    OutcomeUnknown,
    Overloaded,
    PayloadTooLarge,
    Rejected,
    Unavailable,
    UnknownMethod,
    UnknownService,
)
from aegis_sdk.application.calls import Calls
from aegis_sdk.application.ports import Accepted
from aegis_sdk.application.turns.caller import Caller
from aegis_sdk.contract.control import LeaseState
from aegis_sdk.contract.envelope import OutcomeKind, Request
from aegis_sdk.contract.ids import parent_of
from aegis_sdk.contract.trace import trace_id
from aegis_sdk.testing import Fault, Flow, MemoryAegis, Op, harness
from aegis_sdk.testing.harness import make_requester

from tests.unit.sdk.support import (
    ADD,
    ECHO,
    SERVICE,
    WAIT_S,
    Add,
    Runs,
    kinds,
    ledger,
    settle,
    until,
)

SHORT_S = 0.15
"""A deadline that is meant to pass."""
UNTYPED: Method[Any, int] = ADD


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
async def aegis(runs: Runs) -> AsyncIterator[MemoryAegis]:
    async with harness(ledger(runs)[0], resources={"A", "B"}) as made:
        await until(lambda: made.instances[0].active_resources == ["A", "B"])
        yield made


@pytest.fixture
def asked(aegis: MemoryAegis, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the client sends."""
    seen: list[Request] = []
    send = aegis.link.calls.send

    def sent(request: Request, **more: Any) -> None:
        seen.append(request)
        send(request, **more)

    monkeypatch.setattr(aegis.link.calls, "send", sent)
    return seen


def _effects(aegis: MemoryAegis) -> int:
    return list(kinds(aegis.bus).values()).count(OutcomeKind.EXECUTED)


def _requests(aegis: MemoryAegis) -> list[Request]:
    stream = aegis.bus.requests(SERVICE)
    found = [stream.get(seq) for seq in range(1, stream.last_seq + 1)]
    return [request for request in found if request is not None]


# --- what is lost -----------------------------------------------------------------------------------------


async def test_a_request_that_got_lost_is_sent_again_under_its_id(
    aegis: MemoryAegis, runs: Runs
) -> None:
    """G1: until it is accepted, and as one request."""
    aegis.bus.faults.once(Op.SEND, Fault.LOST, times=2)
    aegis.bus.faults.once(Op.APPEND, Fault.LOST, times=2)
    assert await aegis.request(ADD, Add(), resource="A") == 1
    assert len(_requests(aegis)) == 1
    assert len(runs.begun) == 1


async def test_a_lost_acknowledgement_makes_no_second_request(
    aegis: MemoryAegis, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G3: the same id is sent again, and the stream knows it."""
    release = runs.hold("slow")
    append, again = aegis.link.requests.append, []

    async def sent_again(request: Request, *, timeout_s: float) -> Accepted:
        again.append(await append(request, timeout_s=timeout_s))
        return again[-1]

    monkeypatch.setattr(aegis.link.requests, "append", sent_again)
    aegis.bus.faults.once(Op.APPEND, Fault.LOST_ANSWER)
    task = asyncio.create_task(aegis.request(ADD, Add(tag="slow"), resource="A"))
    await until(lambda: runs.begun and again)
    assert again == [Accepted(1, duplicate=True)]
    release.set()
    assert await task == 1
    assert len(_requests(aegis)) == len(runs.begun) == 1


async def test_a_request_stored_twice_runs_once(aegis: MemoryAegis, runs: Runs) -> None:
    """G3: the server lost its dedup map between the two."""
    release = runs.hold("slow")
    aegis.bus.faults.once(Op.APPEND, Fault.LOST_ANSWER)
    task = asyncio.create_task(aegis.request(ADD, Add(tag="slow"), resource="A"))
    await until(lambda: _requests(aegis))
    aegis.bus.requests(SERVICE).forget_ids()
    await until(lambda: len(_requests(aegis)) == 2)
    release.set()
    assert await task == 1
    assert await aegis.request(ADD, Add(), resource="A") == 2
    assert len({request.request_id for request in _requests(aegis)}) == 1
    assert len(runs.begun) == 2


async def test_a_lost_reply_is_read_from_the_journal(aegis: MemoryAegis, runs: Runs) -> None:
    """G8: the caller waits a little longer, and has its answer."""
    aegis.bus.faults.once(Op.REPLY, Fault.LOST)
    async with asyncio.timeout(WAIT_S):  # long before its deadline
        assert await aegis.request(ADD, Add(), resource="A", timeout_s=60.0) == 1
    assert len(runs.begun) == 1


async def test_a_reply_that_comes_twice_is_one_answer(aegis: MemoryAegis) -> None:
    aegis.bus.faults.once(Op.REPLY, Fault.TWICE)
    assert await aegis.request(ADD, Add(), resource="A") == 1


async def test_an_outage_shows_as_time_only(aegis: MemoryAegis, runs: Runs) -> None:
    """G8: cut off after sending, the reply is missed and read when NATS is back."""
    release = runs.hold("slow")
    task = asyncio.create_task(aegis.request(ADD, Add(tag="slow"), resource="A"))
    await until(lambda: runs.begun)
    aegis.link.cut()
    release.set()
    await until(lambda: kinds(aegis.bus))
    await settle()
    assert not task.done()
    aegis.link.restore()
    assert await task == 1


# --- the deadline -----------------------------------------------------------------------------------------


async def test_a_deadline_that_passes_makes_cancelled_the_outcome(
    aegis: MemoryAegis, runs: Runs
) -> None:
    """G4: NotExecuted, and certainly so: the handler's own commit comes too late."""
    release = runs.hold("slow")
    with pytest.raises(Cancelled):
        await aegis.request(ADD, Add(tag="slow"), resource="A", timeout_s=SHORT_S)
    assert _effects(aegis) == 0
    release.set()
    assert await aegis.request(ADD, Add(), resource="A") == 1
    assert _effects(aegis) == 1


async def test_a_request_cancelled_before_it_was_begun_has_no_effect(
    aegis: MemoryAegis, runs: Runs
) -> None:
    """G4: the active meets the cancel, and doesn't run it."""
    instance = aegis.instances[0]
    instance.link.hold(Flow.DELIVERIES)
    with pytest.raises(Cancelled):
        await aegis.request(ADD, Add(), resource="A", timeout_s=SHORT_S)
    instance.link.release(Flow.DELIVERIES)
    assert await aegis.request(ADD, Add(), resource="A") == 1


async def test_a_handler_that_commits_first_beats_the_deadline(aegis: MemoryAegis) -> None:
    """G4, the race from the handler's side: its outcome is stored, the reply was lost."""
    aegis.bus.faults.once(Op.REPLY, Fault.LOST, times=10)
    assert await aegis.request(ADD, Add(), resource="A", timeout_s=SHORT_S) == 1
    assert list(kinds(aegis.bus).values()) == [OutcomeKind.EXECUTED]


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.LOST_ANSWER])
async def test_a_cancel_whose_answer_is_lost_is_ended_all_the_same(
    aegis: MemoryAegis, runs: Runs, fault: Fault
) -> None:
    """G4: the caller asks again until it knows."""
    release = runs.hold("slow")
    task = asyncio.create_task(aegis.request(ADD, Add(tag="slow"), resource="A", timeout_s=SHORT_S))
    await until(lambda: runs.begun)
    aegis.bus.faults.once(Op.COMMIT, fault)
    with pytest.raises(Cancelled):
        await task
    release.set()
    await settle()
    assert _effects(aegis) == 0


async def test_a_clock_that_is_set_back_lengthens_no_wait(
    aegis: MemoryAegis, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G4: by an hour, while the request is on its way."""
    runs.hold("slow")
    send, true_s = aegis.link.calls.send, time.time

    def send_late(request: Request, **more: Any) -> None:
        monkeypatch.setattr(time, "time", lambda: true_s() - 3600.0)
        send(request, **more)

    monkeypatch.setattr(aegis.link.calls, "send", send_late)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(Cancelled):
            await aegis.request(ADD, Add(tag="slow"), resource="A", timeout_s=SHORT_S)


async def test_a_deadline_in_the_past_ends_at_once(aegis: MemoryAegis, runs: Runs) -> None:
    """G4: the answer is definite, and no effect comes of it."""
    with pytest.raises((Cancelled, Expired)):
        await aegis.request(ADD, Add(), resource="A", timeout_s=0.0)
    assert await aegis.request(ADD, Add(), resource="A") == 1


async def test_without_nats_the_outcome_is_unknown_until_it_is_attached_to(
    aegis: MemoryAegis, runs: Runs
) -> None:
    """G4: the one case without a definite answer, and how it ends."""
    release = runs.hold("slow")
    task = asyncio.create_task(aegis.request(ADD, Add(tag="slow"), resource="A", timeout_s=SHORT_S))
    await until(lambda: runs.begun)
    aegis.link.cut()
    release.set()
    with pytest.raises(OutcomeUnknown) as caught:
        await task
    assert caught.value.request_id == runs.begun[0][0]
    elsewhere = make_requester(aegis.bus.link("other"), caller="other")
    assert await elsewhere.attach(caught.value.request_id, ADD, timeout_s=1.0) == 1
    await elsewhere.close()


async def test_a_submitted_request_has_no_deadline_unless_it_is_given_one(
    aegis: MemoryAegis, runs: Runs
) -> None:
    ticket = await aegis.submit(ADD, Add(), resource="A")
    assert (ticket.service, ticket.resource) == (SERVICE, "A")
    assert await aegis.attach(ticket.id, ADD) == 1
    await aegis.submit(ADD, Add(), resource="A", expires_s=60.0)
    first, second = _requests(aegis)
    assert first.deadline_s is None
    assert second.deadline_s == pytest.approx(time.time() + 60.0, abs=30.0)


async def test_a_submitted_request_past_its_expiry_is_not_executed(
    aegis: MemoryAegis, runs: Runs
) -> None:
    """G4: nobody waits with a deadline, and the outcome says it."""
    aegis.instances[0].link.hold(Flow.DELIVERIES)
    ticket = await aegis.submit(ADD, Add(), resource="A", expires_s=0)
    expired_s = time.time() + 0.001
    await until(lambda: time.time() > expired_s)
    aegis.instances[0].link.release(Flow.DELIVERIES)
    with pytest.raises(Expired):
        await aegis.attach(ticket.id, ADD)
    assert runs.begun == []


# --- attach -----------------------------------------------------------------------------------------------


async def test_attach_waits_for_an_outcome_and_reads_one_that_is_there(
    aegis: MemoryAegis, runs: Runs
) -> None:
    release = runs.hold("slow")
    ticket = await aegis.submit(ADD, Add(tag="slow"), resource="A")
    waiting = asyncio.create_task(aegis.attach(ticket.id, ADD))
    await until(lambda: runs.begun)
    release.set()
    assert await waiting == 1
    aegis.link.hold(Flow.REPLIES)
    assert await aegis.attach(ticket.id, ADD) == 1


async def test_attach_gives_a_rejection_as_the_request_would(aegis: MemoryAegis) -> None:
    ticket = await aegis.submit(ADD, Add(n=-1), resource="A")
    with pytest.raises(Rejected, match="negative"):
        await aegis.attach(ticket.id, ADD)


async def test_attach_never_sends_anything(aegis: MemoryAegis, runs: Runs) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        await aegis.attach("somebody.7", ADD, timeout_s=SHORT_S)
    assert caught.value.request_id == "somebody.7"
    assert _requests(aegis) == []
    assert kinds(aegis.bus) == {}


async def test_attach_tells_what_was_never_accepted_from_what_is_still_open(
    aegis: MemoryAegis, runs: Runs
) -> None:
    """G4: nothing comes of waiting for an id that is nowhere."""
    release = runs.hold("slow")
    ticket = await aegis.submit(ADD, Add(tag="slow"), resource="A")
    with pytest.raises(OutcomeUnknown) as open_:
        await aegis.attach(ticket.id, ADD, timeout_s=SHORT_S)
    assert type(open_.value) is OutcomeUnknown
    with pytest.raises(NeverAccepted, match="never accepted"):
        await aegis.attach("somebody.7", ADD, timeout_s=SHORT_S)
    aegis.link.cut()
    with pytest.raises(OutcomeUnknown) as unreachable:
        await aegis.attach("somebody.7", ADD, timeout_s=SHORT_S)
    assert type(unreachable.value) is OutcomeUnknown
    release.set()


async def test_attach_wants_a_request_id(aegis: MemoryAegis) -> None:
    with pytest.raises(InvalidName):
        await aegis.attach("not an id", ADD)


# --- submit -----------------------------------------------------------------------------------------------


async def test_submit_sends_again_until_it_is_acknowledged(aegis: MemoryAegis, runs: Runs) -> None:
    """G1: a ticket is for what is certainly aegis."""
    aegis.bus.faults.once(Op.APPEND, Fault.LOST)
    aegis.bus.faults.once(Op.APPEND, Fault.LOST_ANSWER)
    ticket = await aegis.submit(ADD, Add(), resource="A")
    assert await aegis.attach(ticket.id, ADD) == 1
    assert len(_requests(aegis)) == 1


async def test_submit_says_when_it_does_not_know(aegis: MemoryAegis) -> None:
    await aegis.submit(ADD, Add(), resource="A")
    aegis.link.cut()
    with pytest.raises(OutcomeUnknown) as caught:
        await aegis.submit(ADD, Add(), resource="A", timeout_s=0.05)
    assert caught.value.request_id


async def test_a_full_stream_is_overloaded(aegis: MemoryAegis, runs: Runs) -> None:
    """G4: certainly without effect. Nobody answers, and nobody can store it."""
    aegis.bus.limits.requests_max = 0
    aegis.instances[0].link.hold(Flow.DELIVERIES)
    with pytest.raises(Overloaded):
        await aegis.request(ADD, Add(), resource="A")
    with pytest.raises(Overloaded):
        await aegis.submit(ADD, Add(), resource="A")
    aegis.bus.limits.requests_max = None
    aegis.instances[0].link.release(Flow.DELIVERIES)
    assert await aegis.request(ADD, Add(), resource="A") == 1


async def test_a_stream_that_is_full_at_the_second_try_makes_sure_of_the_first(
    aegis: MemoryAegis, runs: Runs
) -> None:
    """G4: the first try was stored and is running: it is cancelled before `Overloaded` is said."""
    release = runs.hold("slow")
    task = asyncio.create_task(aegis.request(ADD, Add(tag="slow"), resource="A"))
    await until(lambda: runs.begun)
    aegis.bus.requests(SERVICE).forget_ids()
    aegis.bus.limits.requests_max = aegis.bus.requests(SERVICE).last_seq
    with pytest.raises(Overloaded):
        await task
    release.set()
    aegis.bus.limits.requests_max = None
    assert await aegis.request(ADD, Add(), resource="A") == 1
    assert _effects(aegis) == 1


# --- idempotency keys -------------------------------------------------------------------------------------


async def test_the_same_key_gets_the_stored_outcome(aegis: MemoryAegis, runs: Runs) -> None:
    """G3: from another process too, and after the dedup window."""
    assert await aegis.request(ADD, Add(), resource="A", key="order 1") == 1
    aegis.bus.requests(SERVICE).forget_ids()
    other = make_requester(aegis.bus.link("other"), caller="other")
    again = await other.request(ADD, Add(), resource="A", timeout_s=1.0, key="order 1")
    assert again == 1
    assert len(runs.begun) == 1
    await other.close()


async def test_a_key_whose_outcome_could_not_be_looked_up_is_still_one_effect(
    aegis: MemoryAegis, runs: Runs
) -> None:
    """G3: sent again, after the dedup window: looked up before it runs."""
    assert await aegis.request(ADD, Add(), resource="A", key="k") == 1
    aegis.bus.requests(SERVICE).forget_ids()
    aegis.bus.faults.once(Op.READ, Fault.LOST)
    assert await aegis.request(ADD, Add(), resource="A", key="k") == 1
    assert len(_requests(aegis)) == 2
    assert len(runs.begun) == 1


@pytest.mark.parametrize(
    ("payload", "resource"), [(Add(n=2), "A"), (Add(n=1), "B")], ids=["payload", "resource"]
)
async def test_a_key_of_another_request_is_refused(
    aegis: MemoryAegis, runs: Runs, payload: Add, resource: str
) -> None:
    await aegis.request(ADD, Add(), resource="A", key="k")
    with pytest.raises(KeyReused):
        await aegis.request(ADD, payload, resource=resource, key="k")
    assert len(runs.begun) == 1


@pytest.mark.parametrize(
    ("payload", "resource"), [(Add(n=2), "A"), (Add(n=1), "B")], ids=["payload", "resource"]
)
async def test_a_key_of_another_request_that_is_still_open_is_refused(
    aegis: MemoryAegis, runs: Runs, payload: Add, resource: str
) -> None:
    release = runs.hold("")
    first = asyncio.create_task(aegis.request(ADD, Add(), resource="A", key="k"))
    await until(lambda: runs.begun)
    with pytest.raises(KeyReused):
        await aegis.request(ADD, payload, resource=resource, key="k")
    with pytest.raises(KeyReused):
        await aegis.submit(ADD, payload, resource=resource, key="k")
    release.set()
    assert await first == 1


async def test_the_same_key_twice_at_once_is_one_request(aegis: MemoryAegis, runs: Runs) -> None:
    """G3: both callers get the one outcome."""
    calls = (aegis.request(ADD, Add(), resource="A", key="k") for _ in range(5))
    assert await asyncio.gather(*calls) == [1] * 5
    assert len(runs.begun) == 1


# --- what is refused before it is sent --------------------------------------------------------------------


async def test_what_nobody_serves_is_refused_with_the_reason(aegis: MemoryAegis) -> None:
    """G4: nothing is aegis."""
    wrong = [
        (Method("typo", "add", request=Add, reply=int), "A", UnknownService),
        (Method(SERVICE, "ad", request=Add, reply=int), "A", UnknownMethod),
        (ADD, None, ContractError),
        (Method(SERVICE, "echo", request=Add, reply=int), "A", ContractError),
        (ADD, "C", NoRoute),
    ]
    for method, resource, error in wrong:
        with pytest.raises(error):
            await aegis.request(method, Add(), resource=resource)
    assert _requests(aegis) == []


async def test_a_resource_whose_active_is_expected_back_is_waited_for(aegis: MemoryAegis) -> None:
    """G8: the call is held, and not refused."""
    aegis.bus.control.set_lease_state(SERVICE, "A", LeaseState.WAITING)
    assert await aegis.request(ADD, Add(), resource="A") == 1
    aegis.bus.control.set_lease_state(SERVICE, "A", LeaseState.VACANT)
    with pytest.raises(NoRoute):
        await aegis.request(ADD, Add(), resource="A")


async def test_a_registry_that_cannot_be_read_is_unavailable(aegis: MemoryAegis) -> None:
    aegis.link.cut()
    with pytest.raises(Unavailable):
        await aegis.request(Method("new", "one", request=int, reply=int), 1)


async def test_a_payload_over_the_servers_bound_is_refused(aegis: MemoryAegis) -> None:
    aegis.bus.limits.payload_bytes_max = 10_000
    assert await aegis.request(ECHO, "x" * 5_000) == "x" * 5_000
    with pytest.raises(PayloadTooLarge):
        await aegis.request(ECHO, "x" * 6_000)


async def test_a_payload_that_does_not_fit_is_refused(aegis: MemoryAegis) -> None:
    with pytest.raises(InvalidPayload):
        await aegis.request(UNTYPED, "one", resource="A")
    with pytest.raises(InvalidName):
        await aegis.request(ADD, Add(), resource="")
    with pytest.raises(InvalidName):
        await aegis.request(ADD, Add(), resource="A", key="")


async def test_a_client_that_drains_takes_nothing_new_and_ends_what_is_open(
    aegis: MemoryAegis, runs: Runs
) -> None:
    release = runs.hold("slow")
    open_ = asyncio.create_task(aegis.request(ADD, Add(tag="slow"), resource="A"))
    await until(lambda: runs.begun)
    draining = asyncio.create_task(aegis._requester.close(drain_s=5.0))
    await settle()
    with pytest.raises(Draining):
        await aegis.request(ADD, Add(), resource="A")
    with pytest.raises(Draining):
        await aegis.submit(ADD, Add(), resource="A")
    assert not draining.done()
    release.set()
    assert await open_ == 1
    await draining


async def test_nothing_is_left_of_a_request_that_was_answered(aegis: MemoryAegis) -> None:
    await asyncio.gather(*(aegis.request(ECHO, "x") for _ in range(20)))
    with pytest.raises(NoRoute):
        await aegis.request(ADD, Add(), resource="C")
    way = aegis._requester._way
    assert isinstance(way, Caller)
    assert {**way.open._waiting, **way.open._beside, **way.open._doubts.open} == {}


# --- nested requests --------------------------------------------------------------------------------------


def _parent(**more: object) -> Request:
    return replace(Request("c.1", "orders", "place", None, b"{}"), **more)  # type: ignore[arg-type]


async def test_a_nested_request_carries_deadline_trace_and_chain(
    aegis: MemoryAegis, asked: list[Request]
) -> None:
    deadline_s = time.time() + 3.0
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    parent = _parent(resource="O 1", deadline_s=deadline_s, chain=("x/1",), traceparent=traceparent)
    answer = await aegis._requester.ask(
        ADD, Add(), resource="A", timeout_s=None, parent=parent, calls=Calls()
    )
    assert answer == 1
    (request,) = asked
    assert parent_of(request.request_id) == parent.request_id
    assert request.deadline_s == pytest.approx(deadline_s, abs=0.001)
    assert request.chain == ("x/1", "orders/O=201")
    assert trace_id(request.traceparent) == "a" * 32


async def test_a_nested_request_never_outlives_its_parent(
    aegis: MemoryAegis, asked: list[Request]
) -> None:
    """G4: its deadline is the parent's, at the latest."""
    soon = time.time() + 3.0
    calls = Calls()
    for timeout_s in (10.0, 1.0):
        await aegis._requester.ask(
            ADD,
            Add(),
            resource="A",
            timeout_s=timeout_s,
            parent=_parent(deadline_s=soon),
            calls=calls,
        )
    first, second = (request.deadline_s or 0.0 for request in asked)
    assert first == pytest.approx(soon, abs=0.001)
    assert second < soon - 1.0


@pytest.mark.parametrize("held", ["itself", "further up"])
async def test_a_chain_that_comes_back_to_a_busy_resource_fails_at_once(
    aegis: MemoryAegis, asked: list[Request], held: str
) -> None:
    parent = (
        _parent(service=SERVICE, resource="A")
        if held == "itself"
        else _parent(resource="O", chain=(f"{SERVICE}/A", "orders/P"))
    )
    with pytest.raises(Deadlock, match="ledger/A"):
        await aegis._requester.ask(
            ADD, Add(), resource="A", timeout_s=1.0, parent=parent, calls=Calls()
        )
    assert asked == []
    assert (
        await aegis._requester.ask(
            ADD, Add(), resource="B", timeout_s=1.0, parent=parent, calls=Calls()
        )
        == 1
    )
    calls = Calls()
    await aegis._requester.hand_in(ADD, Add(), resource="A", parent=parent, calls=calls)
    handed_in = calls.handed_in or _requests(aegis)
    assert handed_in[-1].chain == (), "nobody waits for what is handed in"


async def test_a_handler_that_runs_again_gets_the_stored_replies(
    aegis: MemoryAegis, runs: Runs
) -> None:
    """G3: nested calls have one effect however often their handler runs."""
    for attempt in (1, 2, 2):
        aegis.bus.requests(SERVICE).forget_ids()
        answer = await aegis._requester.ask(
            ADD, Add(), resource="A", timeout_s=1.0, parent=_parent(attempt=attempt), calls=Calls()
        )
        assert answer == 1
    assert len(runs.begun) == 1


async def test_what_a_handler_hands_in_is_part_of_its_outcome(aegis: MemoryAegis) -> None:
    """G3: nothing is stored for it by itself; a run that ends otherwise has handed in nothing."""
    first, second = Calls(), Calls()
    for calls in (first, second):
        await aegis._requester.hand_in(ADD, Add(), resource="A", parent=_parent(), calls=calls)
        unknown = Method("nobody", "there", request=int, reply=int)
        await aegis._requester.hand_in(unknown, 1, resource="X", parent=_parent(), calls=calls)
    assert [r.request_id for r in first.handed_in] == [r.request_id for r in second.handed_in]
    assert len(first.handed_in) == 2
    assert _requests(aegis) == []
    wrong = Method(SERVICE, "ad", request=Add, reply=int)
    with pytest.raises(UnknownMethod):
        await aegis._requester.hand_in(wrong, Add(), resource="A", parent=_parent(), calls=Calls())
