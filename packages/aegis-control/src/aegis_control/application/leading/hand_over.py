"""A polite move: the actives pause, then their resources change hands.

The log, not the pause, is what keeps a resource safe: an active that doesn't answer may be passed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aegis_sdk.contract.control import Ack, Command, CommandKind, InstanceState, LeaseRecord

from aegis_control.application.leading.fail_over import FailOver
from aegis_control.application.state import Member, ServiceTable
from aegis_control.application.world import COMMAND_TIMEOUT_S, World
from aegis_control.domain.leading.failover import Plan


class HandOver:
    """Moves resources on purpose."""

    def __init__(self, world: World, fail_over: FailOver) -> None:
        self._world = world
        self._fail_over = fail_over

    async def __call__(
        self, table: ServiceTable, planned: Plan, *, reason: str, insist: bool
    ) -> dict[str, str]:
        """Returns what moved, and to whom. What did not move goes on where it is.

        `insist`: also what an active can't pause in time, since a handler runs; it is run again by the next active.
        What somebody else moved meanwhile, or would go to an instance that is not live any more, stays.
        """
        before = {n: table.leases[n].record for names in planned.moves.values() for n in names}
        pausing = self._by_active(table, before)
        moved: dict[str, str] = {}
        table.handovers += 1
        try:
            paused = await asyncio.gather(
                *(self._pause(member, names, reason) for member, names in pausing)
            )
            busy = {
                n for (_, names), ok in zip(pausing, paused, strict=True) if not ok for n in names
            }
            async with table.lock:
                possible = _still_possible(table, planned, before, set() if insist else busy)
                moved = (await self._fail_over.move(table, possible, reason=reason)).moved
        finally:
            table.handovers -= 1
            # Without waiting: this term may be ending. A pause that it does not reach ends by itself.
            for member, names in pausing:
                await self._resume(member, [name for name in names if name not in moved])
        return moved

    def _by_active(
        self, table: ServiceTable, leases: Mapping[str, LeaseRecord]
    ) -> list[tuple[Member, list[str]]]:
        """The live actives, and which of these resources each has."""
        found: dict[str, tuple[Member, list[str]]] = {}
        for name, lease in leases.items():
            owner = table.owner_of(lease)
            if owner is not None and owner.record.state is InstanceState.LIVE:
                found.setdefault(lease.owner, (owner, []))[1].append(name)
        return list(found.values())

    async def _pause(self, owner: Member, resources: list[str], reason: str) -> bool:
        ack = await ordered(self._world, owner, CommandKind.PAUSE, resources, reason=reason)
        return ack is not None and ack.ok

    async def _resume(self, owner: Member, resources: Sequence[str]) -> None:
        if not resources:
            return
        command = Command(
            kind=CommandKind.RESUME,
            incarnation=owner.record.incarnation,
            resources=list(resources),
            reason="the handover failed",
        )
        await self._world.instances.tell(owner.record.instance_id, command)


async def ordered(
    world: World,
    member: Member,
    kind: CommandKind,
    resources: Sequence[str] = (),
    *,
    reason: str,
) -> Ack | None:
    """What the instance answers; None if nothing, in time."""
    command = Command(
        kind=kind,
        incarnation=member.record.incarnation,
        resources=list(resources),
        reason=reason,
    )
    return await world.instances.command(
        member.record.instance_id, command, timeout_s=COMMAND_TIMEOUT_S
    )


def _still_possible(
    table: ServiceTable, planned: Plan, before: Mapping[str, LeaseRecord], busy: set[str]
) -> Plan:
    moves: dict[str, list[str]] = {}
    for to, names in planned.moves.items():
        member = table.members.get(to)
        if member is None or member.record.state is not InstanceState.LIVE:
            continue
        same = [n for n in names if table.leases[n].record.epoch == before[n].epoch]
        if wanted := [n for n in same if n not in busy and n in member.record.resources]:
            moves[to] = wanted
    return Plan(moves, planned.why)
