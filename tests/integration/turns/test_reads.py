"""Reads on a real server: what they may miss, and what they cost the log."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest
from aegis_sdk.errors import NoRoute, TooFarBehind
from aegis_sdk.infrastructure.turns.assembly import TurnClient

from tests.integration.turns.support import (
    ADD,
    ADD_SLOWLY,
    TOTAL,
    WAIT_S,
    Add,
    Owners,
    Worker,
    World,
    give,
    reading,
)

READING_WORKER = "tests.integration.turns.reading_worker"


async def read(client: TurnClient, *, at: str = "active", **more: Any) -> int:
    wanted = {"at_least": None, "lag_s_max": None, "timeout_s": WAIT_S} | more
    total: int = await client.requester.reading.read(TOTAL, "total", resource="A", at=at, **wanted)
    return total


async def add(client: TurnClient, n: int = 1) -> int:
    return (await client.request(ADD, Add(n=n), resource="A", timeout_s=WAIT_S)).total


async def entries(world: World) -> int:
    info = await (await world.link()).api(f"STREAM.INFO.{world.names.stream}", {})
    return int(info["state"]["messages"])


async def test_a_thousand_reads_leave_the_log_as_it_is(world: World) -> None:
    instance = await world.instance("accounts-1", ["A"], reading())
    await give(world, instance, ["A"])
    client = await world.client()
    assert await add(client, 5) == 5
    before = await entries(world)
    for _ in range(10):
        assert await asyncio.gather(*(read(client) for _ in range(100))) == [5] * 100
    assert await entries(world) <= before + 1


async def test_a_read_does_not_wait_for_a_handler_that_runs(small_world: World) -> None:
    has_begun = asyncio.Event()
    service = reading(wait_s=1.0, before=has_begun.set)
    instance = await small_world.instance("accounts-1", ["A"], service)
    await give(small_world, instance, ["A"])
    client = await small_world.client()
    assert await add(client) == 1
    slow = asyncio.create_task(client.request(ADD_SLOWLY, Add(n=1), resource="A", timeout_s=WAIT_S))
    await has_begun.wait()
    assert await read(client) == 1
    assert not slow.done()
    assert (await slow).total == 2
    assert await read(client) == 2


async def test_a_standby_answers_what_its_client_has_seen(world: World) -> None:
    """Also of a position that another client was told."""
    active = await world.instance("accounts-1", ["A"], reading())
    await world.instance("accounts-2", ["A"], reading())
    await give(world, active, ["A"])
    writing, other = await world.client(), await world.client()
    for n in range(1, 101):
        assert await add(writing) == n
        assert await read(writing, at="standby") == n
        position = writing.requester.reading.position(TOTAL)
        assert await read(other, at="standby", at_least=position) >= n
    assert await read(other, at="standby", lag_s_max=0.5) == 100
    log_id, _, seq = position.partition("@")
    with pytest.raises(TooFarBehind, match="has read up to"):
        await read(other, at="standby", at_least=f"{log_id}@{int(seq) + 1000}", timeout_s=0.3)


async def test_without_a_standby_or_an_active_there_is_no_route(small_world: World) -> None:
    client = await small_world.client()
    with pytest.raises(NoRoute, match="no active of 'A'"):
        await read(client, timeout_s=0.2)
    instance = await small_world.instance("accounts-1", ["A"], reading())
    await give(small_world, instance, ["A"])
    with pytest.raises(NoRoute, match="no standby of 'A'"):
        await read(client, at="standby")


async def test_an_active_whose_reader_has_stopped_answers_nothing_old(world: World) -> None:
    """G5: it is awake, is sent the reads, and never learns from its log that it was replaced."""
    old = await world.instance("accounts-1", ["A"], reading())
    new = await world.instance("accounts-2", ["A"], reading())
    owners = Owners(await world.link(), world.names)
    await owners.move({"A": old.writer})
    client, reader = await world.client(), await world.client()
    assert await add(client) == await read(reader) == 1
    await old._reader.stop()
    old.host._sent.leave(["A"])  # nor by a turn that is refused
    await owners.move({"A": new.writer})
    await new.host.until(lambda: "A" in new.host.serving)
    for n in range(2, 22):
        assert await add(client) == n
        assert await read(reader) == n
    assert "A" in old.host.serving


@pytest.mark.parametrize("sleep_s", [0.02, 0.3])
async def test_an_active_that_slept_through_its_replacement_answers_nothing_old(
    world: World, sleep_s: float
) -> None:
    """G5: it gets the reads that were sent meanwhile, and those that come while it wakes up."""
    asleep = await Worker.start(world, "accounts-1", ["A"], module=READING_WORKER)
    owners = Owners(await world.link(), world.names)
    await owners.move({"A": asleep.writer})
    client, reader = await world.client(), await world.client()
    assert await add(client) == await read(reader) == 1
    standby = await world.instance("accounts-2", ["A"], reading())
    old: list[tuple[int, int]] = []
    newest = 1

    async def read_on(ends_s: float) -> None:
        while time.monotonic() < ends_s:
            least = newest
            if (got := await read(reader)) < least:
                old.append((got, least))

    for n in range(4):
        sleeper, awake = (asleep.writer, standby.writer)[:: 1 if n % 2 == 0 else -1]
        if n % 2 == 0:
            asleep.send(signal.SIGSTOP)
        ends_s = time.monotonic() + sleep_s + 0.3
        readers = [asyncio.create_task(read_on(ends_s)) for _ in range(4)]
        await owners.move({"A": awake})
        assert sleeper != awake
        newest = await add(client)
        await asyncio.sleep(sleep_s)
        asleep.send(signal.SIGCONT)
        while time.monotonic() < ends_s:
            newest = await add(client)
        await asyncio.gather(*readers)
    assert old == []
