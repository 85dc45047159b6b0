"""Replies: a stored outcome comes to whoever waits for it."""

from __future__ import annotations

import pytest
from aegis_sdk.application.ports import AlreadyStored
from aegis_sdk.contract.envelope import Outcome, OutcomeKind

from tests.contract.worlds import Ports, World, executed, request, until


@pytest.mark.parametrize("resource", [None, "Müller 1"])
async def test_the_stored_outcome_comes_to_its_caller_once(
    world: World, ports: Ports, resource: str | None
) -> None:
    """G8: not the one that was refused; another's outcome, which is stored later, comes behind it."""
    got: list[Outcome] = []
    later: list[Outcome] = []
    server = await world.connect()
    asked = request(world.service, f"{ports.caller}.1", resource)
    await ports.replies.expect(asked.request_id, got.append)
    outcome = executed(change=b'{"set":{},"delete":["a"]}', request_seq=4, instance_id="i-1")
    await server.store.commit(asked, outcome, fence_seq=None)
    with pytest.raises(AlreadyStored):
        await server.store.commit(
            asked, Outcome.error(OutcomeKind.CANCELLED, "late"), fence_seq=None
        )
    await until(lambda: got)
    await ports.replies.expect(f"{ports.caller}.2", later.append)
    await server.store.commit(
        request(world.service, f"{ports.caller}.2", resource), executed(), fence_seq=None
    )
    await until(lambda: later)
    assert got == [outcome]


@pytest.mark.parametrize("request_id", ["elsewhere.7", "elsewhere~1.2", "key-svc.a=20b"])
async def test_an_outcome_of_another_callers_request_can_be_waited_for(
    world: World, ports: Ports, request_id: str
) -> None:
    """What attach and idempotency keys need."""
    one: list[Outcome] = []
    two: list[Outcome] = []
    other = await world.connect()
    await ports.replies.expect(request_id, one.append)
    await ports.replies.expect(request_id, two.append)
    await other.store.outcome(request(world.service, request_id))
    await ports.store.outcome(
        request(world.service, request_id)
    )  # the subscription is known by now
    await other.store.commit(request(world.service, request_id), executed(), fence_seq=None)
    await until(lambda: one and two)
    assert one == two == [executed()]


async def test_each_gets_only_its_own(world: World, ports: Ports) -> None:
    got: dict[int, list[Outcome]] = {n: [] for n in range(1, 4)}
    for n, outcomes in got.items():
        await ports.replies.expect(f"{ports.caller}.{n}", outcomes.append)
    ports.replies.forget(f"{ports.caller}.2", got[2].append)
    for n in (3, 2, 1):
        asked = request(world.service, f"{ports.caller}.{n}")
        await ports.store.commit(asked, executed(str(n).encode()), fence_seq=None)
    await until(lambda: got[1] and got[3])
    assert [len(got[n]) for n in (1, 2, 3)] == [1, 0, 1]
    assert got[3][0].body == b"3"


async def test_forgetting_one_leaves_the_other_that_waits_for_the_same(
    world: World, ports: Ports
) -> None:
    one: list[Outcome] = []
    two: list[Outcome] = []
    for waiting in (one, two):
        await ports.replies.expect("key-svc.k", waiting.append)
    ports.replies.forget("key-svc.k", one.append)
    ports.replies.forget("key-svc.unknown", one.append)
    await ports.store.outcome(request(world.service, "key-svc.k"))
    await ports.store.commit(request(world.service, "key-svc.k"), executed(), fence_seq=None)
    await until(lambda: two)
    assert one == []


async def test_attempts_fences_and_checkpoints_are_no_replies(world: World, ports: Ports) -> None:
    got: list[Outcome] = []
    asked = request(world.service, f"{ports.caller}.1")
    await ports.replies.expect(asked.request_id, got.append)
    seq = await world.fence("ACC 1", 1)
    await ports.store.note_attempt(asked, 1, fence_seq=seq)
    assert got == []
    await ports.store.commit(asked, executed(), fence_seq=seq)
    await until(lambda: got)
    assert got == [executed()]
