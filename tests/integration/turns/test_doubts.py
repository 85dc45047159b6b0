"""A caller's doubts: when it stores, and how it gives up (G1, G4)."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Collection

import pytest
from aegis_sdk import Method
from aegis_sdk.application.ports import StoreMissing, StoreUnreachable
from aegis_sdk.contract.envelope import Outcome, OutcomeKind
from aegis_sdk.domain.turns import doubt
from aegis_sdk.domain.turns.sessions import WINDOW
from aegis_sdk.errors import Cancelled
from aegis_sdk.nats.link import Link

from tests.integration.turns.support import (
    ADD,
    ADD_SLOWLY,
    WAIT_S,
    Add,
    Owners,
    Told,
    Worker,
    World,
    adder,
    give,
    read_log,
)


async def test_what_nobody_serves_is_stored_and_served_later(small_world: World) -> None:
    """G1: the request waits for an owner, and is not lost with its caller's message."""
    instance = await small_world.instance("accounts-1", ["A"])
    client = await small_world.client()
    call = asyncio.create_task(client.request(ADD, Add(n=1), resource="A", timeout_s=10.0))
    while not client.caller.stored:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.005)
    await give(small_world, instance, ["A"])
    assert (await call).total == 1


async def until_nobody_hears(link: Link, subject: str) -> None:
    """A process is dead for its server when the server has read the end of its connection, which a busy machine puts off."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await link.request(subject, b"", timeout_s=0.05)
            except StoreMissing:
                return
            except StoreUnreachable:
                continue


async def test_calls_that_a_failover_meets_are_sent_to_the_new_owner(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: and are not stored first, however many they are; each caller's own order holds (G7)."""
    for name in ("TAKEOVER_S", "OPEN_S"):  # the machine may be busy with something else
        monkeypatch.setattr(doubt, name, 60.0)
    names = [f"R-{n}" for n in range(200)]
    worker = await Worker.start(small_world, "accounts-1", names)
    second = await small_world.instance("accounts-2", names)
    owners, client = Owners(await small_world.link(), small_world.names), await small_world.client()
    await owners.move(dict.fromkeys(names, worker.writer))
    told = Told()
    await asyncio.gather(*(told.call(client, name) for name in names))
    before = client.caller.stored
    worker.send(signal.SIGKILL)
    await worker.ended()
    await until_nobody_hears(await small_world.link(), small_world.names.sent(names[-1]))
    calls = [asyncio.create_task(told.call(client, name)) for name in names * 2]
    await asyncio.sleep(0.1)  # longer than a silence that is a doubt
    await owners.move(dict.fromkeys(names, second.writer))
    outcomes = await asyncio.gather(*calls)
    assert client.caller.stored == before
    assert [json.loads(each.body)["count"] for each in outcomes if each] == [2] * 200 + [3] * 200
    assert told.wrong(*await read_log(small_world)) == []


@pytest.mark.parametrize("method", [ADD, ADD_SLOWLY], ids=["pure", "waits"])
async def test_an_owner_that_was_away_has_one_effect_for_both_copies(
    small_world: World, method: Method[Add, object]
) -> None:
    """G3: the request was sent and, as its owner was silent, stored: the owner wakes up and gets both."""
    worker = await Worker.start(small_world, "accounts-1", ["A"])
    await Owners(await small_world.link(), small_world.names).move({"A": worker.writer})
    client, told = await small_world.client(), Told()
    await told.call(client, "A")
    worker.send(signal.SIGSTOP)
    calls = [asyncio.create_task(told.call(client, "A", method.name)) for _ in range(5)]
    while client.caller.stored < 5:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.005)
    worker.send(signal.SIGCONT)
    await asyncio.gather(*calls)
    assert told.wrong(*await read_log(small_world)) == []
    assert all(o.kind is OutcomeKind.EXECUTED for o in told.outcomes.values())


