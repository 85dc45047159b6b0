"""Journal and JournalReader: the only place where effects exist."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest
from aegis_sdk.application.ports import (
    AlreadyStored,
    FenceRefused,
    FollowSource,
    StoreError,
    StoreFull,
    StoreMissing,
    StoreTooLarge,
    StoreUnreachable,
)
from aegis_sdk.contract.checkpoint import Checkpoint
from aegis_sdk.contract.envelope import Outcome, OutcomeKind
from aegis_sdk.domain.journal import Entry, EntryKind, ResourceJournal
from aegis_sdk.infrastructure import journal as nats_journal

from tests.contract.worlds import (
    PAYLOAD_BYTES_MAX,
    Ports,
    World,
    executed,
    request,
    until,
)

RESOURCES = ["ACC 1", "-", "=2D", "Müller.株式*>", "x" * 200]

# --- commit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", [None, *RESOURCES])
async def test_an_outcome_is_read_back_as_it_was_stored(
    world: World, ports: Ports, resource: str | None
) -> None:
    asked = request(world.service, "c.1", resource)
    outcome = executed(
        b'{"text":"\xc3\xa9"}',
        change=b'{"set":{"a":1},"delete":[]}',
        request_seq=7,
        epoch=3,
        instance_id="i-1",
        fingerprint="f" * 16,
        traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
    )
    assert await ports.store.outcome(asked) is None
    await ports.store.commit(asked, outcome, fence_seq=None)
    assert await ports.store.outcome(asked) == outcome
    assert await ports.store.outcome(request(world.service, "c.2", resource)) is None


async def test_sequences_rise(world: World, ports: Ports) -> None:
    seqs = [
        await ports.store.commit(request(world.service, f"c.{n}"), executed(), fence_seq=None)
        for n in range(1, 6)
    ]
    assert seqs == sorted(set(seqs))


async def test_a_second_outcome_is_refused_and_changes_nothing(world: World, ports: Ports) -> None:
    """G2: the first one stored is the outcome, whoever comes later."""
    asked, other = request(world.service, "c.1"), await world.connect()
    await ports.store.commit(asked, executed(b"1"), fence_seq=None)
    cancelled = Outcome.error(OutcomeKind.CANCELLED, "cancelled")
    for store in (ports.store, other.store):
        with pytest.raises(AlreadyStored):
            await store.commit(asked, cancelled, fence_seq=None)
    assert await other.store.outcome(asked) == executed(b"1")


async def test_of_three_writers_racing_exactly_one_wins(world: World, ports: Ports) -> None:
    """G2: a handler, a second run of it, and a caller that cancels."""
    writers = [ports, await world.connect(), await world.connect()]
    seq = await world.fence("ACC 1", 1)

    async def write(writer: int, race: int) -> int:
        asked = request(world.service, f"c.{race}")
        fence_seq = seq if writer < 2 else None
        try:
            await writers[writer].store.commit(
                asked, executed(str(writer).encode()), fence_seq=fence_seq
            )
        except AlreadyStored:
            return -1
        return writer

    for race in range(30):
        results = await asyncio.gather(*(write(writer, race) for writer in range(3)))
        (winner,) = (result for result in results if result >= 0)
        stored = await ports.store.outcome(request(world.service, f"c.{race}"))
        assert stored is not None
        assert stored.body == str(winner).encode()


async def test_a_commit_under_the_newest_fence_is_stored(world: World, ports: Ports) -> None:
    seq = await world.fence("ACC 1", 1)
    stored = await ports.store.commit(request(world.service, "c.1"), executed(), fence_seq=seq)
    assert stored > seq
    again = await ports.store.commit(request(world.service, "c.2"), executed(), fence_seq=seq)
    assert again > stored


@pytest.mark.parametrize("resource", RESOURCES)
async def test_a_commit_under_an_older_fence_is_refused(
    world: World, ports: Ports, resource: str
) -> None:
    """G5: whatever its writer believes."""
    old = await world.fence(resource, 1)
    new = await world.fence(resource, 2, owner="i-2")
    asked = request(world.service, "c.1", resource)
    for wrong in (old, new + 1000):
        with pytest.raises(FenceRefused):
            await ports.store.commit(asked, executed(), fence_seq=wrong)
    assert await ports.store.outcome(asked) is None
    await ports.store.commit(asked, executed(), fence_seq=new)


async def test_a_fence_of_another_resource_is_no_matter(world: World, ports: Ports) -> None:
    seq = await world.fence("A", 1)
    await world.fence("B", 9, owner="i-2")
    await ports.store.commit(request(world.service, "c.1", "A"), executed(), fence_seq=seq)
    with pytest.raises(FenceRefused):
        await ports.store.commit(request(world.service, "c.2", "B"), executed(), fence_seq=seq)


async def test_a_zombie_cannot_tell_that_it_was_first(world: World, ports: Ports) -> None:
    """G5: its commit was stored, its answer lost, and a newer fence came: sent again, it is refused.

    Not `AlreadyStored`: the fence is checked before, so it stops instead of going on.
    """
    old = await world.fence("ACC 1", 1)
    asked = request(world.service, "c.1")
    await ports.store.commit(asked, executed(), fence_seq=old)
    await world.fence("ACC 1", 2, owner="i-2")
    with pytest.raises(FenceRefused):
        await ports.store.commit(asked, executed(), fence_seq=old)


async def test_an_unknown_answer_is_settled_by_asking_or_by_sending_again(
    world: World, ports: Ports
) -> None:
    """G4: from any process."""
    asked, other = request(world.service, "c.1"), await world.connect()
    await ports.store.commit(asked, executed(), fence_seq=None)
    await world.cut(ports)
    with pytest.raises(StoreUnreachable):
        await ports.store.commit(asked, executed(), fence_seq=None)
    with pytest.raises(StoreUnreachable):
        await ports.store.outcome(asked)
    assert await other.store.outcome(asked) == executed()
    with pytest.raises(AlreadyStored):
        await other.store.commit(asked, executed(), fence_seq=None)


async def test_an_outcome_is_found_anywhere_when_its_resource_is_not_known(
    world: World, ports: Ports
) -> None:
    await ports.store.commit(request(world.service, "c.1", "A"), executed(), fence_seq=None)
    unknown = request(world.service, "c.1", None)
    assert await ports.store.outcome(unknown) is None
    assert await ports.store.outcome(unknown, anywhere=True) == executed()
    assert await ports.store.outcome(request(world.service, "c.2"), anywhere=True) is None


async def test_an_outcome_over_the_bound_is_too_large_and_the_connection_lives(
    world: World, ports: Ports
) -> None:
    asked = request(world.service, "c.1")
    with pytest.raises(StoreTooLarge):
        await ports.store.commit(asked, executed(b"1" * (PAYLOAD_BYTES_MAX + 1)), fence_seq=None)
    assert await ports.store.commit(asked, executed(), fence_seq=None)


async def test_an_outcome_that_fits_without_its_headers_alone_is_too_large(
    world: World, ports: Ports
) -> None:
    """G8: a server closes the connection of whoever sends more, and the commit would be sent for ever."""
    asked = request(world.service, "c.1")
    large = executed(b"1" * (PAYLOAD_BYTES_MAX - 20), traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    with pytest.raises(StoreTooLarge):
        await ports.store.commit(asked, large, fence_seq=None)
    assert await ports.store.commit(asked, executed(), fence_seq=None)


async def test_a_full_journal_takes_nothing_and_says_so(world: World, ports: Ports) -> None:
    await ports.store.commit(request(world.service, "c.1"), executed(), fence_seq=None)
    await world.bound(journal=1)
    with pytest.raises(StoreFull):
        await ports.store.commit(request(world.service, "c.2"), executed(), fence_seq=None)
    await world.bound()
    await ports.store.commit(request(world.service, "c.2"), executed(), fence_seq=None)


async def test_a_service_without_streams_is_missing(ports: Ports) -> None:
    asked = request("nobody", "c.1")
    with pytest.raises(StoreMissing):
        await ports.store.commit(asked, executed(), fence_seq=None)
    with pytest.raises(StoreMissing):
        await ports.store.outcome(asked)
    with pytest.raises(StoreMissing):
        await ports.store.attempts(asked)
    with pytest.raises(StoreError):
        await ports.store.start_of("nobody", ["A"])


# --- attempts and dead letters ----------------------------------------------------------------------------


@pytest.mark.parametrize("resource", [None, "ACC 1"])
async def test_attempts_are_counted_by_request(
    world: World, ports: Ports, resource: str | None
) -> None:
    asked = request(world.service, "c.1", resource)
    seq = None if resource is None else await world.fence(resource, 1)
    assert await ports.store.attempts(asked) == 0
    for n in (1, 2):
        await ports.store.note_attempt(asked, n, fence_seq=seq)
        assert await ports.store.attempts(asked) == n
    assert await ports.store.attempts(request(world.service, "c.2", resource)) == 0
    await ports.store.commit(asked, executed(), fence_seq=seq)


async def test_an_attempt_under_an_older_fence_is_refused(world: World, ports: Ports) -> None:
    """G5: an instance that was replaced can't note that it begins."""
    old = await world.fence("ACC 1", 1)
    await world.fence("ACC 1", 2, owner="i-2")
    with pytest.raises(FenceRefused):
        await ports.store.note_attempt(request(world.service, "c.1"), 1, fence_seq=old)
    assert await ports.store.attempts(request(world.service, "c.1")) == 0


