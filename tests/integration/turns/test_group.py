"""Group requests: sent to the members in turn, each outcome under its own name."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest
from aegis_sdk import Context, Service
from aegis_sdk.contract.envelope import OutcomeKind
from aegis_sdk.domain.turns.work import Write
from aegis_sdk.infrastructure.turns.assembly import TurnInstance
from aegis_sdk.infrastructure.turns.log import store_cancel
from aegis_sdk.infrastructure.turns.search import outcome_at
from aegis_sdk.infrastructure.turns.sent import SentRequests

from tests.integration.turns.support import GREET, Add, Sum, Told, World


def greeter(served: list[str], *, slow_s: float = 0.0) -> Service:
    service = Service("accounts")

    @service.handles(GREET)
    async def greet(ctx: Context, request: Add) -> Sum:
        served.append(ctx.instance_id)
        await asyncio.sleep(slow_s)
        return Sum(total=request.n, count=len(served), epoch=os.getpid())

    return service


async def test_members_get_them_in_turn(world: World) -> None:
    """G2: each serves its share; each has one outcome, which its caller is told by the log itself."""
    served: list[str] = []
    names = [f"accounts-{n}" for n in range(3)]
    for name in names:
        await world.instance(name, [], greeter(served))
    client, told = await world.client(members=names), Told()
    await asyncio.gather(*(told.call(client, None, "greet") for _ in range(60)))
    assert {o.kind for o in told.outcomes.values()} == {OutcomeKind.EXECUTED}
    # On a busy machine some may be in doubt: what is stored may be served by another.
    assert min(Counter(served)[name] for name in names) >= 20 - client.caller.stored


async def test_what_a_member_that_is_gone_was_given_is_served_by_another(world: World) -> None:
    """G1: nobody listens there, so it is stored, and the server gives it to a member that does."""
    served: list[str] = []
    await world.instance("accounts-0", [], greeter(served))
    client = await world.client(members=["accounts-0", "accounts-gone"])
    told = Told()
    await asyncio.gather(*(told.call(client, None, "greet") for _ in range(20)))
    assert {o.kind for o in told.outcomes.values()} == {OutcomeKind.EXECUTED}
    assert len(served) >= 20  # some may have run twice, and have one outcome


async def test_a_member_that_says_nothing_is_not_asked_for_each_request(small_world: World) -> None:
    """G1: what was sent to it waits for one silence, not for as many as there are requests."""
    link, names = await small_world.link(), small_world.names
    asked: list[bytes] = []
    await link.subscribe(
        names.sent_to_member("stopped"), lambda message: asked.append(message.data)
    )
    sent = SentRequests(link, names)
    assert [await sent.has_in_hand("stopped", f"c.{n}") for n in range(20)] == [None] * 20
    assert asked == [b"c.0"]


async def test_a_cancel_and_an_outcome_are_one_or_the_other(small_world: World) -> None:
    """G4: both are stored under the request's name; whoever is first is what both are told."""
    served: list[str] = []
    await small_world.instance("accounts-0", [], greeter(served, slow_s=0.3))
    client, told = await small_world.client(members=["accounts-0"]), Told()
    waiting = asyncio.create_task(told.call(client, None, "greet"))
    while not served:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.005)
    (request_id,) = told.sent
    request = client.caller.open._waiting[request_id].request
    cancelled = await store_cancel(await small_world.link(), small_world.names, request)
    assert cancelled.kind is OutcomeKind.CANCELLED
    outcome = await waiting
    assert outcome is not None
    assert outcome.kind is OutcomeKind.CANCELLED


async def test_a_group_call_that_nobody_answers_is_cancelled(small_world: World) -> None:
    """G4: it can't take effect any more, whoever comes later."""
    client, told = await small_world.client(members=["accounts-0"]), Told()
    outcome = await told.call(client, None, "greet", timeout_s=0.05)
    assert outcome is not None
    assert outcome.kind is OutcomeKind.CANCELLED
    (request_id,) = told.sent
    await small_world.instance("accounts-0", [], greeter([]))
    later = await told.call(client, None, "greet")
    assert later is not None
    assert later.kind is OutcomeKind.EXECUTED
    link, names = await small_world.link(), small_world.names
    stored = await outcome_at(link, names, names.single(None, request_id), request_id)
    assert stored is not None
    assert stored.kind is OutcomeKind.CANCELLED


async def test_an_outcome_whose_acknowledgement_is_lost_with_its_connection_is_told(
    small_world: World,
) -> None:
    """G2: it is stored again under its one name, on the new connection, and whoever asked is answered once."""
    served: list[str] = []
    instance = await small_world.instance("accounts-0", [], greeter(served))
    client, told = await small_world.client(members=["accounts-0"]), Told()
    store = instance.log.store

    def cut(write: Write) -> bool:
        instance.log.store = store  # type: ignore[method-assign]
        answers = store(write)
        instance.log.push()
        transport = instance._link.client._transport
        assert transport is not None
        asyncio.get_running_loop().call_soon(transport.close)
        return answers

    instance.log.store = cut  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        outcome = await told.call(client, None, "greet", timeout_s=8.0)
        assert outcome is not None
        assert outcome.kind is OutcomeKind.EXECUTED
        while instance.host.writer.desk.open:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


async def test_an_outcome_of_the_group_is_stored_again_only_in_a_log_that_is_known(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G3: no gate would hold it out of an older copy, which lacks what its handler has done."""
    instance = await small_world.instance("accounts-0", [], greeter([]))
    client, told = await small_world.client(members=["accounts-0"]), Told()
    host, store, stored = instance.host, instance.log.store, list[Write]()

    def lost(write: Write) -> bool:
        stored.append(write)
        return False

    instance.log.store = lost  # type: ignore[method-assign]
    monkeypatch.setattr(instance.log, "forget_unanswered", lambda: list(stored))
    asked = asyncio.create_task(told.call(client, None, "greet", timeout_s=8.0))
    async with asyncio.timeout(10):
        while not stored:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        instance.log.store = store  # type: ignore[method-assign]
        monkeypatch.setattr(host._claims, "may_write", lambda session: False)
        host.restored()
        host._act()
        assert not asked.done()
        assert host._of_group == stored
        monkeypatch.undo()
        outcome = await asked
    assert outcome is not None
    assert outcome.kind is OutcomeKind.EXECUTED
    assert not host._of_group


async def test_a_member_that_still_reads_the_log_leaves_the_group_to_others(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: a group request in its hands would wait for its reading."""
    monkeypatch.setattr("aegis_sdk.application.turns.serving.CATCH_UP_S_MAX", 60.0)
    served: list[str] = []
    await small_world.instance("accounts-1", [], greeter(served))
    behind = TurnInstance(
        await small_world.link(),
        small_world.subjects,
        greeter(served),
        instance_id="accounts-0",
        resources=[],
    )
    small_world.stack.push_async_callback(behind.stop)
    monkeypatch.setattr(behind.host._claims, "may_write", lambda session: False)
    await behind.begin()
    starting = asyncio.create_task(behind.start_group())
    client, told = await small_world.client(members=["accounts-0", "accounts-1"]), Told()
    await asyncio.gather(*(told.call(client, None, "greet") for _ in range(10)))
    assert set(served) == {"accounts-1"}
    assert not starting.done()
    monkeypatch.setattr(behind.host._claims, "may_write", lambda session: True)
    behind.host._changed.set()
    async with asyncio.timeout(10):
        await starting
        await asyncio.gather(*(told.call(client, None, "greet") for _ in range(10)))
    assert set(served) == {"accounts-0", "accounts-1"}
