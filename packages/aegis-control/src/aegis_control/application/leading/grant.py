"""Moving leases: the lease by compare-and-set, then the fence, then the old consumer.

This order is the protocol's. The lease decides between control replicas, the fence shuts the old
active out, and the old consumer goes last, when nobody needs its ack floor any more. Each step can be
repeated; what is left undone shows as a lease that is ahead of its fence, and `ensure_fences` mends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.control import LeaseRecord, LeaseState
from aegis_sdk.errors import Unavailable

from aegis_control.application.leading.intake import Intake
from aegis_control.application.ports import (
    FenceWrite,
    StoredFence,
    Write,
)
from aegis_control.application.state import ControlState, Lease, Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.events import InstanceFenced, LeaseGranted, LeasesRestored
from aegis_control.domain.leading import lease as leases
from aegis_control.domain.leading.lease import GRANT_RESOURCES_MAX, Owner

_FENCE_TRIES = 5
"""Each try that loses has read what it lost to; more than a few mean that NATS is in trouble."""


class Leases:
    """Changes leases of a service. The caller holds the service's lock."""

    def __init__(self, state: ControlState, world: World) -> None:
        self._state = state
        self._world = world
        self._intake = Intake(state, world)

    async def give(
        self, table: ServiceTable, plan: Mapping[str, Sequence[str]], *, reason: str
    ) -> dict[str, str]:
        """Make each instance of `plan` the active of its resources; those that moved, and to whom."""
        granted = await asyncio.gather(
            *(
                self.grant(table, resources, table.members[name], reason=reason)
                for name, resources in plan.items()
            )
        )
        return {
            resource: name
            for name, resources in zip(plan, granted, strict=True)
            for resource in resources
        }

    async def grant(
        self, table: ServiceTable, resources: Sequence[str], to: Member, *, reason: str
    ) -> list[str]:
        """Make `to` the active of `resources`; returns those that it got.

        The rest went to somebody else in the meantime (another replica was faster), or their epoch
        can't be read.
        """
        moved: list[str] = []
        if table.lost:
            return moved  # nobody serves from a log that lost something
        resources = [name for name in resources if table.may_grant(name)]
        for at in range(0, len(resources), GRANT_RESOURCES_MAX):
            chunk = resources[at : at + GRANT_RESOURCES_MAX]
            moved += await self._grant_chunk(table, chunk, to, reason)
        return moved

    async def put_in_state(
        self, table: ServiceTable, resources: Iterable[str], state: LeaseState, *, reason: str
    ) -> list[str]:
        """Hold, wait for or give up `resources` without a new epoch; returns those that changed."""
        now_s = self._world.clock.wall()
        changes = {
            name: leases.in_state(table.leases[name].record, state, now_s=now_s, reason=reason)
            for name in resources
            if table.leases[name].record.state is not state and name not in table.unreadable_leases
        }
        return await self.store(table, changes)

    async def restore(self, table: ServiceTable) -> list[str]:
        """Store the leases that are gone, or behind their fences; returns their resources.

        A lease is always written before its fence. So an operator, or an older copy of the bucket, did that.
        """
        now_s = self._world.clock.wall()
        changes = {
            name: leases.of_fence(table.name, name, stored.fence, now_s=now_s)
            for name, stored in table.fences.items()
            if stored.readable
            and name not in table.unreadable_leases
            and stored.fence.epoch > _lease_epoch(table, name)
        }
        restored = await self.store(table, changes)
        if restored:
            self._world.events.emit(LeasesRestored(service=table.name, resources=restored))
        return restored

    async def ensure_fences(self, table: ServiceTable) -> list[str]:
        """Write the fences that are behind their leases; returns their resources."""
        if table.lost:
            return []
        behind = {
            name: leases.fence_of(lease.record)
            for name, lease in table.leases.items()
            if lease.record.state is not LeaseState.VACANT
            and name not in table.unreadable_leases
            and lease.record.epoch > _fence_epoch(table, name)
        }
        if behind:
            await self._write_fences(table, behind)
        return list(behind)

    async def lacks(self, table: ServiceTable) -> bool:
        """Whether the journal does not have what the leases say it has."""
        return bool(table.leases) and not table.fences

    async def begin_again(
        self, table: ServiceTable, changes: Mapping[str, LeaseRecord], *, log_id: str
    ) -> None:
        """The loss of a log was accepted; `log_id` is the new one's."""
        await self.store(table, changes)

    async def _grant_chunk(
        self, table: ServiceTable, resources: Sequence[str], to: Member, reason: str
    ) -> list[str]:
        old_grants = self._grants_of(table, resources)
        floors = await self._ack_floors(table, old_grants)
        changes = self._granted(table, resources, to, floors, reason)
        owners = {name: _owner(table, name) for name in resources}
        before = {name: _stored(table, name)[0] for name in resources}
        moved = await self.store(table, changes)
        for name in moved:
            note_loss(owners[name], to)
        if not moved:
            return []
        await self._write_fences(table, _fences(changes, moved))
        await self._delete_grants(table, old_grants - table.grants().keys())
        self._tell_fenced(table, {name: before[name] for name in moved}, to)
        self._tell(table, moved, to, reason)
        return moved

    def _granted(
        self,
        table: ServiceTable,
        resources: Sequence[str],
        to: Member,
        floors: Mapping[str, int | None],
        reason: str,
    ) -> dict[str, LeaseRecord]:
        """The new leases: one grant, and for each resource its own start; the grant's reader begins at the earliest."""
        epochs, starts, now_s = {}, {}, self._world.clock.wall()
        for name in resources:
            lease, fence = _stored(table, name)
            epochs[name] = leases.next_epoch(lease, fence)
            floor = floors.get(lease.grant) if lease else None
            starts[name] = leases.start_of(lease, fence, floor)
        grant = f"g-{to.record.instance_id}-{max(epochs.values())}-{self._world.new_token()}"
        return {
            name: leases.granted(
                _stored(table, name)[0],
                service=table.name,
                resource=name,
                owner=to.owner,
                session=to.session,
                epoch=epochs[name],
                grant=grant,
                start_seq=starts[name],
                now_s=now_s,
                reason=reason,
            )
            for name in resources
        }

    async def store(self, table: ServiceTable, changes: Mapping[str, LeaseRecord]) -> list[str]:
        """Compare-and-set all; returns the resources whose lease is now the one in `changes`."""
        if not changes:
            return []
        results = await self._world.leases.write(
            [
                Write(
                    self._world.subjects.lease_key(table.name, name),
                    record.model_dump_json().encode(),
                    table.lease_revision(name),
                )
                for name, record in changes.items()
            ]
        )
        doubtful = []
        for (name, record), result in zip(changes.items(), results, strict=True):
            if isinstance(result, int):
                table.leases[name] = Lease(record, result)
                self._state.wrote_lease(result)
            else:
                doubtful.append(name)
        await asyncio.gather(*(self._read_lease(table, name) for name in doubtful))
        return [
            name
            for name, record in changes.items()
            if name in table.leases and table.leases[name].record == record
        ]

    async def _read_lease(self, table: ServiceTable, resource: str) -> None:
        entry = await self._world.leases.read(self._world.subjects.lease_key(table.name, resource))
        if entry is None:
            table.leases.pop(resource, None)
        else:
            self._intake.lease(entry)

    async def _write_fences(self, table: ServiceTable, fences: Mapping[str, Fence]) -> None:
        """Until each resource's last fence is ours or a newer one. Raises: Unavailable."""
        log = {"log": table.journal_id}
        pending = {name: fence.model_copy(update=log) for name, fence in fences.items()}
        if not pending:
            return
        for _ in range(_FENCE_TRIES):
            await self._try_fences(table, pending)
            pending = {
                name: fence
                for name, fence in pending.items()
                if _fence_epoch(table, name) < fence.epoch
            }
            if not pending:
                return
        raise Unavailable(f"{len(pending)} fences of {table.name} could not be written")

    async def _try_fences(self, table: ServiceTable, fences: Mapping[str, Fence]) -> None:
        writes = [
            FenceWrite(name, fence, table.fences[name].seq if name in table.fences else 0)
            for name, fence in fences.items()
        ]
        results = await self._world.journal.write_fences(table.name, writes)
        doubtful = []
        for write, result in zip(writes, results, strict=True):
            if isinstance(result, int):
                self._intake.fence(table, write.resource, StoredFence(write.fence, result))
            else:
                doubtful.append(write.resource)
        await asyncio.gather(*(self._read_fence(table, name) for name in doubtful))

    async def _read_fence(self, table: ServiceTable, resource: str) -> None:
        """Fences stay for ever: where one is gone the journal was emptied, and nobody may be active in it."""
        stored = await self._world.journal.last_fence(table.name, resource)
        if stored is not None:
            self._intake.fence(table, resource, stored)
        elif resource in table.fences:
            table.unfenced.add(resource)

    def _grants_of(self, table: ServiceTable, resources: Iterable[str]) -> set[str]:
        return {table.leases[name].record.grant for name in resources if name in table.leases}

    async def _ack_floors(
        self, table: ServiceTable, grants: Iterable[str]
    ) -> dict[str, int | None]:
        names = list(grants)
        floors = await asyncio.gather(
            *(self._world.requests.ack_floor(table.name, name) for name in names)
        )
        return dict(zip(names, floors, strict=True))

    async def _delete_grants(self, table: ServiceTable, grants: Iterable[str]) -> None:
        await asyncio.gather(
            *(self._world.requests.delete_grant(table.name, name) for name in grants)
        )

    def _tell(self, table: ServiceTable, moved: Sequence[str], to: Member, reason: str) -> None:
        first = table.leases[moved[0]].record
        self._world.events.emit(
            LeaseGranted(
                service=table.name,
                instance_id=to.record.instance_id,
                grant=first.grant,
                epoch=max(table.leases[name].record.epoch for name in moved),
                epochs={name: table.leases[name].record.epoch for name in moved},
                start_seq=min(table.leases[name].record.start_seq for name in moved),
                resources=list(moved),
                reason=reason,
            )
        )

    def _tell_fenced(
        self, table: ServiceTable, before: Mapping[str, LeaseRecord | None], to: Member
    ) -> None:
        """From here on the server refuses commits of these."""
        fenced: dict[str, list[str]] = {}
        for name, lease in before.items():
            if lease is not None and Owner(lease.owner, lease.incarnation) != to.owner:
                fenced.setdefault(lease.owner, []).append(name)
        for owner, names in fenced.items():
            self._world.events.emit(
                InstanceFenced(service=table.name, instance_id=owner, resources=names)
            )


def _owner(table: ServiceTable, resource: str) -> Member | None:
    lease = table.leases.get(resource)
    return table.owner_of(lease.record) if lease else None


def note_loss(owner: Member | None, to: Member) -> None:
    if owner is not None and owner is not to:
        owner.keeps_leases = False


def _fences(changes: Mapping[str, LeaseRecord], moved: Sequence[str]) -> dict[str, Fence]:
    size = {"grant_size": len(moved)}
    return {name: leases.fence_of(changes[name]).model_copy(update=size) for name in moved}


def _stored(table: ServiceTable, resource: str) -> tuple[LeaseRecord | None, Fence | None]:
    lease, fence = table.leases.get(resource), table.fences.get(resource)
    return lease.record if lease else None, fence.fence if fence else None


def _lease_epoch(table: ServiceTable, resource: str) -> int:
    lease = table.leases.get(resource)
    return 0 if lease is None else lease.record.epoch


def _fence_epoch(table: ServiceTable, resource: str) -> int:
    stored = table.fences.get(resource)
    return 0 if stored is None else stored.fence.epoch
