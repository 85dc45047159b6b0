"""How an instance is given its journal: readers that are slow, and see the journal late, each in its own way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import pytest
from aegis_sdk.application import following
from aegis_sdk.application.following import Following
from aegis_sdk.application.ports import StoreUnreachable
from aegis_sdk.domain.journal import Entry, EntryKind, Follow

SERVICE = "svc"


class Source:
    """Reads one replica of the journal, which may have less of it than another."""

    def __init__(
        self,
        journal: list[Entry],
        next_seq: int,
        wants: Callable[[Entry], bool],
        give: Callable[[Entry], None],
    ) -> None:
        self.journal = journal
        self.next_seq = next_seq
        self.read_to = 0
        self.stopped = False
        self._wants = wants
        self._give = give

    @property
    def lag_entries(self) -> int:
        return len(self.journal) + 1 - self.next_seq

    def step(self) -> None:
        if self.stopped or not self.lag_entries:
            return
        entry = self.journal[self.next_seq - 1]
        self.next_seq += 1
        if entry.kind is EntryKind.MARKER:
            self.read_to = entry.seq
        elif self._wants(entry):
            self._give(entry)
            self.read_to = entry.seq

    async def reached(self, seq: int) -> None:
        while self.read_to < seq:  # noqa: ASYNC110 - it is stepped, and by many
            await asyncio.sleep(0)

    async def stop(self) -> None:
        self.stopped = True


class Reader:
    """JournalReader: `sources` read only when they are stepped."""

    def __init__(self) -> None:
        self.journal: list[Entry] = []
        self.sources: list[Source] = []
        self.begun_at: list[tuple[list[str], int | None]] = []
        self.marks_lost = 0

    def store(self, resource: str, kind: EntryKind = EntryKind.OUTCOME) -> Entry:
        entry = Entry(len(self.journal) + 1, resource, kind, "", {}, b"")
        self.journal.append(entry)
        return entry

    async def start_of(self, service: str, resources: Sequence[str]) -> dict[str, int]:
        return {}

    async def mark(self, service: str) -> int:
        await asyncio.sleep(0)
        marker = self.store("", EntryKind.MARKER)
        if self.marks_lost:
            self.marks_lost -= 1
            raise StoreUnreachable("stored, but nobody learnt of it")
        return marker.seq

    async def follow(
        self,
        service: str,
        *,
        whole: Sequence[str],
        fences: Sequence[str],
        from_seq: int | None,
        on_entry: Callable[[Entry], None],
    ) -> Source:
        await asyncio.sleep(0)
        self.begun_at.append((sorted(whole), from_seq))

        def wants(entry: Entry) -> bool:
            return entry.resource in whole or (
                entry.kind is EntryKind.FENCE and entry.resource in fences
            )

        begin = len(self.journal) + 1 if from_seq is None else from_seq
        self.sources.append(Source(self.journal, begin, wants, on_entry))
        await asyncio.sleep(0)
        return self.sources[-1]


class Fold:
    """An actor, as far as following goes: it takes what is behind its position, in order."""

    def __init__(self, resource: str, complete_to: int = 0) -> None:
        self.resource = resource
        self.follow = Follow.BEHIND
        self.complete_to = complete_to
        self.is_active = False
        self.folded: list[int] = []

    @property
    def position(self) -> int:
        return self.folded[-1] if self.folded else 0

    def read(self, entry: Entry) -> None:
        if self.follow is Follow.BEHIND:
            return
        if self.follow is Follow.FENCES:
            assert entry.kind is EntryKind.FENCE
            if entry.seq > self.position:
                self.follow, self.is_active = Follow.BEHIND, False
                self.complete_to = self.position
        elif entry.seq > self.position:
            self.folded.append(entry.seq)
            if entry.kind is EntryKind.FENCE:
                self.is_active = False

    def write(self, reader: Reader) -> None:
        """As the active, which knows of its own entries when they are stored."""
        self.folded.append(reader.store(self.resource).seq)


async def _again(subject: Following) -> None:
    await subject.begin()
    await subject.read_past()


async def _all_reading(reader: Reader, work: asyncio.Task[None]) -> None:
    while not work.done():
        for source in reader.sources:
            source.step()
        await asyncio.sleep(0)
    await work


@pytest.mark.parametrize("seed", range(24))
async def test_every_entry_is_given_once_and_in_order_however_readers_lag(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G6: over switches, promotions, lost markers and actors that fall behind."""
    rng = Random(seed)
    monkeypatch.setattr(following, "SHORT_JOURNAL_ENTRIES", rng.choice([0, 40, 10_000]))
    reader = Reader()
    actors = {name: Fold(name) for name in ("A", "B", "C")}
    for _ in range(rng.randrange(60)):
        reader.store(rng.choice("ABCX"))
    subject = Following(SERVICE, reader, actors)

    async def nights() -> None:
        await _again(subject)
        for _ in range(12):
            for actor in actors.values():
                # By its own fence: it is the active when it has read all in front of it.
                complete = actor.follow is Follow.WHOLE and not _unread(reader, actor)
                actor.is_active = actor.is_active or (complete and rng.random() < 0.5)
            reader.marks_lost = rng.randrange(2)
            await _again(subject)
            for _ in range(rng.randrange(20)):
                await asyncio.sleep(0)

    async def world() -> None:
        while True:
            name = rng.choice("ABCX")
            actor = actors.get(name)
            if actor is None or not actor.is_active:
                reader.store(name)
            elif rng.random() < 0.15:
                reader.store(name, EntryKind.FENCE)
                actor.is_active = False  # from here on the server refuses its commits
            elif not _fenced(reader, actor):
                actor.write(reader)
            reading = [source for source in reader.sources if not source.stopped]
            for source in rng.sample(reading, k=min(2, len(reading))):
                for _ in range(rng.randrange(8)):
                    source.step()
            await asyncio.sleep(0)

    busy = asyncio.create_task(world())
    async with asyncio.timeout(30.0):
        await nights()
    busy.cancel()
    for actor in actors.values():
        actor.is_active = False
    await _all_reading(reader, asyncio.create_task(_again(subject)))
    await _all_reading(reader, asyncio.create_task(_again(subject)))
    for name, actor in actors.items():
        assert actor.folded == [e.seq for e in reader.journal if e.resource == name]
    assert sum(not source.stopped for source in reader.sources) == 1
    await subject.stop()
    assert all(source.stopped for source in reader.sources)


