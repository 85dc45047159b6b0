"""Outcomes of one resource that are stored together: in memory, on one node, and on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_cluster import NatsCluster
from aegis_sdk.application.ports import (
    AlreadyStored,
    FenceRefused,
    StoreError,
    StoreFull,
    StoreTooLarge,
    StoreUnreachable,
)
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.domain.journal import Entry, EntryKind
from aegis_sdk.nats.codes import BATCH_COMMIT, BATCH_ID, BATCH_SEQ
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server

from tests.contract.worlds import (
    PAYLOAD_BYTES_MAX,
    MemoryWorld,
    NatsWorld,
    Ports,
    World,
    executed,
    request,
    until,
)

CANCELLED = Outcome.error(OutcomeKind.CANCELLED, "cancelled")


@pytest.fixture(scope="module")
def cluster() -> Iterator[NatsCluster]:
    with NatsCluster() as running:
        yield running


@pytest.fixture(params=["memory", "server", pytest.param("cluster", marks=pytest.mark.cluster)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        made: MemoryWorld | NatsWorld = MemoryWorld()
    else:
        made = NatsWorld(request.getfixturevalue(request.param))
        await made.open()
    yield made
    await made.close()


def some(world: World, *names: str, body: bytes = b"1") -> list[tuple[Request, Outcome]]:
    return [
        (request(world.service, name), executed(body, request_seq=n, epoch=1))
        for n, name in enumerate(names, 1)
    ]


async def found(ports: Ports, world: World, *names: str) -> list[Outcome | None]:
    return [await ports.store.outcome(request(world.service, name)) for name in names]


async def test_they_are_stored_one_behind_the_other_and_each_is_told(
    world: World, ports: Ports
) -> None:
    """G3: each is an outcome like any other: read, followed, and handed to its caller."""
    seq = await world.fence("ACC 1", 1)
    names = [f"{ports.caller}.{n}" for n in range(1, 6)]
    entries: list[Entry] = []
    told: list[Outcome] = []
    source = await ports.store.follow(
        world.service, whole=["ACC 1"], fences=[], from_seq=1, on_entry=entries.append
    )
    for name in names:
        await ports.replies.expect(name, told.append)
    commits = some(world, *names)
    last_seq = await ports.store.commit_together(commits, fence_seq=seq)
    outcomes = [outcome for _, outcome in commits]
    assert await found(ports, world, *names) == outcomes
    await until(lambda: len(told) == 5 and len(entries) == 6)
    assert told == outcomes
    read = [entry for entry in entries if entry.kind is EntryKind.OUTCOME]
    assert [entry.seq for entry in read] == list(range(last_seq - 4, last_seq + 1))
    assert [entry.name for entry in read] == names
    assert [Outcome.parse(entry.headers, entry.payload) for entry in read] == outcomes
    await source.stop()


@pytest.mark.parametrize("taken", ["c.1", "c.2", "c.3"])
async def test_one_that_has_an_outcome_keeps_all_out(
    world: World, ports: Ports, taken: str
) -> None:
    """G2: the same again is refused too, which is how one that came late does no harm."""
    seq = await world.fence("ACC 1", 1)
    await ports.store.commit(request(world.service, taken), CANCELLED, fence_seq=None)
    names = ["c.1", "c.2", "c.3"]
    for _ in range(2):
        with pytest.raises(AlreadyStored):
            await ports.store.commit_together(some(world, *names), fence_seq=seq)
    expected = [CANCELLED if name == taken else None for name in names]
    assert await found(ports, world, *names) == expected
    await ports.store.commit_together(some(world, "c.4", "c.5"), fence_seq=seq)
    with pytest.raises(AlreadyStored):
        await ports.store.commit_together(some(world, "c.4", "c.5"), fence_seq=seq)


async def test_one_twice_keeps_all_out(world: World, ports: Ports) -> None:
    """G2: a batch with two outcomes of one request stores none of its outcomes."""
    seq = await world.fence("ACC 1", 1)
    with pytest.raises(AlreadyStored):
        await ports.store.commit_together(some(world, "c.1", "c.2", "c.1"), fence_seq=seq)
    assert await found(ports, world, "c.1", "c.2") == [None, None]


async def test_a_newer_fence_keeps_all_out(world: World, ports: Ports) -> None:
    """G5: also what was stored under the older one, sent again: its writer must stop."""
    old = await world.fence("ACC 1", 1)
    await ports.store.commit_together(some(world, "c.1", "c.2"), fence_seq=old)
    new = await world.fence("ACC 1", 2, owner="i-2")
    for names in (["c.3", "c.4"], ["c.1", "c.2"]):
        with pytest.raises(FenceRefused):
            await ports.store.commit_together(some(world, *names), fence_seq=old)
    assert await found(ports, world, "c.3", "c.4") == [None, None]
    await ports.store.commit_together(some(world, "c.3", "c.4"), fence_seq=new)


async def test_one_too_large_keeps_all_out_and_the_connection_lives(
    world: World, ports: Ports
) -> None:
    seq = await world.fence("ACC 1", 1)
    commits = [*some(world, "c.1"), *some(world, "c.2", body=b"x" * (1 << 20))]
    assert len(commits[1][1].body) > PAYLOAD_BYTES_MAX
    with pytest.raises(StoreTooLarge):
        await ports.store.commit_together(commits, fence_seq=seq)
    assert await found(ports, world, "c.1", "c.2") == [None, None]
    await ports.store.commit_together(some(world, "c.1", "c.3"), fence_seq=seq)


async def test_a_journal_with_room_for_some_takes_none(world: World, ports: Ports) -> None:
    """G1: and it takes them when there is room again."""
    seq = await world.fence("ACC 1", 1)
    await world.bound(journal=3)
    with pytest.raises(StoreFull):
        await ports.store.commit_together(some(world, "c.1", "c.2", "c.3"), fence_seq=seq)
    assert await found(ports, world, "c.1", "c.2", "c.3") == [None, None, None]
    await world.bound()
    await ports.store.commit_together(some(world, "c.1", "c.2", "c.3"), fence_seq=seq)


async def test_without_nats_nothing_is_known(world: World, ports: Ports) -> None:
    seq = await world.fence("ACC 1", 1)
    await world.cut(ports)
    with pytest.raises(StoreUnreachable):
        await ports.store.commit_together(some(world, "c.1", "c.2"), fence_seq=seq)


async def test_cancels_race_with_all_of_it_or_none(world: World, ports: Ports) -> None:
    """G2, G4: a caller's `cancelled` and a batch with its request: one of the two is stored, whole."""
    seq = await world.fence("ACC 1", 1)
    caller = await world.connect()
    for race in range(40):
        names = [f"r{race}.{n}" for n in range(4)]

        async def cancel(names: list[str] = names) -> bool:
            try:
                asked = request(world.service, names[2])
                await caller.store.commit(asked, CANCELLED, fence_seq=None)
            except AlreadyStored:
                return False
            return True

        async def store(names: list[str] = names) -> bool:
            try:
                await ports.store.commit_together(some(world, *names), fence_seq=seq)
            except AlreadyStored:
                return False
            return True

        racers = [cancel(), store()] if race % 2 else [store(), cancel()]
        done = await asyncio.gather(*racers)
        cancelled, stored = done if race % 2 else reversed(done)
        assert cancelled is not stored
        outcomes = [outcome for _, outcome in some(world, *names)]
        expected = [None, None, CANCELLED, None] if cancelled else outcomes
        assert await found(ports, world, *names) == expected


async def test_of_a_batch_whose_writer_dies_in_it_nothing_is_stored() -> None:
    """G3: nor does it keep anybody from the subjects that it had named."""
    with EmbeddedNats() as server:
        link = await Link.open(Server(server.url), name="dies")
        other = await Link.open(Server(server.url), name="lives")
        config = {"name": "S", "subjects": ["s.>"], "allow_atomic": True}
        await link.api("STREAM.CREATE.S", config)
        for n in (1, 2):
            link.post(f"s.{n}", b"dead", {BATCH_ID: "b", BATCH_SEQ: str(n)})
        await link.client.flush()
        await link.close()
        stored = await other.store("s.1", b"alive", {}, timeout_s=2.0)
        assert stored.seq == 1
        end = {BATCH_ID: "b", BATCH_SEQ: "4", BATCH_COMMIT: "1"}
        with pytest.raises(StoreError):  # one of its middle was lost
            await other.store("s.4", b"dead", end, timeout_s=2.0)
        info = await other.api("STREAM.INFO.S", {})
        assert info["state"]["last_seq"] == 1
        await other.close()
