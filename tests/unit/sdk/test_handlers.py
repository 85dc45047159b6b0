"""Running a handler: whatever happens becomes one outcome."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from aegis_sdk import (
    Context,
    Method,
    OutcomeUnknown,
    Rejected,
    ResourceContext,
    Retries,
    Service,
    Unavailable,
)
from aegis_sdk.application.calls import Calls
from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.place import told_doubt
from aegis_sdk.application.threads import Threads
from aegis_sdk.context import Asks
from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request

ONE = Method("svc", "one", request=int, reply=int)
BOOK = Method("svc", "book", request=int, reply=int)


class NoAsks:
    """A handler of these tests asks only what is scripted in `answers`, in order."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[tuple[Request, Calls]] = []

    async def ask(self, method: Any, payload: Any, **more: Any) -> Any:
        self.asked.append((more["parent"], more["calls"]))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            told_doubt()
            raise answer
        return answer

    async def hand_in(self, method: Any, payload: Any, **more: Any) -> Any:
        raise AssertionError("not used here")


@pytest.fixture
def asks() -> NoAsks:
    return NoAsks()


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    pool = Threads("test", at_work_max=2)
    yield pool
    pool.close()


Run = Callable[..., Any]


@pytest.fixture
def run(asks: NoAsks, threads: Threads) -> Run:
    """`await run(handler, payload=b"1")`: the outcome of a handler of `one`, or of `book` on `values`."""

    async def run_(
        handler: Callable[..., Any],
        payload: bytes = b"1",
        *,
        begun: int = 1,
        retries: Retries | None = None,
        values: Mapping[str, Any] | None = None,
        method: str = "",
        deadline_s: float | None = None,
        pure: bool = False,
    ) -> Outcome:
        service = Service("svc")
        served = ONE if values is None else BOOK
        service.handles(served, retries=retries, pure=pure)(handler)
        name = method or ("one" if values is None else "book")
        resource = None if values is None else "A"
        request = Request("c.1", "svc", name, resource, payload, deadline_s, fingerprint="f" * 16)
        runner = Runner(service, instance_id="i-1", asks=_typed(asks), threads=threads)
        outcome = await runner.run(request, begun=begun, epoch=4, values=values)
        assert runner.running == 0
        return outcome

    return run_


def _typed(asks: Any) -> Asks:
    typed: Asks = asks
    return typed


def _error(outcome: Outcome) -> ErrorBody:
    return ErrorBody.model_validate_json(outcome.body)


async def test_a_reply_is_executed_and_carries_who_made_it(run: Run) -> None:
    async def handler(ctx: Context, n: int) -> int:
        return n + 1

    outcome = await run(handler)
    assert (outcome.kind, outcome.body, outcome.change) == (OutcomeKind.EXECUTED, b"2", b"")
    assert (outcome.instance_id, outcome.fingerprint) == ("i-1", "f" * 16)
    assert outcome.epoch == 4


async def test_a_pure_handler_runs_on_the_loop_and_reaches_nobody(run: Run) -> None:
    """Nothing may leave before what it was run on is stored."""
    threads: list[int] = []

    def handler(ctx: ResourceContext, n: int) -> int:
        threads.append(threading.get_ident())
        ctx.state.set("total", (ctx.state.get("total", int) or 0) + n)
        return ctx.attempt

    outcome = await run(handler, b"3", values={"total": 1}, begun=2, pure=True)
    assert (outcome.kind, outcome.body) == (OutcomeKind.EXECUTED, b"2")
    assert Change.decode(outcome.change) == Change({"total": 4})
    assert threads == [threading.get_ident()]

    def asks_others(ctx: ResourceContext, n: int) -> int:
        return ctx.request_blocking(ONE, n)

    outcome = await run(asks_others, values={}, pure=True)
    assert outcome.kind is OutcomeKind.FAILED
    assert "request_blocking" in _error(outcome).message


async def test_state_changes_go_with_the_reply_and_not_into_memory(run: Run) -> None:
    """G3, G5: one message holds both; memory changes when it is stored."""
    values = {"total": 1}

    async def handler(ctx: ResourceContext, n: int) -> int:
        ctx.state.set("total", 5)
        ctx.state.delete("other")
        return ctx.epoch

    outcome = await run(handler, values=values)
    assert outcome.body == b"4"
    assert Change.decode(outcome.change) == Change({"total": 5}, ("other",))
    assert values == {"total": 1}


async def test_a_rejection_changes_nothing(run: Run) -> None:
    async def handler(ctx: ResourceContext, n: int) -> int:
        ctx.state.set("total", 5)
        raise Rejected("no_funds", "short", {"by": n})

    outcome = await run(handler, values={})
    assert (outcome.kind, outcome.change) == (OutcomeKind.REJECTED, b"")
    assert _error(outcome) == ErrorBody(
        code="no_funds", message="short", details={"by": 1}, by="handler"
    )


