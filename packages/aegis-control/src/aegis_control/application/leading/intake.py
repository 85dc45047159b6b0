"""Taking stored values over into what the leader knows: records of the registry, leases.

Anything may be in a bucket: a stray key, another version's value, no text at all. What can't be read is told
once (application/unreadable.py) and left as it is; what was known before stays, and all else goes on.
"""

from __future__ import annotations

from typing import TypeVar

from aegis_sdk.contract.control import (
    InstanceRecord,
    InstanceState,
    LeaseRecord,
    LogsRecord,
    ServiceRecord,
)
from aegis_sdk.contract.names import check_instance, check_service, decode_token
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import InvalidName
from pydantic import BaseModel

from aegis_control.application.ports import BucketEntry
from aegis_control.application.state import ControlState, Lease, Member, ServiceTable
from aegis_control.application.world import World

R = TypeVar("R", ServiceRecord, InstanceRecord, LeaseRecord, LogsRecord)


class Intake:
    """Takes what was read. It never raises for what is in there."""

    def __init__(self, state: ControlState, world: World) -> None:
        self._state = state
        self._world = world

    def seat(self, table: ServiceTable, record: InstanceRecord, revision: int) -> Member:
        """`revision` has this record. An offer that is known here and not stored yet is the later one, and stays."""
        self._state.unreadables.clear(self._world.subjects.registry_bucket, record.key)
        member = table.members.get(record.instance_id)
        if member is None or member.record.incarnation != record.incarnation:
            member = Member(record, revision, self._world.clock.monotonic())
            table.members[record.instance_id] = member
        member.revision = revision
        if member.record.offer <= record.offer:
            member.record = record
        return member

    def registry_entry(self, entry: BucketEntry) -> None:
        try:
            kind, service, instance_id = _parse_registry_key(entry.key)
        except (ValueError, InvalidName):
            self._note_stray(self._world.subjects.registry_bucket, entry)
            return
        if entry.value is None and service not in self._state.services:
            return  # forgotten before our time
        table = self._state.service(service)
        if kind == "service":
            self._take_service(table, entry)
        elif kind == "logs":
            self._take_logs(table, entry)
        else:
            self._take_instance(table, instance_id, entry)

    def _take_service(self, table: ServiceTable, entry: BucketEntry) -> None:
        if entry.revision <= table.revision:
            return
        record = self._read(ServiceRecord, self._world.subjects.registry_bucket, entry)
        table.revision = entry.revision
        table.newer_contract = record is None and _names_itself(table.name, entry.value)
        if record is not None or entry.value is None:
            table.record = record

    def _take_logs(self, table: ServiceTable, entry: BucketEntry) -> None:
        if entry.revision <= table.logs_revision:
            return
        table.logs_revision = entry.revision
        # Deleted or unreadable, what is known stays: it is what tells a loss.
        table.logs = (
            self._read(LogsRecord, self._world.subjects.registry_bucket, entry) or table.logs
        )

    def _take_instance(self, table: ServiceTable, instance_id: str, entry: BucketEntry) -> None:
        member = table.members.get(instance_id)
        known = table.removed.get(instance_id, 0) if member is None else member.revision
        if entry.revision <= known:
            return
        record = self.instance(entry)
        if entry.value is None:
            table.members.pop(instance_id, None)
        if record is None:
            return
        seated = self.seat(table, record, entry.revision)
        if member is None:
            # Lost before our time: whether its leases moved since is not known any more.
            seated.keeps_leases = record.state is not InstanceState.LOST

    def lease(self, entry: BucketEntry) -> None:
        """Take over what is stored of a lease. One that can't be read leaves the last known as it is."""
        bucket = self._world.subjects.leases_bucket
        try:
            service, resource = _parse_lease_key(entry.key)
        except (ValueError, InvalidName):
            self._note_stray(bucket, entry)
            return
        if entry.value is None and service not in self._state.services:
            return
        table = self._state.service(service)
        known = table.leases.get(resource)
        if known is not None and entry.revision <= known.revision:
            return
        record = self._read(LeaseRecord, bucket, entry)
        table.unreadable_leases.discard(resource)
        if record is not None:
            table.leases[resource] = Lease(record, entry.revision)
            table.leases_behind.discard(resource)
        elif entry.value is not None:
            table.unreadable_leases.add(resource)
        else:
            # An operator did it: the log knows who owns the resource.
            table.leases.pop(resource, None)
            table.deleted_leases[resource] = entry.revision
        table.follow_log(resource)

    def instance(self, entry: BucketEntry) -> InstanceRecord | None:
        """None for one that was deleted or can't be read."""
        return self._read(InstanceRecord, self._world.subjects.registry_bucket, entry)

    # --- what can't be read ------------------------------------------------------------------------
    def _read(self, kind: type[R], bucket: str, entry: BucketEntry) -> R | None:
        """None for what was deleted, and for what can't be read, which is told."""
        if entry.value is not None:
            try:
                record = kind.read(entry.key, entry.value)
            except ValueError as error:
                self._note(bucket, entry.key, entry.revision, error)
                return None
        self._state.unreadables.clear(bucket, entry.key)
        return None if entry.value is None else record

    def _note_stray(self, bucket: str, entry: BucketEntry) -> None:
        if entry.value is None:
            self._state.unreadables.clear(bucket, entry.key)
        else:
            self._note(bucket, entry.key, entry.revision, "no key of AegisIPC has this form")

    def _note(self, where: str, key: str, revision: int, why: object) -> None:
        self._state.unreadables.note(self._world.events, where, key, revision, why)


def _parse_registry_key(key: str) -> tuple[str, str, str]:
    """(kind, service, instance id). Raises: ValueError, InvalidName."""
    kind, service, instance_id = [*key.split(".", 2), ""][:3]
    check_service(service)
    if kind == "instance":
        check_instance(instance_id)
    elif kind not in ("service", "logs") or instance_id:
        raise ValueError(key)
    return kind, service, instance_id


def _parse_lease_key(key: str) -> tuple[str, str]:
    """(service, resource). Raises: ValueError, InvalidName."""
    service, _, token = key.partition(".")
    resource = decode_token(token)
    if Subjects.lease_key(check_service(service), resource) != key:
        raise ValueError(key)
    return service, resource


def _names_itself(service: str, value: bytes | None) -> bool:
    """Was a contract that can't be read written by another version, and not by a stranger?"""
    try:
        return bool(value and WhoseContract.model_validate_json(value).service == service)
    except ValueError:
        return False


class WhoseContract(BaseModel):
    """What every version's contract has."""

    service: str
