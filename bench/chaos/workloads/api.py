"""What a workload has, and what a client makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Protocol

from aegis_sdk import Method, Service
from pydantic import BaseModel

TIMEOUT_S = 10.0
"""Outlasts a failover and a new stream leader, so that a cancel means trouble."""


class Named(BaseModel):
    """Every payload carries its client's name of the operation: it ties journal and client together."""

    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """An operation that a client is about to make."""

    kind: str
    resource: str | None
    """None: any instance of the service."""
    method: Method[Any, Any]
    payload: Named
    args: Mapping[str, Any] = field(default_factory=dict)
    """What the checkers need to know of the payload."""
    at: Literal["", "active", "standby"] = ""
    """Where it is read. Nothing of such an operation is stored."""
    not_before_s: float | None = None
    """Of one that is submitted: in so many seconds."""
    timeout_s: float | None = TIMEOUT_S
    """None: submitted, and attached to until it has an outcome."""


class Workload(Protocol):
    """A service with its resources, and what clients ask of it."""

    @property
    def name(self) -> str: ...

    @property
    def service_name(self) -> str: ...

    @property
    def resources(self) -> tuple[str, ...]: ...

    @property
    def crowd(self) -> int:
        """So many times as many clients ask it as another one."""
        ...

    @property
    def read(self) -> Method[Any, Any]:
        """Gives a resource's value for the checkers; takes a Named."""
        ...

    def service(self) -> Service:
        """A new service with its handlers."""
        ...

    def opening(self, op: str, resource: str) -> Ask | None:
        """What must be done to a resource before the faults begin."""
        ...

    def draw(self, source: Random, op: str, last: Any) -> Ask:
        """The next operation of a client whose last one gave `last` (None at the start)."""
        ...