def _unread(reader: Reader, actor: Fold) -> bool:
    return any(e.resource == actor.resource and e.seq > actor.position for e in reader.journal)


def _fenced(reader: Reader, actor: Fold) -> bool:
    return any(
        e.kind is EntryKind.FENCE and e.resource == actor.resource and e.seq > actor.position
        for e in reader.journal
    )


async def test_what_comes_meanwhile_waits_for_the_past() -> None:
    """G6: else a fence could make it active without what was committed before."""
    reader, actor = Reader(), Fold("A")
    reader.store("A")
    subject = Following(SERVICE, reader, {"A": actor})
    await subject.begin()
    live = reader.sources[0]
    reader.store("A", EntryKind.FENCE)
    for _ in range(5):
        live.step()
    assert actor.folded == []
    assert subject.lag_entries > 0
    await _all_reading(reader, asyncio.create_task(subject.read_past()))
    assert actor.folded == [1, 3]
    assert subject.lag_entries == 0


@pytest.mark.parametrize(
    ("journal", "resources", "readers"), [(250, 5, 1), (6_000, 5, 5), (6_000, 101, 1)]
)
async def test_in_a_long_journal_each_resource_is_read_by_itself_from_its_own_checkpoint(
    journal: int, resources: int, readers: int
) -> None:
    """G8: the server counts what a reader has before it, while commits wait; of few entries at a time."""
    reader = Reader()
    for n in range(journal):
        reader.store(f"r{n % resources}")
    seen = 200 if readers > 1 else journal - 200
    actors = {f"r{n}": Fold(f"r{n}", seen + n) for n in range(resources)}
    subject = Following(SERVICE, reader, actors)
    await subject.begin()
    await _all_reading(reader, asyncio.create_task(subject.read_past()))
    live, *past = reader.begun_at
    assert live == (sorted(actors), None)
    assert len(past) == readers
    if readers > 1:
        assert [start for _, start in past] == [seen + 1 + n for n in range(resources)]
    for n, actor in enumerate(actors.values()):
        assert actor.folded == [
            e.seq for e in reader.journal[seen + n :] if e.resource == actor.resource
        ]


class Owner(Fold):
    """Active once it has read the fence: it is this instance's own."""

    def read(self, entry: Entry) -> None:
        super().read(entry)
        self.is_active = self.is_active or entry.kind is EntryKind.FENCE


@pytest.mark.parametrize(("own", "rests"), [("", 4), ("r0", 0), ("r3", 3)])
async def test_it_rests_between_two_resources_until_it_is_active_for_one(
    own: str, rests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G8: commits go through in between; whoever is the active serves as soon as it can."""
    reader = Reader()
    for n in range(6_000):
        reader.store(f"r{n % 5}")
    actors = {f"r{n}": Owner(f"r{n}", 900) for n in range(5)}
    if own:
        reader.store(own, EntryKind.FENCE)
    subject = Following(SERVICE, reader, actors)
    await subject.begin()
    rested: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds > 0:
            rested.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    monkeypatch.setattr(following, "REST_S_MAX", 1e-6)
    await _all_reading(reader, asyncio.create_task(subject.read_past()))
    assert rested == [1e-6] * rests
    assert subject.lag_entries == 0
