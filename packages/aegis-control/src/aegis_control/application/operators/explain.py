"""Finding everything that is stored of one request, wherever it got to.

It asks NATS and no control: a request is most often asked after when something is down.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from aegis_sdk.contract.control import EventRecord, LeaseRecord
from aegis_sdk.contract.ids import check_request_id, children_of, redriven_id, waiting_id
from aegis_sdk.contract.trace import trace_id
from aegis_sdk.domain.turns.sessions import is_single

from aegis_control.domain.operators.story import (
    Child,
    Died,
    Ended,
    Facts,
    GivenUp,
    Noted,
    Queue,
    StoredRequest,
    Story,
    relevant,
    tell,
)

EARLIER_MAX: Final = 200
"""More than these only make the sentence longer."""
_BEFORE_ITS_OUTCOME_S: Final = 600.0
"""Where a request is looked for first, whose outcome doesn't say its place: most deadlines are shorter."""


@dataclass(frozen=True, slots=True)
class Header:
    """A stored request without its payload."""

    request_id: str
    seq: int
    at_s: float


class NotFound(Exception):
    """Nothing is stored of the request. `complete`: everything was looked through."""

    def __init__(self, request_id: str, *, complete: bool) -> None:
        super().__init__(request_id)
        self.complete = complete


class Archive(Protocol):
    """What is stored, read without changing anything. All methods may raise Unavailable."""

    async def services(self) -> list[str]:
        """The services that have a request stream."""
        ...

    async def ended(self, service: str, request_id: str) -> Ended | None:
        """How it ended, if its outcome has a name of its own."""
        ...

    async def ended_with_others(
        self, service: str, request_id: str, *, since_s: float | None
    ) -> Ended | None:
        """How it ended, if its outcome shares an entry: all since that time are looked through."""
        ...

    async def noted(self, service: str, request_id: str) -> Noted | None:
        """The last noted begin of a group request."""
        ...

    async def noted_at(
        self, service: str, resource: str, request_id: str, *, since_s: float, until_seq: int
    ) -> Noted | None:
        """The last noted begin at a resource: turns since that time are looked through, up to the entry `until_seq` (0: all)."""
        ...

    async def given_up(self, service: str, request_id: str) -> GivenUp | None:
        """Its caller's statement that it waits no longer, while that is kept."""
        ...

    async def settled(
        self, service: str, resource: str, request_ids: Collection[str], *, since_s: float
    ) -> set[str]:
        """Which of these have an outcome, or were given up: all since that time is looked through."""
        ...

    async def died(self, request_id: str) -> Died | None: ...

    async def accepted(self, service: str, seq: int) -> StoredRequest | None:
        """The request at a place of its stream; None if it isn't kept any more."""
        ...

    def headers(
        self,
        service: str,
        *,
        resource: str | None = None,
        from_seq: int = 1,
        since_s: float | None = None,
    ) -> AsyncGenerator[Header, None]:
        """The requests from a place or a time on, up to the stream's end; of all routes or a resource."""
        ...

    async def unfinished_from(self, service: str) -> int:
        """The place before which every request has been acknowledged."""
        ...

    async def children(self, service: str, caller: str) -> list[Child]:
        """The outcomes in one service of requests that `caller` made."""
        ...

    async def lease(self, service: str, resource: str) -> LeaseRecord | None: ...

    async def group_queue(self, service: str) -> Queue: ...

    async def life_events(self) -> list[EventRecord]:
        """The kept events about epochs, dead letters and operators' changes, in their order."""
        ...


