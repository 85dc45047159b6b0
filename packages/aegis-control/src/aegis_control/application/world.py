"""What the use cases of control share: the ports, the settings, and what the outside may ask."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aegis_sdk.contract.control import Ack, AdminReply, Heartbeat, RegistrationReply
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.subjects import Subjects

from aegis_control.application.ports import (
    Bucket,
    Checkup,
    Clock,
    Events,
    Hearing,
    Instances,
    Letters,
    Logs,
    LogSpace,
    OwnLog,
    Requests,
)
from aegis_control.domain.leading.liveness import Limits
from aegis_control.domain.leading.spreading import Policy

COMMAND_TIMEOUT_S: Final = 2.0
"""An instance that doesn't answer in this time is handled without its help."""


class Api(Protocol):
    """What instances, operators and the NATS server may tell or ask the leader."""

    async def register(self, data: bytes) -> RegistrationReply: ...
    async def change(self, data: bytes) -> RegistrationReply: ...
    async def leave(self, data: bytes) -> Ack: ...
    async def demand(self, data: bytes) -> Ack: ...
    async def admin(self, verb: str, data: bytes) -> AdminReply: ...
    def heard(self, beat: Heartbeat) -> None: ...
    def dead_lettered(self, letter: DeadLetter) -> None: ...
    def closed(self, session: str, reason: str) -> None: ...
    def reconnected(self) -> None: ...


Listen = Callable[[Api], AbstractAsyncContextManager[None]]
"""Takes requests from instances and operators to the Api while the context is open."""


Spawn = Callable[[Coroutine[Any, Any, object]], object]
"""Runs a coroutine beside the caller, with its errors logged."""


@dataclass(frozen=True, slots=True)
class World:
    """The ports and settings of a replica; `registry` and `leases` are its two buckets."""

    registry: Bucket
    leases: Bucket
    own_log: OwnLog
    log_space: LogSpace
    requests: Requests
    logs: Logs
    instances: Instances
    hearing: Hearing
    letters: Letters
    checkup: Checkup
    events: Events
    clock: Clock
    subjects: Subjects
    limits: Limits
    spread: Policy
    listen: Listen
    leader_id: str
    version: str
    ack_wait_s: float
    outcome_ttl_s: float
    replicas: int
    """Copies of each stream."""
    record_wait_s: float = 0.2
    """What an instance offers more or less is stored together with what follows within this time."""
    calls_per_s: Callable[[str], float | None] = lambda _: None
    """How many requests of a service got an outcome lately."""
