"""The registry bucket: services and instances, and keeping the copy of it (and of the leases) fresh."""

from __future__ import annotations

import asyncio

from aegis_sdk.contract.control import (
    InstanceRecord,
    InstanceState,
    LeaseRecord,
    Registration,
    ServiceRecord,
)
from aegis_sdk.errors import Unavailable

from aegis_control.application.ports import Entry, Write
from aegis_control.application.state import ControlState, Lease, Member, ServiceTable
from aegis_control.application.world import World
from aegis_control.domain.registry import service_record

_WRITE_TRIES = 5


class Roster:
    """Reads and writes the records of services and instances; reads the leases."""

    def __init__(self, state: ControlState, world: World) -> None:
        self._state = state
        self._world = world

    async def refresh(self) -> None:
        """Take over what others wrote since the last time (everything, the first time)."""
        state = self._state
        registry, leases = await asyncio.gather(
            self._world.registry.load(after=state.registry_revision),
            self._world.leases.load(after=state.leases_revision),
        )
        for entry in registry:
            self._take_registry_entry(entry)
            state.registry_revision = max(state.registry_revision, entry.revision)
        for entry in leases:
            self._take_lease(entry)
        state.read_leases_to(max((entry.revision for entry in leases), default=0))
        await asyncio.gather(*map(self.load_fences, list(state.services.values())))

    async def load_fences(self, table: ServiceTable) -> None:
        """Once a service; from then on each write says what is there."""
        if not table.fences_loaded:
            table.fences = await self._world.journal.load_fences(table.name) | table.fences
            table.fences_loaded = True

    async def put_service(self, table: ServiceTable, registration: Registration) -> None:
        """Store the service's contract if the registration changes it."""
        for _ in range(_WRITE_TRIES):
            alone = not (table.members.keys() - {registration.instance_id})
            record = service_record(registration, table.record, alone=alone)
            if record == table.record:
                return
            key = self._world.subjects.service_key(table.name)
            data = record.model_dump_json().encode()
            [result] = await self._world.registry.write([Write(key, data, table.revision)])
            if isinstance(result, int):
                table.record, table.revision = record, result
                return
            entry = await self._world.registry.read(key)
            if entry is not None:
                self._take_registry_entry(entry)
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
                return self._seat(table, record, result)
            entry = await self._world.registry.read(key)
            revision = 0 if entry is None else entry.revision
        raise Unavailable(f"the record of instance {record.instance_id} could not be stored")

    async def put_state(
        self, table: ServiceTable, member: Member, state: InstanceState, *, reason: str
    ) -> None:
        """Store a new state. In memory it is in force at once, so that nobody chooses a dead standby."""
        if table.members.get(member.record.instance_id) is not member:
            return  # a new run of it has registered since
        member.record = member.record.model_copy(update={"state": state, "reason": reason})
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
            if (
                InstanceRecord.model_validate_json(entry.value).incarnation
                != member.record.incarnation
            ):
                return
            member.revision = entry.revision

    def _seat(self, table: ServiceTable, record: InstanceRecord, revision: int) -> Member:
        member = table.members.get(record.instance_id)
        if member is None or member.record.incarnation != record.incarnation:
            member = Member(record, revision, self._world.clock.monotonic())
            table.members[record.instance_id] = member
        member.record, member.revision = record, revision
        return member

    def _take_registry_entry(self, entry: Entry) -> None:
        kind, service, *rest = entry.key.split(".", 2)
        table = self._state.service(service)
        if kind == "service":
            self._take_service(table, entry)
        elif kind == "instance" and rest:
            self._take_instance(table, rest[0], entry)

    def _take_service(self, table: ServiceTable, entry: Entry) -> None:
        if entry.revision > table.revision:
            table.record = (entry.value and ServiceRecord.model_validate_json(entry.value)) or None
            table.revision = entry.revision

    def _take_instance(self, table: ServiceTable, instance_id: str, entry: Entry) -> None:
        member = table.members.get(instance_id)
        known = table.removed.get(instance_id, 0) if member is None else member.revision
        if entry.revision <= known:
            return
        if entry.value is None:
            table.members.pop(instance_id, None)
            return
        record = InstanceRecord.model_validate_json(entry.value)
        seated = self._seat(table, record, entry.revision)
        if member is None:
            # Lost before our time: whether its leases moved since is not known any more.
            seated.keeps_leases = record.state is not InstanceState.LOST

    def _take_lease(self, entry: Entry) -> None:
        if entry.value is None:
            return
        record = LeaseRecord.model_validate_json(entry.value)
        table = self._state.service(record.service)
        known = table.leases.get(record.resource)
        if known is None or entry.revision > known.revision:
            table.leases[record.resource] = Lease(record, entry.revision)
