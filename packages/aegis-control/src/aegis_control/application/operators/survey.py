"""The verbs `overview` and `resources`: a system of thousands of resources, summed up or in pages.

Nothing here grows with the number of resources but the time of one pass over the leases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from aegis_sdk.contract.control import InstanceView, LeaseState, PauseView, RouteView
from pydantic import BaseModel, Field

from aegis_control.application.operators.views import (
    instance_views,
    paused_of,
    route_view,
    unfollowed,
)
from aegis_control.application.ports import Clock
from aegis_control.application.state import ControlState, ServiceTable

ROWS_MAX: Final = 200


class ServiceSummary(BaseModel):
    """A service with its instances; its resources are counted."""

    service: str
    version: str = ""
    methods: int = 0
    instances: list[InstanceView] = []
    leases: dict[LeaseState, int] = {}
    unfollowed: int = 0
    """Resources with an active and no live standby."""
    log_lost: str = ""
    """What its streams lost, in words: nothing of it is served until an operator accepts that."""
    paused: list[PauseView] = []


class Overview(BaseModel):
    services: list[ServiceSummary] = []
    unreadable_values: int = 0
    """Stored records that control can't read."""


class Trouble(StrEnum):
    """What is wrong with a resource, the worst first."""

    VACANT = "vacant"
    WAITING = "waiting"
    UNFOLLOWED = "no_standby"
    NONE = ""


_RANK: Final = {trouble: rank for rank, trouble in enumerate(Trouble)}


class FindResources(BaseModel):
    """Argument of `resources`: which ones, and which part of the list."""

    text: str = ""
    """In the resource's id or the name of its active; case does not matter."""
    service: str | None = None
    troubled: bool = False
    """Only those with something wrong."""
    offset: int = Field(0, ge=0, le=1_000_000_000)
    limit: int = Field(50, ge=1, le=ROWS_MAX)


class ResourceRow(RouteView):
    owner: str
    """Whose lease it is, or was last: who is waited for, when there is no active."""
    trouble: Trouble


class ResourcesPage(BaseModel):
    total: int
    """Of all services."""
    matched: int
    offset: int
    rows: list[ResourceRow] = []


_Found = tuple[int, str, str, Trouble]
"""In the list's order: those with something wrong first, then by service and id."""


class Survey:
    """Answers both verbs from what the leader knows."""

    def __init__(self, state: ControlState, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    async def overview(self, _: bytes) -> Overview:
        tables = sorted(self._state.services.values(), key=lambda table: table.name)
        return Overview(
            services=[self._summary(table) for table in tables if table.record],
            unreadable_values=len(self._state.unreadables),
        )

    async def resources(self, data: bytes) -> ResourcesPage:
        wanted = FindResources.model_validate_json(data)
        tables = self._state.services.values()
        found = sorted(hit for table in tables for hit in _matching(table, wanted))
        page = found[wanted.offset : wanted.offset + wanted.limit]
        return ResourcesPage(
            total=sum(len(table.leases) for table in tables),
            matched=len(found),
            offset=wanted.offset,
            rows=[self._row(hit) for hit in page],
        )

    def _summary(self, table: ServiceTable) -> ServiceSummary:
        record = table.record
        held = Counter(lease.record.state for lease in table.leases.values())
        return ServiceSummary(
            service=table.name,
            version=record.version if record else "",
            methods=len(record.methods) if record else 0,
            instances=instance_views(table, self._clock),
            leases={state: held[state] for state in LeaseState},
            unfollowed=len(unfollowed(table)),
            log_lost=table.lost,
            paused=paused_of(table),
        )

    def _row(self, hit: _Found) -> ResourceRow:
        _, service, resource, trouble = hit
        table = self._state.services[service]
        owner = table.leases[resource].record.owner
        return ResourceRow(**dict(route_view(table, resource)), owner=owner, trouble=trouble)


def _matching(table: ServiceTable, wanted: FindResources) -> Iterator[_Found]:
    if wanted.service not in (None, table.name):
        return
    text, alone = wanted.text.casefold(), unfollowed(table)
    for resource, lease in table.leases.items():
        if text not in resource.casefold() and text not in lease.record.owner.casefold():
            continue
        trouble = _trouble(lease.record.state, followed=resource not in alone)
        if trouble or not wanted.troubled:
            yield _RANK[trouble], table.name, resource, trouble


def _trouble(state: LeaseState, *, followed: bool) -> Trouble:
    if state is LeaseState.HELD:
        return Trouble.NONE if followed else Trouble.UNFOLLOWED
    if state in (LeaseState.RETIRED, LeaseState.IDLE):
        return Trouble.NONE
    return Trouble.WAITING if state is LeaseState.WAITING else Trouble.VACANT
