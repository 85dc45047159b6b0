"""What is too large, can't be kept, or blocks ends with an outcome and a line that says so; loops that others depend on
outlive one bad answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import aegis_sdk
import pytest
from aegis_sdk import (
    HandlerFailed,
    Method,
    NeverAccepted,
    OutcomeUnknown,
    Rejected,
    ResourceContext,
    Service,
    Unavailable,
    testing,
)
from aegis_sdk.application.letters import STALLED, keep_letter, why_given_up
from aegis_sdk.application.ports import StoreFull, StoreMissing
from aegis_sdk.application.turns.ports import LastWord
from aegis_sdk.contract.dead_letter import PAYLOAD_LEFT_OUT
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.testing import Flow, MemoryBus
from aegis_sdk.testing.harness import make_requester

from tests.adverse.test_callbacks import ADD, ledger
from tests.scenarios.ledger import Booking, Methods
from tests.scenarios.system import new_service, running_system
from tests.unit.sdk.support import until

TEXT = Method("ledger", "text", request=int, reply=str)


# --- too large ------------------------------------------------------------------------------------------


async def test_a_reply_over_max_payload_is_a_failure_with_a_line_at_the_instance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G2: and the next request is served."""
    service = ledger()

    @service.handles(TEXT)
    async def text(ctx: ResourceContext, n: int) -> str:
        return "x" * n

    async with testing.harness(service, resources={"A"}) as aegis:
        aegis.bus.limits.payload_bytes_max = 20_000
        with pytest.raises(HandlerFailed, match=r"ledger\.text can't be stored: .*max_payload"):
            await aegis.request(TEXT, 30_000, resource="A")
        assert "outcome_too_large" in caplog.text
        assert await aegis.request(TEXT, 3, resource="A") == "xxx"


@pytest.mark.parametrize("details", [{"rows": ["x" * 100] * 400}, None])
async def test_a_refusal_over_max_payload_stays_a_refusal(details: dict[str, Any] | None) -> None:
    service = ledger()

    @service.handles(TEXT)
    async def text(ctx: ResourceContext, n: int) -> str:
        raise Rejected("no", "because " + "y" * n, details)

    async with testing.harness(service, resources={"A"}) as aegis:
        aegis.bus.limits.payload_bytes_max = 20_000
        with pytest.raises(Rejected, match="details are left out") as caught:
            await aegis.request(TEXT, 30_000, resource="A")
        assert (caught.value.code, caught.value.details) == ("no", {})


@pytest.mark.parametrize(
    "made_up",
    [Unavailable("the database is away"), OutcomeUnknown("?", "a.1"), NeverAccepted("?", "a.1")],
)
async def test_a_doubt_that_a_handler_makes_up_is_its_failure(made_up: Exception) -> None:
    """No call of its own is in doubt, so that running it again would end nothing: not for ever, then."""
    service = ledger()

    @service.handles(TEXT)
    async def text(ctx: ResourceContext, n: int) -> str:
        raise made_up

    async with testing.harness(service, resources={"A"}) as aegis:
        ticket = await aegis.submit(TEXT, 1, resource="A")
        with pytest.raises(HandlerFailed, match=type(made_up).__name__):
            await aegis.attach(ticket.id, TEXT, timeout_s=2.0)
        assert await aegis.request(ADD, 1, resource="A") == 1


@pytest.mark.parametrize(
    ("code", "details"),
    [(404, {"a": float("nan")}), (None, [1, 2]), (OutcomeKind.FAILED, {("a", 1): object()})],
)
async def test_a_refusal_may_be_made_of_anything(code: Any, details: Any) -> None:
    service = ledger()

    @service.handles(TEXT)
    async def text(ctx: ResourceContext, n: int) -> str:
        raise Rejected(code, code, details)

    async with testing.harness(service, resources={"A"}) as aegis:
        with pytest.raises(Rejected) as caught:
            await aegis.request(TEXT, 1, resource="A")
        assert caught.value.code == str(code)


# --- dead letters -----------------------------------------------------------------------------------------
GAVE_UP = Outcome.error(OutcomeKind.FAILED, "gave_up", "begun 3 times")


async def test_a_dead_letter_over_the_limit_is_kept_without_its_payload() -> None:
    """G1: the request behind it has waited for ever."""
    bus = MemoryBus()
    request = Request("c.1", "ledger", "add", "A", b"1" * 19_900, chain=("x/y" * 20,))
    bus.limits.payload_bytes_max = 20_000
    async with asyncio.timeout(5.0):
        await keep_letter(bus.link().letters, request, GAVE_UP)
    kept, reason = bus.dead_letters["c.1"]
    assert kept.payload == b""
    assert PAYLOAD_LEFT_OUT.encode() in reason.body
    assert b"19900 bytes" in reason.body