async def test_an_exception_is_the_answer_without_retries(run: Run) -> None:
    calls = 0

    async def handler(ctx: ResourceContext, n: int) -> int:
        nonlocal calls
        calls += 1
        ctx.state.set("total", 5)
        raise KeyError("missing")

    outcome = await run(handler, values={})
    assert (outcome.kind, outcome.change, calls) == (OutcomeKind.FAILED, b"", 1)
    assert _error(outcome).message == "KeyError: 'missing'"


async def test_retries_run_it_again_with_a_fresh_state(run: Run) -> None:
    attempts: list[tuple[int, Any]] = []

    async def handler(ctx: ResourceContext, n: int) -> int:
        attempts.append((ctx.attempt, ctx.state.get("total")))
        ctx.state.set("total", 99)
        if len(attempts) < 3:
            raise OSError("not yet")
        return 7

    outcome = await run(handler, values={"total": 1}, retries=Retries(attempts=3, wait_s=0.001))
    assert outcome.kind is OutcomeKind.EXECUTED
    assert attempts == [(1, 1), (2, 1), (3, 1)]


async def test_retries_end(run: Run) -> None:
    calls = 0

    async def handler(ctx: Context, n: int) -> int:
        nonlocal calls
        calls += 1
        raise OSError("never")

    outcome = await run(handler, retries=Retries(attempts=3, wait_s=0.001))
    assert (outcome.kind, calls) == (OutcomeKind.FAILED, 3)


async def test_a_rejection_is_not_retried(run: Run) -> None:
    calls = 0

    async def handler(ctx: Context, n: int) -> int:
        nonlocal calls
        calls += 1
        raise Rejected("no")

    await run(handler, retries=Retries(attempts=3, wait_s=0.001))
    assert calls == 1


@pytest.mark.parametrize("doubt", [OutcomeUnknown("?", "c~1.1"), Unavailable("?")])
async def test_a_nested_request_in_doubt_is_asked_again_and_never_an_outcome(
    run: Run, asks: NoAsks, doubt: Exception
) -> None:
    """G3: the same id asked again ends the doubt; a failure now would fix it."""
    asks.answers = [doubt, doubt, 41]

    async def handler(ctx: Context, n: int) -> int:
        return n + await ctx.request(ONE, 1)

    outcome = await run(handler)
    assert outcome.body == b"42"
    assert [calls.retry for _, calls in asks.asked] == [0, 0, 0]
    assert [parent.attempt for parent, _ in asks.asked] == [1, 2, 2]


async def test_a_doubt_that_ended_makes_none_of_one_that_the_next_run_makes_up(
    run: Run, asks: NoAsks
) -> None:
    """G8: it would run again for ever."""
    asks.answers = [OutcomeUnknown("?", "c~1.1"), 41]

    async def handler(ctx: Context, n: int) -> int:
        await ctx.request(ONE, 1)
        raise Unavailable("the database is away")

    async with asyncio.timeout(5.0):
        outcome = await run(handler)
    assert outcome.kind is OutcomeKind.FAILED
    assert len(asks.asked) == 2


async def test_a_handler_that_runs_again_says_so_to_its_nested_requests(
    run: Run, asks: NoAsks
) -> None:
    """G3: they may have outcomes already."""
    asks.answers = [1]

    async def handler(ctx: Context, n: int) -> int:
        assert ctx.attempt == 2
        return await ctx.request(ONE, 1)

    await run(handler, begun=2)
    assert asks.asked[0][0].attempt == 2


async def test_an_expired_request_is_not_begun(run: Run) -> None:
    """G4: its caller is told that it had no effect."""

    async def handler(ctx: Context, n: int) -> int:
        raise AssertionError("must not run")

    outcome = await run(handler, deadline_s=time.time() - 0.001)
    assert outcome.kind is OutcomeKind.EXPIRED


async def test_a_handler_that_ends_after_its_deadline_is_not_executed(run: Run) -> None:
    """G4: the outcome can no longer be `executed`, and the change is gone with it."""

    async def handler(ctx: ResourceContext, n: int) -> int:
        ctx.state.set("total", 1)
        await asyncio.sleep(max(0.0, ctx.remaining_s() or 0.0) + 0.001)
        return 1

    outcome = await run(handler, values={}, deadline_s=time.time() + 0.05)
    assert (outcome.kind, outcome.change) == (OutcomeKind.EXPIRED, b"")


