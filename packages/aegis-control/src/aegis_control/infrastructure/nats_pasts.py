"""The services' logs as operators read them: `Logs` (application/operators/pasts.py)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import TURN, EntryUnreadable, decode_turn, ids_of
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.errors import Unavailable
from aegis_sdk.nats.jetstream import ApiRefused, Kept, from_seq, from_time, parse_time

from aegis_control.application.operators.pasts import Extent
from aegis_control.domain.operators.past import LogEntry
from aegis_control.infrastructure.admin_client import AdminClient
from aegis_control.infrastructure.nats_log_space import NatsLogSpace
from aegis_control.infrastructure.nats_logs import IDENTITY
from aegis_control.infrastructure.nats_reading import at, first, last, read, stream_info

_PAGE: Final = 200
"""Entries in memory: each may be as large as a message can be."""


class NatsPasts:
    """All methods raise Unavailable."""

    def __init__(self, admin: AdminClient) -> None:
        self._js = admin.link
        self._subjects = admin.subjects
        self._archive = admin.archive
        self._space = NatsLogSpace(self._js, self._subjects)

    async def services_of(self, resource: str) -> list[str]:
        return [name for name in await self._archive.services() if await self._has(name, resource)]

    async def _has(self, service: str, resource: str) -> bool:
        names = LogSubjects(self._subjects, service)
        if await self._archive.lease(service, resource) is not None:
            return True
        return await last(self._js, names.stream, names.checkpoint(resource)) is not None

    async def identity(self, service: str) -> str:
        """Of its log, as control gave it; empty without a log."""
        info = await self._info(service)
        return str((info.get("config", {}).get("metadata") or {}).get(IDENTITY, ""))

    async def extent(self, service: str) -> Extent:
        names = LogSubjects(self._subjects, service)
        state = (await self._info(service)).get("state", {})
        found = [await first(self._js, names.stream, subject) for subject in names.outcomes]
        return Extent(
            min((each.seq for each in found if each is not None), default=0),
            int(state.get("last_seq", 0)),
            parse_time(state["last_ts"]) if state.get("last_seq") else 0.0,
        )

    async def _info(self, service: str) -> dict[str, Any]:
        stream = self._subjects.journal_stream(service)
        return await stream_info(self._js, stream) or {}

    async def checkpoint(self, service: str, resource: str) -> Checkpoint | None:
        if not await self._info(service):
            return None
        return (await self._space.newest(service, resource))[0]

    async def checkpoints(self, service: str, resource: str | None) -> dict[str, Checkpoint]:
        names = LogSubjects(self._subjects, service)
        heads: list[Checkpoint] = []
        try:
            subject = names.checkpoints if resource is None else names.checkpoint(resource)
            async for stored in self._js.read_last_of_each(names.stream, subject):
                heads.append(Checkpoint.decode(stored.payload))
        except ApiRefused as error:
            raise Unavailable(f"log {names.stream}: {error}") from error
        found = {head.resource: head for head in heads}
        for name in [head.resource for head in heads if head.parts]:
            whole = await self.checkpoint(service, name)
            if whole is not None:
                found[name] = whole
        return found

    async def last_before(self, service: str, at_s: float) -> int:
        stream = self._subjects.journal_stream(service)
        start = from_time(at_s) | {"headers_only": True}
        async with aclosing(read(self._js, stream, [">"], start, batch=1)) as entries:
            async for entry in entries:
                return entry.seq - 1
        return int((await self._info(service)).get("state", {}).get("last_seq", 0))

    async def time_of(self, service: str, position: int) -> float | None:
        stored = await at(self._js, self._subjects.journal_stream(service), max(1, position))
        return None if stored is None else stored.at_s

    async def outcomes(
        self, service: str, *, after: int = 0, resource: str | None = None
    ) -> AsyncGenerator[LogEntry, None]:
        """Without a resource also the group's; up to the end that the log has now."""
        names = LogSubjects(self._subjects, service)
        subjects = [*names.outcomes, names.group_outcomes]
        if resource is not None:
            subjects = [names.outcomes[0], names.single(resource, "*.*")]
        end = (await self.extent(service)).last
        while after < end:
            page = await self._page(names, subjects, after)
            for stored in page:
                if stored.seq <= end and stored.headers.get(TURN):  # a stranger's has none
                    yield _entry(stored)
            after = page[-1].seq if len(page) == _PAGE else end

    async def _page(self, names: LogSubjects, subjects: list[str], after: int) -> list[Kept]:
        """Read before any of it is given on: whoever takes it may be slow, and NATS waits for nobody."""
        page: list[Kept] = []
        reading = read(self._js, names.stream, subjects, from_seq(after + 1), batch=_PAGE)
        async with aclosing(reading) as entries:
            async for stored in entries:
                page.append(stored)
                if len(page) == _PAGE:
                    break
        return page

    async def find(self, service: str | None, request_id: str) -> tuple[str, str | None] | None:
        for name in await self._archive.services() if service is None else [service]:
            found = await self._archive.ended(
                name, request_id
            ) or await self._archive.ended_with_others(name, request_id, since_s=None)
            if found is not None:
                return name, found.resource
        return None


def _entry(stored: Kept) -> LogEntry:
    ids = ids_of(stored.headers[TURN])
    try:
        records = decode_turn(stored.payload)
    except EntryUnreadable as error:
        return LogEntry(
            stored.seq, stored.at_s, (), ids, f"{stored.subject}: {error}", stored.payload
        )
    return LogEntry(stored.seq, stored.at_s, records, ids)