class _Without:
    """A DLQ that takes nothing."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def dead_letter(self, request: Request, outcome: Outcome) -> None:
        raise self._error


@pytest.mark.parametrize("error", [StoreFull("full"), StoreMissing("gone")])
async def test_a_dlq_that_is_full_or_gone_keeps_no_request_from_its_outcome(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """G1: an operator may have deleted it. The log has what it does not."""
    async with asyncio.timeout(20.0):
        await keep_letter(_Without(error), Request("c.1", "ledger", "add", "A", b"1"), GAVE_UP)
    assert "dead_letter_not_kept" in caplog.text


# --- loops --------------------------------------------------------------------------------------------------


class _Poisoned:
    """The first try to end what is in doubt raises what nobody thought of."""

    def __init__(self, last_word: LastWord) -> None:
        self._last_word = last_word
        self.tries = 0

    async def settle(
        self, service: str, requests: Sequence[Request], *, open_s: float, stored: bool
    ) -> dict[str, Outcome]:
        self.tries += 1
        if self.tries == 1:
            raise RuntimeError("nobody thought of this")
        return await self._last_word.settle(service, requests, open_s=open_s, stored=stored)


async def test_one_bad_answer_does_not_take_the_deadlines_of_all_open_calls_along() -> None:
    """G4: each ends within its own."""
    async with testing.harness(ledger(), resources={"A"}) as aegis:
        link = aegis.bus.link("caller")
        poisoned = _Poisoned(link.last_word)
        link.last_word = poisoned  # type: ignore[assignment]
        requester = make_requester(link, caller="caller")
        link.hold(Flow.REPLIES)
        calls = [
            requester.request(ADD, n, resource="A", timeout_s=0.5 + n / 10, key=None)
            for n in range(5)
        ]
        begun_s = time.monotonic()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - begun_s < 8.0
        assert sum(isinstance(end, int) for end in ends) >= 4
        assert poisoned.tries > 1
        await requester.close()


# --- a blocked loop -------------------------------------------------------------------------------------------


def test_who_replaces_a_stalled_active_says_that_nothing_died() -> None:
    """The short form of the next one."""
    request = Request("c.1", "ledger", "add", "A", b"1")
    why = why_given_up(request, 3, STALLED)
    assert "the handler of ledger.add blocked its instance's event loop" in why


@pytest.mark.scenario
@pytest.mark.slow
async def test_a_handler_that_blocks_the_loop_is_named_and_told_what_to_do() -> None:
    """Nothing died: the outcome says what the handler did, and to make it a plain `def`."""
    service = new_service()
    methods = Methods(service)
    async with running_system(controls=0) as system:
        await system.start_control("--stall-limit-s", "0.5")
        await asyncio.gather(
            *(
                system.start_ledger(service, {"A": "auto"}, instance_id=f"{service}-{n}")
                for n in range(4)
            )
        )
        async with aegis_sdk.connect(system.url) as aegis:
            with pytest.raises(HandlerFailed, match="blocked its instance's event loop") as caught:
                await aegis.request(
                    methods.book, Booking(op="1", block_s=60.0), resource="A", timeout_s=30.0
                )
        assert f"{service}.book" in str(caught.value)
        assert "plain `def`" in str(caught.value)


@pytest.mark.scenario
async def test_a_block_that_ends_is_told_by_its_instance() -> None:
    """The line names the method and how long."""
    service = new_service()
    methods = Methods(service)
    async with running_system() as system:
        process = await system.start_ledger(service, {"A": "auto"}, instance_id=f"{service}-1")
        async with aegis_sdk.connect(system.url) as aegis:
            await aegis.request(methods.book, Booking(op="1", block_s=1.5), resource="A")
        await _logged(process, "event_loop_blocked")
        (line,) = process.logged("event_loop_blocked")
    assert line["methods"] == ["book"]
    assert line["duration_s"] > 1.0


async def _logged(process: Any, event: str) -> None:
    async with asyncio.timeout(5.0):
        while not process.logged(event):  # noqa: ASYNC110 - a process of its own
            await asyncio.sleep(0.02)


async def test_a_group_handler_that_blocks_its_loop_is_not_begun_again_in_its_own_process() -> None:
    """Redelivered meanwhile, it was counted as dead three times over, and given up while it ran."""
    runs = 0
    service = Service("ledger")
    count = Method("ledger", "count", request=int, reply=int)

    @service.handles(count)
    async def run(ctx: aegis_sdk.Context, n: int) -> int:
        nonlocal runs
        runs += 1
        await held.wait()
        return n

    held = asyncio.Event()
    bus = MemoryBus(ack_wait_s=0.05)
    async with testing.harness(service, bus=bus) as aegis:
        extends = aegis.instances[0]._serving.host.deliveries._timer
        assert extends is not None
        extends.cancel()  # as a blocked loop
        ticket = await aegis.submit(count, 7)
        await until(lambda: runs)
        for _ in range(20):
            await asyncio.sleep(0.02)
        held.set()
        assert await aegis.attach(ticket.id, count) == 7
    assert runs == 1