async def test_a_deadline_ends_retries(run: Run) -> None:
    """G4: nothing is tried for a caller who has gone."""
    calls = 0

    async def handler(ctx: Context, n: int) -> int:
        nonlocal calls
        calls += 1
        raise OSError

    outcome = await run(handler, retries=Retries(10**6, wait_s=0.01), deadline_s=time.time() + 0.05)
    assert outcome.kind is OutcomeKind.EXPIRED
    assert calls < 20


async def test_a_plain_function_runs_in_a_thread(run: Run) -> None:
    seen: list[int] = []

    def handler(ctx: Context, n: int) -> int:
        seen.append(threading.get_ident())
        return n * 2

    assert (await run(handler)).body == b"2"
    assert seen != [threading.get_ident()]


async def test_a_plain_function_asks_other_services_from_its_thread(run: Run, asks: NoAsks) -> None:
    asks.answers = [20]

    def handler(ctx: Context, n: int) -> int:
        return n + ctx.request_blocking(ONE, 1)

    assert (await run(handler)).body == b"21"


@pytest.mark.parametrize("error", [ValueError("x"), Rejected("no"), StopIteration()])
async def test_whatever_a_plain_function_raises_is_an_outcome(run: Run, error: Exception) -> None:
    def handler(ctx: Context, n: int) -> int:
        raise error

    async with asyncio.timeout(5.0):
        outcome = await run(handler)
    assert outcome.kind in (OutcomeKind.FAILED, OutcomeKind.REJECTED)


async def test_a_handler_that_raises_a_cancellation_of_its_own_has_failed(run: Run) -> None:
    """It awaited a task that something else cancelled; nobody cancelled the handler."""

    async def handler(ctx: Context, n: int) -> int:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task
        return 1

    assert (await run(handler)).kind is OutcomeKind.FAILED


async def test_a_cancelled_run_is_no_outcome(run: Run) -> None:
    """The instance stops: another one runs it."""
    begun = asyncio.Event()

    async def handler(ctx: Context, n: int) -> int:
        begun.set()
        await asyncio.Event().wait()
        return 1

    task = asyncio.create_task(run(handler))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_reply_that_does_not_fit_the_contract_is_a_failure(run: Run) -> None:
    async def handler(ctx: ResourceContext, n: int) -> Any:
        ctx.state.set("total", 5)
        return "many"

    outcome = await run(handler, values={})
    assert (outcome.kind, outcome.change) == (OutcomeKind.FAILED, b"")
    assert "reply of svc.book" in _error(outcome).message


async def test_a_state_that_json_cannot_carry_is_a_failure(run: Run) -> None:
    async def handler(ctx: ResourceContext, n: int) -> int:
        ctx.state.set("text", "\ud800")
        return 1

    assert (await run(handler, values={})).kind is OutcomeKind.FAILED


@pytest.mark.parametrize(
    "error",
    [
        Rejected("no", details={"order": object()}),
        Rejected("no", "a name from the file system: \udcff"),
        OSError("a name from the file system: \udcff"),
    ],
    ids=["details", "message", "exception"],
)
async def test_what_json_cannot_say_of_an_error_does_not_hold_up_the_requests_behind(
    run: Run, error: Exception
) -> None:
    """G7: without an outcome the resource would be stuck at this request."""

    async def handler(ctx: ResourceContext, n: int) -> int:
        ctx.state.set("total", 5)
        raise error

    outcome = await run(handler, values={})
    assert outcome.kind in (OutcomeKind.REJECTED, OutcomeKind.FAILED)
    assert outcome.change == b""
    assert _error(outcome).code


async def test_a_payload_that_does_not_fit_is_refused_with_its_fields(run: Run) -> None:
    async def handler(ctx: Context, n: int) -> int:
        raise AssertionError("must not run")

    outcome = await run(handler, payload=b'"x"')
    error = _error(outcome)
    assert (outcome.kind, error.code) == (OutcomeKind.REJECTED, "invalid_payload")
    assert error.details["fields"]


async def test_a_method_of_another_version_is_not_executed_and_those_that_exist_are_told(
    run: Run,
) -> None:
    async def handler(ctx: Context, n: int) -> int:
        return 1

    outcome = await run(handler, method="ones")
    error = _error(outcome)
    assert (outcome.kind, error.code) == (OutcomeKind.CANCELLED, "not_executed")
    assert "it has one" in error.message


async def test_a_targeted_handler_is_not_run_for_the_group(asks: NoAsks, threads: Threads) -> None:
    service = Service("svc")

    @service.handles(BOOK)
    async def book(ctx: ResourceContext, n: int) -> int:
        raise AssertionError("must not run")

    runner = Runner(service, instance_id="i-1", asks=_typed(asks), threads=threads)
    outcome = await runner.run(Request("c.1", "svc", "book", None, b"1"), begun=1)
    assert (outcome.kind, _error(outcome).code) == (OutcomeKind.REJECTED, "contract_error")