async def test_what_has_not_begun_is_ended_by_its_owner(small_world: World) -> None:
    """G4, politely: the owner records that, and no gate is needed."""
    instance = await small_world.instance("accounts-1", ["A"], adder(wait_s=0.5))
    await give(small_world, instance, ["A"])
    client, told = await small_world.client(), Told()
    first = asyncio.create_task(told.call(client, "A", "add_slowly"))
    await asyncio.sleep(0)
    gate = instance.host.writer.ownership.gates[instance.writer]
    outcome = await told.call(client, "A", timeout_s=0.1)
    assert outcome is not None
    assert outcome.kind is OutcomeKind.CANCELLED
    assert instance.host.writer.ownership.gates[instance.writer] == gate
    await first
    stored, order = await read_log(small_world)
    assert told.wrong(stored, order) == []
    assert len(stored) == 2


async def test_old_stored_requests_of_one_resource_are_one_reading_for_its_new_owner(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: their outcomes lie below what a session tells; asked for one by one, they held up what came behind them."""
    old, since = 200, WINDOW
    first = await small_world.instance("accounts-1", ["A"])
    client, told = await small_world.client(), Told()
    calls = [asyncio.create_task(told.call(client, "A")) for _ in range(old)]
    while client.caller.stored < old:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.005)
    await give(small_world, first, ["A"])
    await asyncio.gather(*calls, *(told.call(client, "A") for _ in range(since)))
    second = await small_world.instance("accounts-2", ["A"])
    asked, find_all = [], second.host._lookups._log.find_all

    async def counted(request_ids: Collection[str], *, to_seq: int) -> dict[str, Outcome]:
        asked.append(len(request_ids))
        return await find_all(request_ids, to_seq=to_seq)

    monkeypatch.setattr(second.host._lookups._log, "find_all", counted)
    await give(small_world, second, ["A"])
    outcome = await told.call(client, "A")
    assert outcome is not None
    assert f'"count":{old + since + 1},'.encode() in outcome.body
    assert sum(asked) == old
    assert len(asked) <= 3


@pytest.mark.scenario
async def test_a_thousand_callers_of_a_dead_owner_know_soon(world: World) -> None:
    """G4: they give up together; each has a definite answer, and a new owner is not held up."""
    worker = await Worker.start(world, "accounts-1", ["A", "B"])
    owners = Owners(await world.link(), world.names)
    await owners.move({"A": worker.writer, "B": worker.writer})
    client, told = await world.client(), Told()
    await told.call(client, "A")
    worker.send(signal.SIGKILL)
    begun_s = time.monotonic()
    outcomes = await asyncio.gather(
        *(told.call(client, "AB"[n % 2], timeout_s=0.5) for n in range(1000))
    )
    took_s = time.monotonic() - begun_s
    assert {o.kind for o in outcomes if o is not None} == {OutcomeKind.CANCELLED}
    assert not told.unknown
    assert took_s < 0.5 + 5.0, took_s
    instance = await world.instance("accounts-2", ["A", "B"])
    await owners.move({"A": instance.writer, "B": instance.writer})
    assert (await client.request(ADD, Add(n=1), resource="A", timeout_s=5.0)).total == 2
    assert told.wrong(*await read_log(world)) == []


async def test_a_call_whose_owner_never_answers_is_cancelled(small_world: World) -> None:
    worker = await Worker.start(small_world, "accounts-1", ["A"])
    await Owners(await small_world.link(), small_world.names).move({"A": worker.writer})
    client = await small_world.client()
    await client.request(ADD, Add(n=1), resource="A", timeout_s=5.0)
    worker.send(signal.SIGSTOP)
    with pytest.raises(Cancelled):
        await client.request(ADD, Add(n=1), resource="A", timeout_s=0.2)
    worker.send(signal.SIGCONT)
    assert (await client.request(ADD, Add(n=1), resource="A", timeout_s=5.0)).total == 2