class Explain:
    """One call tells one request's story. `search_s` bounds the search through whole streams."""

    def __init__(self, archive: Archive, *, now_s: float, search_s: float) -> None:
        self._archive = archive
        self._now_s = now_s
        self._search_s = search_s

    async def __call__(self, request_id: str, *, service: str | None = None) -> Story:
        """Raises: InvalidName, NotFound, Unavailable."""
        facts = Facts(check_request_id(request_id), self._now_s)
        services = await self._archive.services()
        if service is not None:
            services = [name for name in services if name == service]
        await self._find_outcome(facts, services)
        complete = await self._find_request(facts, services)
        if facts.ended is None:
            complete = await self._search_outcome(facts, services) and complete
        if not facts.found:
            raise NotFound(request_id, complete=complete)
        facts.trace_id = trace_id(facts.traceparent)
        await self._add_route(facts)
        await self._add_children(facts, services)
        await self._add_events(facts)
        return tell(facts)

    async def _find_outcome(self, facts: Facts, services: Sequence[str]) -> None:
        facts.died = await self._archive.died(facts.request_id)
        if facts.died is not None:
            facts.service = facts.died.letter.request.service
        for name in services:
            ended = await self._archive.ended(name, facts.request_id)
            noted = await self._archive.noted(name, facts.request_id)
            given_up = await self._archive.given_up(name, facts.request_id)
            if ended or noted or given_up:
                facts.service, facts.ended, facts.noted = name, ended, noted
                facts.given_up = given_up
                break
        if facts.ended is None and is_single(facts.request_id):
            await self._find_waiting(facts, [facts.service] if facts.service else services)

    async def _find_waiting(self, facts: Facts, services: Sequence[str]) -> None:
        """One that was to begin later has left its stream, and has no outcome yet."""
        for name in services:
            facts.waits = await self._archive.ended(name, waiting_id(facts.request_id))
            if facts.waits is not None:
                facts.service = name
                return

    async def _search_outcome(self, facts: Facts, services: Sequence[str]) -> bool:
        """True when it was found, or certainly isn't there."""
        since_s = facts.accepted.at_s if facts.accepted else None
        try:
            async with asyncio.timeout(self._search_s):
                for name in [facts.service] if facts.service else services:
                    facts.ended = await self._archive.ended_with_others(
                        name, facts.request_id, since_s=since_s
                    )
                    if facts.ended is not None:
                        facts.service = name
                        break
        except TimeoutError:
            return False
        return True

    async def _find_request(self, facts: Facts, services: Sequence[str]) -> bool:
        """True when it was found, or certainly isn't there."""
        names = [facts.service] if facts.service else services
        try:
            async with asyncio.timeout(self._search_s):
                await self._search(facts, names)
        except TimeoutError:
            return False
        return True

    async def _search(self, facts: Facts, services: Sequence[str]) -> None:
        """What is unfinished first, then what was stored shortly before the outcome, then everything."""
        for name in services:
            if await self._look(facts, name, from_seq=await self._archive.unfinished_from(name)):
                return
        if facts.ended is not None:
            since_s = facts.ended.at_s - _BEFORE_ITS_OUTCOME_S
            if await self._look(facts, facts.service, since_s=since_s):
                return
        for name in services:
            if await self._look(facts, name):
                return

    async def _look(
        self, facts: Facts, service: str, *, from_seq: int = 1, since_s: float | None = None
    ) -> bool:
        reading = self._archive.headers(service, from_seq=from_seq, since_s=since_s)
        async with aclosing(reading) as headers:
            async for header in headers:
                if header.request_id == facts.request_id:
                    facts.service = service
                    facts.accepted = await self._archive.accepted(service, header.seq)
                    return True
        return False

    async def _add_route(self, facts: Facts) -> None:
        again = await self._archive.ended(facts.service, redriven_id(facts.request_id))
        facts.redriven = again
        if facts.resource is None:
            if facts.ended is None:
                facts.queue = await self._archive.group_queue(facts.service)
            return
        facts.lease = await self._archive.lease(facts.service, facts.resource)
        with contextlib.suppress(TimeoutError):  # it would only be told in passing
            async with asyncio.timeout(self._search_s):
                await self._add_begins(facts, facts.resource)
                if facts.ended is None and facts.lease is not None:
                    await self._count_earlier(facts, facts.resource)

    async def _add_begins(self, facts: Facts, resource: str) -> None:
        known = facts.accepted or facts.ended or facts.given_up
        facts.noted = await self._archive.noted_at(
            facts.service,
            resource,
            facts.request_id,
            since_s=known.at_s - _BEFORE_ITS_OUTCOME_S * (facts.accepted is None) if known else 0.0,
            until_seq=facts.ended.seq if facts.ended else 0,
        )

    async def _count_earlier(self, facts: Facts, resource: str) -> None:
        if facts.accepted is None:
            return
        waiting: list[Header] = []
        reading = self._archive.headers(facts.service, resource=resource)
        async with aclosing(reading) as headers:
            async for header in headers:
                if header.seq >= facts.accepted.seq:
                    break
                if len(waiting) == EARLIER_MAX:
                    facts.earlier_is_all = False
                    break
                waiting.append(header)
        if waiting:
            ids, since_s = [header.request_id for header in waiting], waiting[0].at_s
            settled = await self._archive.settled(facts.service, resource, ids, since_s=since_s)
            facts.earlier = len(waiting) - len(settled)

    async def _add_children(self, facts: Facts, services: Sequence[str]) -> None:
        caller = children_of(facts.request_id)
        found: dict[str, Child] = {}
        for name in services:
            for child in await self._archive.children(name, caller):
                found[child.request_id] = child
        try:
            async with asyncio.timeout(self._search_s):
                await self._add_open_children(found, caller, services)
        except TimeoutError:
            pass  # those with an outcome are told; the rest are too far up a long queue
        facts.children = sorted(found.values(), key=lambda child: (child.at_s, child.request_id))

    async def _add_open_children(
        self, found: dict[str, Child], caller: str, services: Sequence[str]
    ) -> None:
        for name in services:
            from_seq = await self._archive.unfinished_from(name)
            async for header in self._archive.headers(name, from_seq=from_seq):
                if header.request_id.startswith(f"{caller}."):
                    found.setdefault(
                        header.request_id, Child(header.request_id, name, None, header.at_s)
                    )

    async def _add_events(self, facts: Facts) -> None:
        begun_s = facts.accepted.at_s if facts.accepted else self._now_s
        ended_s = facts.ended.at_s if facts.ended else self._now_s
        facts.events = relevant(
            await self._archive.life_events(),
            request_id=facts.request_id,
            service=facts.service,
            resource=facts.resource,
            since_s=begun_s,
            until_s=ended_s,
        )
