"""Gives each actor its resource's journal, in order and without a gap, and holds up no commit by it.

nats-server counts all that a filtered reader has before it, and commits wait meanwhile: the longer the
journal, the longer. A reader of what is stored from now on costs it nothing. So a *live* reader begins
now, and what it brings is held back until the actor has been given the past: by the live reader before
it, or by a reader of its own resource from its checkpoint on. How far the past goes tells a *marker*,
an entry that is written when the live reader exists: whoever has read it has read all in front of it,
on whichever replica (ADR 0015). Invariant: an actor is given every entry behind its `complete_to` once,
in order, whatever it follows at the time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from aegis_sdk.application.ports import FenceRefused, FollowSource, JournalReader, StoreError
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.journal import Entry, Follow

T = TypeVar("T")

SHORT_JOURNAL_ENTRIES: Final = 5_000
"""So many entries are counted in about a millisecond: one reader for all resources will do."""
READERS_MAX: Final = 100
"""Of more resources, the past is read by one reader: making one for each would take too long."""
REST_S_MAX: Final = 0.05


class Follower(Protocol):
    """What is needed of an actor."""

    resource: str
    follow: Follow
    complete_to: int

    @property
    def is_active(self) -> bool: ...

    def read(self, entry: Entry) -> None: ...


class _Live:
    """A reader of all that is stored from now on, and what it brought for actors still without their past."""

    def __init__(self, actors: Mapping[str, Follower]) -> None:
        self.source: FollowSource | None = None
        self._actors = actors
        self._held: dict[str, list[Entry]] = {resource: [] for resource in actors}

    def read(self, entry: Entry) -> None:
        if (held := self._held.get(entry.resource)) is not None:
            held.append(entry)
        elif (actor := self._actors.get(entry.resource)) and entry.seq > actor.complete_to:
            actor.read(entry)

    def hand_over(self, actor: Follower, follow: Follow, *, past: FollowSource) -> None:
        """`past` gave `actor` everything up to where it has read, and was stopped: go on from there."""
        actor.follow = follow
        actor.complete_to = max(actor.complete_to, past.read_to)
        for entry in self._held.pop(actor.resource):
            if entry.seq > actor.complete_to:
                actor.read(entry)

    def let_go(self, actor: Follower) -> None:
        """It fell behind meanwhile: what was held comes again, as part of its past."""
        self._held.pop(actor.resource)


class Following:
    """All readers of one instance's resources."""

    def __init__(self, service: str, reader: JournalReader, actors: Mapping[str, Follower]) -> None:
        self._service = service
        self._reader = reader
        self._actors = actors
        self._live = _Live({})
        self._past: FollowSource | None = None
        self._behind: list[Follower] = []
        self._marker_seq = 0

    async def stop(self) -> None:
        for source in (self._past, self._live.source):
            if source is not None:
                await source.stop()

    @property
    def read_to(self) -> int:
        return self._live.source.read_to if self._live.source else 0

    @property
    def lag_entries(self) -> int:
        """What is not read yet; while the past is read, at most what may be."""
        if self._behind:
            return max(1, self._marker_seq - min(a.complete_to for a in self._behind))
        return self._live.source.lag_entries if self._live.source else 0

    async def begin(self) -> None:
        """Follow what each actor needs now; `read_past` has to be called next, for those that are behind."""
        before, wanted = self._live, {name: _wanted(a) for name, a in self._actors.items()}
        self._past = before.source
        self._behind = [a for a in self._actors.values() if a.follow is Follow.BEHIND]
        live = self._live = _Live(self._actors)
        live.source = await until_answered(
            lambda: self._reader.follow(
                self._service,
                whole=[name for name, follow in wanted.items() if follow is Follow.WHOLE],
                fences=[name for name, follow in wanted.items() if follow is Follow.FENCES],
                from_seq=None,
                on_entry=live.read,
            )
        )
        self._marker_seq = await until_answered(lambda: self._reader.mark(self._service))
        if before.source is None:
            return
        await before.source.reached(self._marker_seq)
        await before.source.stop()
        for name, actor in self._actors.items():
            if actor not in self._behind:
                self._take_over(live, actor, wanted[name], before.source)

    def _take_over(self, live: _Live, actor: Follower, wanted: Follow, past: FollowSource) -> None:
        if actor.follow is Follow.BEHIND:
            live.let_go(actor)
        elif wanted is Follow.FENCES and not actor.is_active:
            # It was active when this reader was chosen, which does not bring what it needs now.
            actor.complete_to = max(actor.complete_to, past.read_to)
            actor.follow = Follow.BEHIND
            live.let_go(actor)
        else:
            live.hand_over(actor, wanted, past=past)

    async def read_past(self) -> None:
        """Give those that are behind what was stored before the marker, and then what was held.

        Commits wait for reading. So whoever is active for nothing rests between two resources, as long
        as it has read, but not for long: what it reads next may turn out to be its own.
        """
        clock = asyncio.get_running_loop()
        for actors in self._in_turn():
            began_s = clock.time()
            for actor in actors:
                actor.follow = Follow.WHOLE
            past = self._past = await self._past_of(actors)
            await past.reached(self._marker_seq)
            await past.stop()
            for actor in actors:
                self._behind.remove(actor)
                self._live.hand_over(actor, Follow.WHOLE, past=past)
            if self._behind and not any(actor.is_active for actor in self._actors.values()):
                await asyncio.sleep(min(REST_S_MAX, clock.time() - began_s))

    async def _past_of(self, actors: Sequence[Follower]) -> FollowSource:
        return await until_answered(
            lambda: self._reader.follow(
                self._service,
                whole=[actor.resource for actor in actors],
                fences=[],
                from_seq=min(actor.complete_to for actor in actors) + 1,
                on_entry=_given_to({actor.resource: actor for actor in actors}),
            )
        )

    def _in_turn(self) -> Sequence[Sequence[Follower]]:
        behind = list(self._behind)
        if not behind:
            return []
        unread = self._marker_seq - min(actor.complete_to for actor in behind)
        if unread <= SHORT_JOURNAL_ENTRIES or len(behind) > READERS_MAX:
            return [behind]
        return [[actor] for actor in behind]


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """What the store answers to `call`, which is made again, after ever longer waits, while it fails.

    Raises: FenceRefused.
    """
    for n in itertools.count(1):
        try:
            return await call()
        except FenceRefused:
            raise
        except StoreError:
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
    raise AssertionError("unreachable")


def _wanted(actor: Follower) -> Follow:
    """An active writes the rest itself; reading it again would double its work."""
    active = actor.is_active and actor.follow is not Follow.BEHIND
    return Follow.FENCES if active else Follow.WHOLE


def _given_to(actors: Mapping[str, Follower]) -> Callable[[Entry], None]:
    def read(entry: Entry) -> None:
        if (actor := actors.get(entry.resource)) and entry.seq > actor.complete_to:
            actor.read(entry)

    return read
