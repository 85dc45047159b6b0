"""Reads: answered from state, never stored; what they may miss, and what is refused."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk import (
    Context,
    ContractError,
    HandlerFailed,
    InvalidArgument,
    Method,
    NoRoute,
    ReadContext,
    Rejected,
    ResourceContext,
    Service,
    TooFarBehind,
)
from aegis_sdk.contract.turns.reads import Wanted
from aegis_sdk.domain.turns.reads import HOLD_S, PROOF_S, Freshness
from aegis_sdk.domain.turns.states import HeldState
from aegis_sdk.testing import MemoryBus, blocking_harness, harness
from aegis_sdk.testing.faults import Fault, Flow, Op

from tests.unit.sdk.support import until

ADD = Method("accounts", "add", request=int, reply=int)
TOTAL = Method("accounts", "total", request=str, reply=int)


def accounts(**more: asyncio.Event) -> Service:
    service = Service("accounts")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, n: int) -> int:
        if n < 0:
            more["begun"].set()
            await more["may_end"].wait()
        total = (ctx.state.get("total", int) or 0) + abs(n)
        ctx.state.set("total", total)
        return total

    @service.reads(TOTAL)
    def total(ctx: ReadContext, key: str) -> int:
        if key == "":
            raise Rejected("no_key", "give a key")
        return ctx.state.get(key, int) or 0

    return service


async def test_a_read_sees_the_state_and_stores_nothing() -> None:
    async with harness(accounts(), resources={"A"}) as aegis:
        assert await aegis.read(TOTAL, "total", resource="A") == 0
        assert await aegis.request(ADD, 5, resource="A") == 5
        before = len(list(aegis.bus.log("accounts").records()))
        assert [await aegis.read(TOTAL, "total", resource="A") for _ in range(20)] == [5] * 20
        assert len(list(aegis.bus.log("accounts").records())) == before


async def test_a_read_passes_a_handler_that_waits() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    async with harness(accounts(begun=begun, may_end=may_end), resources={"A"}) as aegis:
        slow = asyncio.create_task(aegis.request(ADD, -3, resource="A"))
        await begun.wait()
        assert await aegis.read(TOTAL, "total", resource="A") == 0
        may_end.set()
        assert await slow == 3
        assert await aegis.read(TOTAL, "total", resource="A") == 3


async def test_what_a_reader_raises_reaches_its_caller() -> None:
    service = Service("accounts")

    @service.reads(TOTAL)
    def broken(ctx: ReadContext, key: str) -> int:
        if key == "reject":
            raise Rejected("no_key", "give a key", {"key": key})
        return {}[key]  # type: ignore[index]

    async with harness(service, resources={"A"}) as aegis:
        with pytest.raises(Rejected, match="no_key"):
            await aegis.read(TOTAL, "reject", resource="A")
        with pytest.raises(HandlerFailed, match="KeyError"):
            await aegis.read(TOTAL, "other", resource="A")


async def test_a_replaced_active_that_does_not_know_it_answers_nothing_old() -> None:
    """G5: its entries do not reach it, and reads do."""
    async with harness(accounts(), resources={"A"}) as aegis:
        old = aegis.instances[0]
        new = await aegis.serve(accounts(), resources={"A"})
        assert await aegis.request(ADD, 1, resource="A") == 1
        assert await aegis.read(TOTAL, "total", resource="A") == 1
        old.link.hold(Flow.ENTRIES)
        aegis.bus.control.grant("accounts", "A", to=new.id)
        await until(
            lambda: new.active_resources == ["A"]
        )  # else the old one is sent a request, and learns it
        for total in range(2, 12):
            assert await aegis.request(ADD, 1, resource="A") == total
            reads = (aegis.read(TOTAL, "total", resource="A") for _ in range(5))
            assert await asyncio.gather(*reads) == [total] * 5
        assert old.active_resources == ["A"]
        old.link.release(Flow.ENTRIES)
        assert await aegis.read(TOTAL, "total", resource="A") == 11


async def test_a_read_waits_for_what_is_on_its_way_to_the_log() -> None:
    """Its caller may be told by the log itself before the active knows that it is stored."""
    bus = MemoryBus()
    async with harness(accounts(), resources={"A"}, bus=bus) as aegis:
        await aegis.request(ADD, 1, resource="A")
        active = aegis.instances[0]
        active.link.hold(Flow.ENTRIES)
        bus.faults.once(Op.COMMIT, Fault.LOST_ANSWER)
        assert await aegis.request(ADD, 1, resource="A") == 2
        reading = asyncio.create_task(aegis.read(TOTAL, "total", resource="A"))
        await asyncio.sleep(0.01)
        assert not reading.done()
        active.link.release(Flow.ENTRIES)
        assert await reading == 2


async def test_who_takes_over_waits_until_no_proof_of_the_owner_before_holds() -> None:
    """The old active answers by a proof that it had just before. So the new one may not have answered anything yet."""
    loop = asyncio.get_running_loop()
    async with harness(accounts(), resources={"A"}) as aegis:
        new = await aegis.serve(accounts(), resources={"A"})
        await aegis.request(ADD, 1, resource="A")
        begun_s = loop.time()
        aegis.bus.control.grant("accounts", "A", to=new.id)
        assert await aegis.request(ADD, 1, resource="A") == 2
        assert loop.time() - begun_s >= PROOF_S


async def test_a_service_without_readers_waits_for_nobody() -> None:
    def made() -> Service:
        service = Service("accounts")

        @service.handles(ADD, pure=True)
        def add(ctx: ResourceContext, n: int) -> int:
            return n

        return service

    async with harness(made(), resources={"A"}) as aegis:
        new = await aegis.serve(made(), resources={"A"})
        await aegis.request(ADD, 1, resource="A")
        aegis.bus.control.grant("accounts", "A", to=new.id)
        await until(lambda: new.active_resources == ["A"])
        assert new._serving.host.writer.held["A"].state is HeldState.SERVING


def test_a_proof_holds_for_reads_that_came_before_it_and_for_a_moment() -> None:
    fresh = Freshness()
    assert not fresh.is_proven(came_s=10.0, now_s=10.0)
    fresh.proven(10.0)
    assert fresh.is_proven(came_s=10.0, now_s=99.0), "it was begun when the read was there"
    assert fresh.is_proven(came_s=10.01, now_s=10.0 + PROOF_S / 2)
    assert not fresh.is_proven(came_s=10.01, now_s=10.0 + PROOF_S)
    fresh.proven(5.0)
    assert fresh.proven_s == 10.0
    assert HOLD_S > PROOF_S


# --- standbys -------------------------------------------------------------------------------------------------
async def test_a_standby_is_never_older_than_what_its_client_has_seen() -> None:
    async with harness(accounts(), resources={"A"}) as aegis:
        standby = await aegis.serve(accounts(), resources={"A"})
        await asyncio.sleep(0.01)
        assert await aegis.read(TOTAL, "total", resource="A", at="standby") == 0
        standby.link.hold(Flow.ENTRIES)
        assert await aegis.request(ADD, 4, resource="A") == 4
        reading = asyncio.create_task(aegis.read(TOTAL, "total", resource="A", at="standby"))
        with pytest.raises(TooFarBehind, match=r"has read up to .* 1 entries more"):
            await aegis.read(TOTAL, "total", resource="A", at="standby", timeout_s=0.3)
        assert not reading.done()
        standby.link.release(Flow.ENTRIES)
        assert await reading == 4


async def test_a_position_may_be_handed_to_another_client() -> None:
    bus = MemoryBus()
    async with harness(accounts(), resources={"A"}, bus=bus) as first, harness(bus=bus) as second:
        standby = await first.serve(accounts(), resources={"A"})
        await first.request(ADD, 4, resource="A")
        await asyncio.sleep(0.01)
        standby.link.hold(Flow.ENTRIES)
        assert second.position(TOTAL) == ""
        await first.request(ADD, 4, resource="A")
        assert await second.read(TOTAL, "total", resource="A", at="standby") == 4, "any will do"
        reading = asyncio.create_task(
            second.read(TOTAL, "total", resource="A", at="standby", at_least=first.position(TOTAL))
        )
        await asyncio.sleep(0.01)
        assert not reading.done()
        standby.link.release(Flow.ENTRIES)
        assert await reading == 8


async def test_a_bound_on_the_lag_has_the_standby_ask_the_log() -> None:
    bus = MemoryBus()
    async with harness(accounts(), resources={"A"}, bus=bus) as first, harness(bus=bus) as second:
        standby = await first.serve(accounts(), resources={"A"})
        await asyncio.sleep(0.01)
        standby.link.hold(Flow.ENTRIES)
        await first.request(ADD, 4, resource="A")
        assert await second.read(TOTAL, "total", resource="A", at="standby") == 0
        with pytest.raises(TooFarBehind):
            await second.read(
                TOTAL, "total", resource="A", at="standby", lag_s_max=0.001, timeout_s=0.3
            )
        standby.link.release(Flow.ENTRIES)
        assert await second.read(TOTAL, "total", resource="A", at="standby", lag_s_max=0.001) == 4


async def test_a_standby_that_becomes_active_answers_as_that() -> None:
    async with harness(accounts(), resources={"A"}) as aegis:
        await aegis.serve(accounts(), resources={"A"})
        await aegis.request(ADD, 4, resource="A")
        await aegis.instances[0].kill()
        assert await aegis.read(TOTAL, "total", resource="A") == 4
        with pytest.raises(NoRoute, match="no standby"):
            await aegis.read(TOTAL, "total", resource="A", at="standby", timeout_s=0.1)


# --- wrong use ------------------------------------------------------------------------------------------------
def test_a_method_is_read_or_handled_and_not_both() -> None:
    service = accounts()
    with pytest.raises(ContractError, match="has a reader already"):
        service.handles(TOTAL)
    with pytest.raises(ContractError, match="has a handler already"):
        service.reads(ADD)
    with pytest.raises(ContractError, match="not a method of service other"):
        Service("other").reads(TOTAL)
    stored = Method("accounts", "stored", request=str, reply=int, stored=True)
    with pytest.raises(ContractError, match="stored=True"):
        service.reads(stored)


def test_a_reader_is_a_plain_function_with_a_read_context() -> None:
    service = Service("accounts")

    async def waits(ctx: ReadContext, key: str) -> int:
        return 0

    def changes(ctx: ResourceContext, key: str) -> int:
        return 0

    def says_nothing(ctx, key):  # type: ignore[no-untyped-def]
        return 0

    with pytest.raises(ContractError, match="waits for nothing"):
        service.reads(TOTAL)(waits)
    with pytest.raises(ContractError, match="as ReadContext"):
        service.reads(TOTAL)(changes)
    with pytest.raises(ContractError, match="it says nothing"):
        service.reads(TOTAL)(says_nothing)
    with pytest.raises(ContractError, match="is for `reads`"):
        service.handles(ADD)(lambda_with_read_context)
    assert not hasattr(ReadContext, "submit")
    assert issubclass(ResourceContext, Context)


def lambda_with_read_context(ctx: ReadContext, n: int) -> int:
    return n


async def test_wrong_use_is_told_before_anything_is_sent() -> None:
    async with harness(accounts(), resources={"A"}) as aegis:
        with pytest.raises(ContractError, match=r"ask by aegis\.read"):
            await aegis.request(TOTAL, "total", resource="A")
        with pytest.raises(ContractError, match=r"ask by aegis\.request"):
            await aegis.read(ADD, 1, resource="A")
        with pytest.raises(NoRoute):
            await aegis.read(TOTAL, "total", resource="B")
        with pytest.raises(InvalidArgument, match="active, standby"):
            await aegis.read(TOTAL, "total", resource="A", at="leader")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="what position\\(\\) returned"):
            await aegis.read(TOTAL, "total", resource="A", at_least="17")
        with pytest.raises(ContractError, match="another log"):
            await aegis.read(TOTAL, "total", resource="A", at_least="0ld@17")


def test_what_a_read_asks_for_comes_back_as_it_was_written() -> None:
    for wanted in (Wanted(0.08), Wanted(1.0, "5f0c@12"), Wanted(0.0, "@1", 0.25)):
        assert Wanted.parse(wanted.header()) == wanted
    for header in ("", "wait=nan", "wait=-1", "wait=1 least=x", "least=a@1"):
        with pytest.raises((ValueError, KeyError)):
            Wanted.parse(header)


def test_threads_read_by_the_same_verbs() -> None:
    with blocking_harness(accounts(), resources={"A"}) as aegis:
        assert aegis.request(ADD, 3, resource="A") == 3
        assert aegis.read(TOTAL, "total", resource="A") == 3
        assert aegis.position(TOTAL).startswith("@")
