"""The ways in which an active goes. Each strikes, waits for the new active, and makes the fleet whole."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aegis_sdk.contract.control import FailoverResources, TargetInstance

from bench.failover.fleet import SERVICE, Fleet, Member
from bench.failover.gap import Window

TAIL_S: Final = 0.1
"""A failover's window lasts so long beyond the last promotion: what piled up is served in it."""
END_TIMEOUT_S: Final = 15.0


class Kind(StrEnum):
    """A failover's cause."""

    KILL = "kill"
    """kill -9; the server's system account tells control of the closed connections."""
    HEARTBEATS = "heartbeats"
    """kill -9; control has no system account and waits for missed heartbeats."""
    PAUSE = "pause"
    """SIGSTOP: the connections stay open, and the old active wakes up later."""
    HANDOVER = "handover"
    """An operator moves one resource: `ipc-cli failover RESOURCE --to INSTANCE`."""
    DRAIN = "drain"
    """An operator ends an instance with all its resources: `ipc-cli drain INSTANCE`."""
    ROLLING = "rolling"
    """The oldest of three instances is drained by SIGTERM, then a new one takes its place
    (bench.failover.rolling)."""


@dataclass(frozen=True, slots=True)
class Struck:
    """A failover that happened to `member`; all its resources had a new active at `promoted_s`."""

    member: Member
    began_s: float
    promoted_s: float

    @property
    def window(self) -> Window:
        return Window(self.began_s, self.promoted_s + TAIL_S)


async def _kill(fleet: Fleet, _: str) -> Struck:
    active, standby = fleet.active, fleet.standby
    began_s = time.monotonic()
    active.process.send(signal.SIGKILL)
    return Struck(active, began_s, await standby.has(fleet.resources))


async def _pause(fleet: Fleet, _: str) -> Struck:
    active, standby = fleet.active, fleet.standby
    began_s = time.monotonic()
    active.process.send(signal.SIGSTOP)
    return Struck(active, began_s, await standby.has(fleet.resources))


async def _hand_over(fleet: Fleet, resource: str) -> Struck:
    active = next(member for member in fleet.members if resource in member.active)
    to = next(member for member in fleet.members if member is not active)
    order = FailoverResources(resources=[resource], service=SERVICE, to=to.name, by="bench")
    began_s = time.monotonic()
    await fleet.admin.failover(order)
    return Struck(active, began_s, await to.has([resource]))


async def _drain(fleet: Fleet, _: str) -> Struck:
    active, standby = fleet.active, fleet.standby
    began_s = time.monotonic()
    await fleet.admin.drain(TargetInstance(instance_id=active.name, by="bench"))
    return Struck(active, began_s, await standby.has(fleet.resources))


async def _replace(fleet: Fleet, struck: Struck) -> None:
    await struck.member.process.ended(END_TIMEOUT_S)
    await fleet.replace(struck.member)


async def _wake(fleet: Fleet, struck: Struck) -> None:
    """It wakes up as a zombie: it must read what shut it out, give everything up, and be a standby again."""
    struck.member.process.send(signal.SIGCONT)
    await struck.member.has_none()
    await fleet.all_live()
    await asyncio.sleep(TAIL_S)


async def _nothing(_: Fleet, __: Struck) -> None:
    """Both members are there."""


Strike = Callable[[Fleet, str], Awaitable[Struck]]
Heal = Callable[[Fleet, Struck], Awaitable[None]]
_STRIKES: Final[Mapping[Kind, tuple[Strike, Heal]]] = {
    Kind.KILL: (_kill, _replace),
    Kind.HEARTBEATS: (_kill, _replace),
    Kind.PAUSE: (_pause, _wake),
    Kind.HANDOVER: (_hand_over, _nothing),
    Kind.DRAIN: (_drain, _replace),
}


async def strike(kind: Kind, fleet: Fleet, resource: str) -> Struck:
    """One failover (of `resource`, if the kind moves a single one). Raises: BedError, AdminError."""
    return await _STRIKES[kind][0](fleet, resource)


async def heal(kind: Kind, fleet: Fleet, struck: Struck) -> None:
    """Returns when the next failover may strike. Raises: BedError."""
    await _STRIKES[kind][1](fleet, struck)
