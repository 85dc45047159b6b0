"""The registry bucket: services and instances, and keeping the copy of it (and of the leases) fresh."""

from __future__ import annotations

import asyncio

from aegis_sdk.contract.control import (
    InstanceRecord,
    InstanceState,
    Registration,
)
from aegis_sdk.errors import Unavailable

from aegis_control.application.leading.intake import Intake
from aegis_control.application.ports import BucketEntry, Write
from aegis_control.application.state import ControlState, Member, ServiceTable
from aegis_control.application.world import Spawn, World
from aegis_control.domain.leading.registry import service_record

_WRITE_TRIES = 5


class Roster:
    """Reads and writes the records of services and instances; reads the leases."""

    def __init__(self, state: ControlState, world: World, *, spawn: Spawn) -> None:
        self._state = state
        self._world = world
        self._intake = Intake(state, world)
        self._spawn = spawn
        self._storing: set[tuple[str, str]] = set()
        """Instances whose record is being stored, or will be in a moment: service and id."""

    async def refresh(self) -> None:
        """Take over what others wrote since the last time (everything, the first time)."""
        state = self._state
        registry, leases = await asyncio.gather(
            self._world.registry.load(after=state.registry_revision, again=state.was_read),
            self._world.leases.load(after=state.leases_revision, again=state.was_read),
        )
        state.was_read = True
        for entry in registry:
            self._intake.registry_entry(entry)
            state.registry_revision = max(state.registry_revision, entry.revision)
        for entry in leases:
            self._intake.lease(entry)
        state.read_leases_to(max((entry.revision for entry in leases), default=0))

    def take(self, entry: BucketEntry) -> None:
        """Take over what was read of the registry."""
        self._intake.registry_entry(entry)

    async def put_service(self, table: ServiceTable, registration: Registration) -> None:
        """Store the service's contract if the registration changes it, and can tell what it changes."""
        for _ in range(_WRITE_TRIES):
            if table.newer_contract:
                return
            alone = not (table.members.keys() - {registration.instance_id})
            record = service_record(registration, table.record, alone=alone)
            if record == table.record:
                return
            key = self._world.subjects.service_key(table.name)
            data = record.model_dump_json().encode()
            [result] = await self._world.registry.write([Write(key, data, table.revision)])
            if isinstance(result, int):
                table.record, table.revision = record, result
                self._state.unreadables.clear(self._world.subjects.registry_bucket, key)
                return
            entry = await self._world.registry.read(key)
            if entry is not None:
                self._intake.registry_entry(entry)
        raise Unavailable(f"the record of service {table.name} could not be stored")

    async def put_instance(self, table: ServiceTable, record: InstanceRecord) -> Member:
        """Store the record, as an update of the same id's last one; the member is heard now."""
        member = table.members.get(record.instance_id)
        revision = 0 if member is None else member.revision
        key = self._world.subjects.instance_key(table.name, record.instance_id)
        data = record.model_dump_json().encode()
        for _ in range(_WRITE_TRIES):
            [result] = await self._world.registry.write([Write(key, data, revision)])
            if isinstance(result, int):
                return self._intake.seat(table, record, result)
            entry = await self._world.registry.read(key)
            revision = 0 if entry is None else entry.revision
        raise Unavailable(f"the record of instance {record.instance_id} could not be stored")

    def put_soon(self, table: ServiceTable, member: Member, record: InstanceRecord) -> None:
        """In force now, and stored in a moment together with what changes meanwhile: a record has all that its instance
        offers, and thousands of resources may come one by one.

        A leader that comes before it is stored finds an earlier offer in the record than in the heartbeats, and has the
        instance register anew. Who owns what is in the log.
        """
        member.record = record
        key = table.name, record.instance_id
        if key not in self._storing:
            self._storing.add(key)
            self._spawn(self._store_soon(table, record.instance_id))

    async def _store_soon(self, table: ServiceTable, instance_id: str) -> None:
        stored: InstanceRecord | None = None
        try:
            while (member := table.members.get(instance_id)) and member.record is not stored:
                await asyncio.sleep(self._world.record_wait_s)
                stored = member.record
                await self.put_instance(table, stored)
        finally:
            self._storing.discard((table.name, instance_id))

    async def put_state(
        self, table: ServiceTable, member: Member, state: InstanceState, *, reason: str
    ) -> None:
        """Enter a new state, and store it."""
        if table.members.get(member.record.instance_id) is not member:
            return  # a new run of it has registered since
        member.enter(state, reason)
        if not self._state.unreadables.has(self._world.subjects.registry_bucket, member.record.key):
            await self.put_instance(table, member.record)

    async def remove(self, table: ServiceTable, member: Member) -> None:
        """Forget the instance."""
        instance_id = member.record.instance_id
        key = self._world.subjects.instance_key(table.name, instance_id)
        if table.members.get(instance_id) is member:
            del table.members[instance_id]
        table.removed[instance_id] = member.revision
        for _ in range(_WRITE_TRIES):
            result = await self._world.registry.delete(key, member.revision)
            if isinstance(result, int):
                table.removed[instance_id] = result
                return
            entry = await self._world.registry.read(key)
            if entry is None or entry.value is None:
                return
            record = self._intake.instance(entry)
            if record is None or record.incarnation != member.record.incarnation:
                return
            member.revision = entry.revision