@pytest.mark.parametrize("resource", [None, "Müller 1"])
async def test_a_dead_letter_sent_twice_is_kept_once(
    world: World, ports: Ports, resource: str | None
) -> None:
    asked = request(world.service, "c~1.2", resource, tracestate="a=b", chain=("x/1",))
    failed = Outcome.error(OutcomeKind.FAILED, "gave_up", "several\r\nlines, größer")
    await ports.store.dead_letter(asked, failed)
    await ports.store.dead_letter(asked, failed)
    assert await world.dead_letters() == ["c~1.2"]


# --- checkpoints ------------------------------------------------------------------------------------------


def _checkpoint(size: int, position: int = 5) -> Checkpoint:
    return Checkpoint(position, 3, b'{"a":"' + b"x" * (size - 8) + b'"}')


@pytest.mark.parametrize(
    "size", [100, PAYLOAD_BYTES_MAX // 2 + 1, PAYLOAD_BYTES_MAX + 1, 3 * PAYLOAD_BYTES_MAX]
)
@pytest.mark.parametrize("resource", ["ACC 1", "-"])
async def test_a_checkpoint_of_any_size_is_read_back(
    world: World, ports: Ports, size: int, resource: str
) -> None:
    """G6: in one entry, or in parts of half a message."""
    seq = await world.fence(resource, 1)
    checkpoint = _checkpoint(size)
    last, as_stored = await ports.store.store_checkpoint(
        world.service, resource, checkpoint, fence_seq=seq
    )
    starts = await ports.store.start_of(world.service, [resource, "B"])
    assert list(starts) == [resource]
    assert seq < starts[resource] <= last
    journal = ResourceJournal(resource)

    def fold(entry: Entry) -> None:
        assert not journal.apply(entry)

    source = await ports.store.follow(
        world.service,
        whole=[resource],
        fences=[],
        from_seq=starts[resource],
        on_entry=fold,
    )
    await until(lambda: journal.position == last)
    await source.stop()
    assert journal.values == {"a": "x" * (size - 8)}
    assert (journal.last_request_seq, journal.covered_request_seq) == (3, 3)
    assert journal.parts_of == (5 if as_stored.parts else 0)


async def test_parts_of_a_replaced_checkpoint_can_be_forgotten(world: World, ports: Ports) -> None:
    seq = await world.fence("A", 1)
    old, new = _checkpoint(PAYLOAD_BYTES_MAX), replace(_checkpoint(PAYLOAD_BYTES_MAX), position=9)
    for checkpoint in (old, new):
        last, _ = await ports.store.store_checkpoint(world.service, "A", checkpoint, fence_seq=seq)
    await ports.store.forget_parts(world.service, "A", old.position)
    read: list[Entry] = []
    source = await ports.store.follow(
        world.service, whole=["A"], fences=[], from_seq=1, on_entry=read.append
    )
    await until(lambda: bool(read) and read[-1].seq == last)
    await source.stop()
    parts = {entry.name.partition(".")[0] for entry in read if entry.kind is EntryKind.PART}
    assert parts == {"9"}


async def test_the_newest_checkpoint_counts(world: World, ports: Ports) -> None:
    seq = await world.fence("A", 1)
    for position in (5, 9):
        last, _ = await ports.store.store_checkpoint(
            world.service, "A", _checkpoint(100, position), fence_seq=seq
        )
        assert await ports.store.start_of(world.service, ["A"]) == {"A": last}


@pytest.mark.parametrize("size", [100, 2 * PAYLOAD_BYTES_MAX])
async def test_a_checkpoint_under_an_older_fence_is_refused(
    world: World, ports: Ports, size: int
) -> None:
    """G5: an instance that was replaced can't say what the state is."""
    old = await world.fence("A", 1)
    await world.fence("A", 2, owner="i-2")
    with pytest.raises(FenceRefused):
        await ports.store.store_checkpoint(world.service, "A", _checkpoint(size), fence_seq=old)
    assert not await ports.store.start_of(world.service, ["A"])


async def test_starts_of_many_resources_are_read(
    world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_journal, "CHECKPOINTS_A_READ", 3)
    names = [f"R {n}" for n in range(8)]
    for name in names[::2]:
        seq = await world.fence(name, 1)
        await ports.store.store_checkpoint(world.service, name, _checkpoint(100), fence_seq=seq)
    assert list(await ports.store.start_of(world.service, names)) == names[::2]
    assert await ports.store.start_of(world.service, []) == {}


# --- following --------------------------------------------------------------------------------------------


async def _commit(world: World, ports: Ports, n: int, resource: str | None = "A") -> int:
    asked = request(world.service, f"c.{n}", resource)
    return await ports.store.commit(asked, executed(request_seq=n), fence_seq=None)


async def test_entries_are_read_in_order_those_stored_and_those_to_come(
    world: World, ports: Ports
) -> None:
    """G6: a standby folds what the active stored, in its order, without a gap between past and present."""
    read: list[Entry] = []
    seqs = [await _commit(world, ports, n) for n in range(1, 11)]
    source = await ports.store.follow(
        world.service, whole=["A"], fences=[], from_seq=1, on_entry=read.append
    )
    await until(lambda: len(read) == 10)
    seqs += [await _commit(world, ports, n) for n in range(11, 21)]
    await until(lambda: len(read) == 20)
    assert [entry.seq for entry in read] == seqs
    assert [entry.name for entry in read] == [f"c.{n}" for n in range(1, 21)]
    assert {(entry.kind, entry.resource) for entry in read} == {(EntryKind.OUTCOME, "A")}
    assert Outcome.parse(read[4].headers, read[4].payload) == executed(request_seq=5)
    assert source.lag_entries == 0
    await source.stop()
    after = await _commit(world, ports, 21)
    await _read_up_to(world, ports, after)
    assert len(read) == 20


async def _read_up_to(world: World, ports: Ports, seq: int) -> None:
    """A reader of everything, over the same connection: what came for another one before it is there, too."""
    source = await ports.store.follow(
        world.service, whole=["A", "B", "C"], fences=[], from_seq=1, on_entry=lambda _: None
    )
    await until(lambda: source.read_to >= seq)
    await source.stop()


async def test_following_starts_at_the_position_asked_for(world: World, ports: Ports) -> None:
    seqs = [await _commit(world, ports, n) for n in range(1, 11)]
    read: list[int] = []
    source = await ports.store.follow(
        world.service,
        whole=["A"],
        fences=[],
        from_seq=seqs[6],
        on_entry=lambda entry: read.append(entry.seq),
    )
    await until(lambda: len(read) == 4)
    assert read == seqs[6:]
    await source.stop()


@pytest.mark.parametrize("filters_max", [1, 1000])
async def test_a_live_reader_begins_with_what_is_stored_next(
    world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch, filters_max: int
) -> None:
    """G6: nothing that is stored once it exists is missing, though it reads nothing before."""
    monkeypatch.setattr(nats_journal, "FILTERS_MAX", filters_max)
    for n in range(1, 6):
        await _commit(world, ports, n)
    read: list[int] = []
    source = await ports.store.follow(
        world.service,
        whole=["A", "B"],
        fences=[],
        from_seq=None,
        on_entry=lambda entry: read.append(entry.seq),
    )
    assert source.lag_entries == 0
    seqs = [await _commit(world, ports, n) for n in range(6, 16)]
    await source.reached(seqs[-1])
    assert read == seqs
    await source.stop()


async def test_a_live_reader_misses_nothing_though_its_connection_is_lost_before_its_first_entry(
    world: World, ports: Ports
) -> None:
    """G6: made again, it must begin where it was made first."""
    writer = await world.connect()
    await _commit(world, writer, 1)
    read: list[int] = []
    source = await ports.store.follow(
        world.service,
        whole=["A"],
        fences=[],
        from_seq=None,
        on_entry=lambda entry: read.append(entry.seq),
    )
    blinking = asyncio.create_task(world.blink(ports))
    seqs = [await _commit(world, writer, n) for n in range(2, 40)]
    await blinking
    async with asyncio.timeout(10.0):
        await source.reached(seqs[-1])
    assert read == seqs
    await source.stop()


async def test_whoever_has_read_a_marker_has_read_what_was_stored_before_it(
    world: World, ports: Ports
) -> None:
    """G6: also where nothing more of its resources is stored, and whoever wrote it."""
    writer = await world.connect()
    fence_seq = await world.fence("A", 1)
    await world.fence("B", 1)
    first = await _commit(world, writer, 1)
    read: dict[str, list[int]] = {"all of A": [], "fences": []}

    async def follow(name: str, whole: list[str], fences: list[str]) -> FollowSource:
        return await ports.store.follow(
            world.service,
            whole=whole,
            fences=fences,
            from_seq=1,
            on_entry=lambda entry: read[name].append(entry.seq),
        )

    sources = [await follow("all of A", ["A"], []), await follow("fences", [], ["A", "B"])]
    waiting = [asyncio.create_task(source.reached(first + 2)) for source in sources]
    other = await _commit(world, writer, 2, "C")
    await _read_up_to(world, ports, other)
    assert not any(task.done() for task in waiting)
    marker = await writer.store.mark(world.service)
    later = await ports.store.mark(world.service)
    assert first + 2 <= marker < later
    async with asyncio.timeout(5.0):
        await asyncio.gather(*waiting, *(source.reached(later) for source in sources))
    assert [source.read_to for source in sources] == [later, later]
    assert read == {"all of A": [fence_seq, first], "fences": [fence_seq, fence_seq + 1]}
    for source in sources:
        await source.stop()


async def test_a_follower_gets_all_of_some_resources_and_the_fences_of_others(
    world: World, ports: Ports
) -> None:
    read: list[tuple[str, EntryKind, str]] = []
    source = await ports.store.follow(
        world.service,
        whole=["A", "Müller 1"],
        fences=["B", "-"],
        from_seq=1,
        on_entry=lambda entry: read.append((entry.resource, entry.kind, entry.name)),
    )
    seqs = {resource: await world.fence(resource, 1) for resource in ("A", "B", "C", "-")}
    await _commit(world, ports, 1, "A")
    await _commit(world, ports, 2, "B")
    await _commit(world, ports, 3, "C")
    await _commit(world, ports, 4, None)
    await _commit(world, ports, 5, "-")
    await ports.store.note_attempt(request(world.service, "c.6", "A"), 1, fence_seq=seqs["A"])
    await _commit(world, ports, 7, "Müller 1")
    await until(lambda: ("Müller 1", EntryKind.OUTCOME, "c.7") in read)
    assert read == [
        ("A", EntryKind.FENCE, ""),
        ("B", EntryKind.FENCE, ""),
        ("-", EntryKind.FENCE, ""),
        ("A", EntryKind.OUTCOME, "c.1"),
        ("A", EntryKind.ATTEMPT, "c.6"),
        ("Müller 1", EntryKind.OUTCOME, "c.7"),
    ]
    await source.stop()


@pytest.mark.parametrize("filters_max", [1, 1000])
async def test_the_group_is_never_taken_for_a_resource_called_dash(
    world: World, ports: Ports, monkeypatch: pytest.MonkeyPatch, filters_max: int
) -> None:
    """G1: its outcomes would make requests of "-" look as if they were served."""
    monkeypatch.setattr(nats_journal, "FILTERS_MAX", filters_max)
    journal = ResourceJournal("-")
    seen: list[Entry] = []

    def read(entry: Entry) -> None:
        seen.append(entry)
        if entry.resource == "-":
            journal.apply(entry)

    source = await ports.store.follow(
        world.service, whole=["-", "A"], fences=[], from_seq=1, on_entry=read
    )
    await _commit(world, ports, 9, None)
    await _commit(world, ports, 2, "-")
    await _commit(world, ports, 3, "A")
    await until(lambda: any(entry.resource == "A" for entry in seen))
    assert journal.last_request_seq == 2
    await source.stop()


async def test_only_the_newest_fence_is_kept(world: World, ports: Ports) -> None:
    """An old one would make a late follower active for a moment."""
    for epoch in (1, 2, 3):
        newest = await world.fence("A", epoch)
    await world.fence("B", 1)
    read: list[Entry] = []
    source = await ports.store.follow(
        world.service, whole=[], fences=["A", "B"], from_seq=1, on_entry=read.append
    )
    await until(lambda: len(read) == 2)
    assert read[0].seq == newest
    assert b'"epoch":3' in read[0].payload
    await source.stop()


def _has_read(read: list[int], count: int) -> bool:
    return len(read) >= count


async def test_a_follower_misses_nothing_while_its_connection_is_lost(
    world: World, ports: Ports
) -> None:
    """G6: nor does it read anything twice or out of order."""
    writer = await world.connect()
    read: list[int] = []
    source = await ports.store.follow(
        world.service,
        whole=["A"],
        fences=[],
        from_seq=1,
        on_entry=lambda entry: read.append(entry.seq),
    )
    seqs: list[int] = []

    async def write() -> None:
        for n in range(1, 301):
            seqs.append(await _commit(world, writer, n))

    writing = asyncio.create_task(write())
    for size in (50, 150):
        await until(partial(_has_read, read, size))
        await world.blink(ports)
    await writing
    await until(lambda: len(read) >= 300)
    assert read == seqs
    await source.stop()


async def test_the_outcomes_of_a_handlers_own_requests_are_found_by_its_token(
    world: World, ports: Ports
) -> None:
    """G3: what an earlier run asked, on whatever resource and for the group, and nobody else's."""
    for resource, request_id in (
        ("ACC 1", "c~1.book-1"),
        (None, "c~1.book-2"),
        ("ACC 1", "c~1.book-1r1"),
        ("ACC 1", "c~12.book-1"),
        ("ACC 1", "c~1~book-1.book-1"),
    ):
        asked = request(world.service, request_id, resource)
        await ports.store.commit(asked, executed(), fence_seq=None)
    found = await ports.store.children(world.service, "c~1")
    assert sorted(found) == ["c~1.book-1", "c~1.book-1r1", "c~1.book-2"]
    assert await ports.store.children(world.service, "c~2") == []
