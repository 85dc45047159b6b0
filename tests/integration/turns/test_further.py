"""Resources that a running instance is given and does not hold: they are read beside what it reads (further.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from aegis_sdk.application.ports import StoreForbidden, StoreUnreachable
from aegis_sdk.application.turns.ports import FoundCheckpoint
from aegis_sdk.infrastructure.turns.assembly import NatsReaders, TurnInstance
from aegis_sdk.infrastructure.turns.log import store_gate
from aegis_sdk.infrastructure.turns.reader import LogReader

from tests.integration.turns.support import Owners, Told, World, give


class Held:
    """An instance's readers; those of later resources wait for `go_on`, and the first `fails` of them fail."""

    def __init__(self, instance: TurnInstance, *, at: str = "", fails: int = 0) -> None:
        readers = instance._readers
        assert isinstance(readers, NatsReaders)
        self.readers = readers
        self.at = at
        self.fails = fails
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        instance._readers = self  # type: ignore[assignment]

    async def checkpoints(self, resources: Collection[str]) -> Mapping[str, FoundCheckpoint]:
        if self.at == "checkpoints" and self.fails:
            self.fails -= 1
            raise StoreUnreachable("not now")
        return await self.readers.checkpoints(resources)

    def log(self, on_entry: Any, on_unreadable: Any, *, is_main: bool) -> LogReader:
        reader = self.readers.log(on_entry, on_unreadable, is_main=is_main)
        start = reader.start

        async def held(*, after: int = 0) -> None:
            self.begun.set()
            await self.go_on.wait()
            if self.at == "start" and self.fails:
                self.fails -= 1
                raise StoreForbidden("no consumer for you")
            await start(after=after)

        reader.start = held  # type: ignore[method-assign]
        return reader


async def has_read(instance: TurnInstance, seq: int) -> None:
    reader = instance._reader
    assert isinstance(reader, LogReader)
    await reader.reached(seq)


@pytest.mark.parametrize("when", ["before it is given", "while it is read"])
async def test_an_entry_that_cannot_be_read_keeps_a_later_resource_from_its_instance(
    small_world: World, when: str
) -> None:
    """G6: no state without it: the instance does not serve the resource, and says so as of any other."""
    world = small_world
    first = await world.instance("accounts-1", ["B"])
    second = await world.instance("accounts-2", ["A"])
    await give(world, first, ["B"])
    held = Held(second)
    told: list[str] = []
    second.on_unreadable = told.append
    link = await world.link()

    async def store_unreadable() -> None:
        subject = world.names.all.replace(">", f"at.B.out.x.{len(told)}")
        stored = await link.store(subject, b"9 from the future", {"aegis-turn": "x.0"}, timeout_s=2)
        async with asyncio.timeout(10):
            await has_read(second, stored.seq)

    if when == "before it is given":
        await store_unreadable()
    await Owners(link, world.names).move({"B": second.writer})
    async with asyncio.timeout(10):
        await held.begun.wait()
        if when == "while it is read":
            await store_unreadable()
            await has_read(second, await store_gate(link, world.names, first.writer))
        held.go_on.set()
        while "B" not in second.host.writer.held:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        await has_read(second, await store_gate(link, world.names, first.writer))
    assert told == ["B"]
    assert second.unreadable == 1
    assert second.active_resources == []


@pytest.mark.parametrize("at", ["checkpoints", "start"])
async def test_a_later_resource_is_read_again_until_it_is_read(small_world: World, at: str) -> None:
    """Whatever fails on the way, it is served in the end, and nothing of the tries is left."""
    world = small_world
    first = await world.instance("accounts-1", ["B"])
    second = await world.instance("accounts-2", ["A"])
    await give(world, first, ["B"])
    held, client, told = Held(second, at=at, fails=3), await world.client(), Told()
    held.go_on.set()
    await told.call(client, "B")
    await give(world, second, ["B"])
    outcome = await told.call(client, "B")
    assert outcome is not None
    assert b'"count":2' in outcome.body
    assert held.fails == 0
    assert second.host.taps == []


async def test_a_resource_is_forgotten_when_whoever_serves_it_knows_that_it_is_lost(
    small_world: World,
) -> None:
    """G8: between the two, whoever drains asks what is under way of it."""
    instance = await small_world.instance("accounts-1", ["A"])
    host = instance.host
    await host.until(lambda: host.may_write)
    host._roles.leaving.add("A")
    host._roles.serving.add("A")
    forgetting = asyncio.create_task(host.forget({"A"}, after=0))
    draining = asyncio.create_task(host.pause({"A"}, lease_s=5.0))
    async with asyncio.timeout(10):
        await draining
        assert not forgetting.done()
        host._roles.demoted(["A"])
        host._changed.set()
        await forgetting
    assert "A" not in host.writer.held
