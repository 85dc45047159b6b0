"""A resource's state, its history, and what one request changed: read from the log, with or without a control."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from aegis_sdk.contract.ids import check_request_id
from aegis_sdk.contract.turns.checkpoint import Checkpoint

from aegis_control.domain.operators.past import LogEntry, Past, Range, Step, Unread


@dataclass(frozen=True, slots=True)
class Extent:
    """What a log has: its oldest outcome (0: none), its newest entry, and when that was stored."""

    first: int
    last: int
    last_s: float


class Logs(Protocol):
    """The services' logs. All methods may raise Unavailable."""

    async def services_of(self, resource: str) -> list[str]:
        """Those that ever had a resource of this id."""
        ...

    async def identity(self, service: str) -> str:
        """Of the log; empty without one."""
        ...

    async def extent(self, service: str) -> Extent: ...

    async def checkpoint(self, service: str, resource: str) -> Checkpoint | None:
        """The newest. Raises: ValueError, when this version can't read it."""
        ...

    async def checkpoints(self, service: str, resource: str | None) -> dict[str, Checkpoint]:
        """The newest of each resource that has one, or of one resource. Raises: ValueError."""
        ...

    async def last_before(self, service: str, at_s: float) -> int:
        """The position of the last entry that was stored before that time."""
        ...

    async def time_of(self, service: str, position: int) -> float | None:
        """When the entry there was stored; None when it is not kept."""
        ...

    def outcomes(
        self, service: str, *, after: int = 0, resource: str | None = None
    ) -> AsyncGenerator[LogEntry, None]:
        """Entries with outcomes behind a position; `resource`: others' singles may be left out."""
        ...

    async def find(self, service: str | None, request_id: str) -> tuple[str, str | None] | None:
        """The service that has an outcome of the request, and its resource."""
        ...


class NotThere(Exception):
    """What was asked after is not in the log; the message says what is."""


@dataclass(frozen=True, slots=True)
class StateView:
    """What `state` says. `position` is the log's; `time` is when the entry there was stored, if it is kept."""

    service: str
    resource: str
    position: int
    time: float | None
    outcomes: int
    state: dict[str, Any]
    unknown: list[str]
    missing: list[Range]
    unread: list[Unread]


@dataclass(frozen=True, slots=True)
class HistoryView:
    """What `history` says. `removed`: so many of the first outcomes are not in the log any more."""

    service: str
    resource: str
    removed: int
    outcomes: list[Step]
    unread: list[Unread]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """`had`, `has`: whether there was, and is, a value; None: what was there was removed from the log."""

    key: str
    had: bool | None
    before: Any
    has: bool
    after: Any


@dataclass(frozen=True, slots=True)
class DiffView:
    """What `state diff` says."""

    service: str
    resource: str | None
    request_id: str
    method: str
    outcome: str
    position: int
    time: float
    changes: list[KeyChange]
    missing: list[Range]


class Pasts:
    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def state(
        self,
        service: str,
        resource: str,
        *,
        position: int | None = None,
        log: str = "",
        at_s: float | None = None,
    ) -> StateView:
        """At a position (of `log`, if that is given), at a time, or now. Raises: NotThere, TrimmedAway, ValueError, Unavailable."""
        if log and log != await self._logs.identity(service):
            raise NotThere(f"{log}@{position} is a position of another log of {service}")
        extent = await self._logs.extent(service)
        if at_s is not None:
            position = await self._logs.last_before(service, at_s)
        if position is None:
            position = extent.last
        if position > extent.last:
            raise NotThere(f"the log of {service} ends at {extent.last}")
        past = await self._read(service, resource, extent, position)
        told = past.at(position)
        unread = [each for each in past.unread if each.position <= position]
        is_now = position == extent.last
        return StateView(
            service=service,
            resource=resource,
            position=position,
            time=extent.last_s if is_now else await self._logs.time_of(service, position),
            outcomes=told.number,
            state=dict(told.values),
            unknown=told.unknown,
            missing=told.missing,
            unread=unread if told.missing else [],
        )

    async def history(self, service: str, resource: str, *, since_s: float = 0.0) -> HistoryView:
        """Raises: ValueError, Unavailable."""
        extent = await self._logs.extent(service)
        past = await self._read(service, resource, extent, 0)
        return HistoryView(
            service,
            resource,
            past.removed,
            [step for step in past.steps if step.time >= since_s],
            [each for each in past.unread if each.time >= since_s],
        )

    async def diff(self, request_id: str, *, service: str | None = None) -> DiffView:
        """Raises: InvalidName, NotThere, TrimmedAway, ValueError, Unavailable."""
        found = await self._logs.find(service, check_request_id(request_id))
        if found is None:
            raise NotThere(f"no outcome of request {request_id} is in the log")
        name, resource = found
        if resource is None:
            raise NotThere(f"{request_id} went to the group of {name}: it changed no state")
        past = await self._read(name, resource, await self._logs.extent(name), 0)
        step = next((each for each in past.steps if each.request_id == request_id), None)
        if step is None:
            raise NotThere(f"the outcome of {request_id} can't be read by this version")
        changes, missing = _changes(past, step) if step.keys else ([], [])
        return DiffView(
            *(name, resource, request_id, step.method, step.outcome.value),
            *(step.position, step.time, changes, missing),
        )

    async def _read(self, service: str, resource: str, extent: Extent, position: int) -> Past:
        """Behind the checkpoint alone, where that is enough for `position`. Raises: ValueError, Unavailable."""
        checkpoint, trouble = None, None
        try:
            checkpoint = await self._logs.checkpoint(service, resource)
        except ValueError as error:
            trouble = error
        past = Past(resource, checkpoint, first=extent.first)
        after = checkpoint.read if checkpoint and position >= extent.last else 0
        reading = self._logs.outcomes(service, after=after, resource=resource)
        async with aclosing(reading) as entries:
            async for entry in entries:
                past.add(entry)
        if trouble is not None and not past.is_whole:
            raise trouble
        return past


def _changes(past: Past, step: Step) -> tuple[list[KeyChange], list[Range]]:
    before, after = past.around(step)
    changes = [
        KeyChange(
            key,
            None if key in before.unknown else key in before.values,
            before.values.get(key),
            key in after.values,
            after.values.get(key),
        )
        for key in dict.fromkeys(step.keys)
    ]
    return changes, before.missing
