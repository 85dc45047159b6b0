"""What the leading replica knows: services, instances and leases, in memory.

It is a copy. Buckets and journals are the truth: each write is checked by the server against the
revision known here, and what was refused is read again. One lock a service keeps two operations of
this replica out of each other's way; against another replica the revisions do that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from aegis_sdk.contract.control import (
    Heartbeat,
    InstanceRecord,
    InstanceState,
    LeaseRecord,
    LeaseState,
    LogsRecord,
    ResourceSeen,
    ServiceRecord,
)
from aegis_sdk.contract.turns.holds import Hold, Holds

from aegis_control.application.unreadable import Unreadables
from aegis_control.domain.leading.failover import Candidate
from aegis_control.domain.leading.lease import Owner, owns
from aegis_control.domain.leading.liveness import CAN_TAKE_OVER
from aegis_control.domain.leading.owning import Owned
from aegis_control.domain.leading.registry import Holder


@dataclass(slots=True)
class Lease:
    record: LeaseRecord
    revision: int


@dataclass(slots=True)
class Member:
    """A registered instance and what was heard of it."""

    record: InstanceRecord
    revision: int
    heard_at_s: float
    """When it was last heard; for one that was never heard in this term, when the term began."""
    heard: bool = False
    """Heard in this term: what is only on record may be dead."""
    beat: Heartbeat | None = None
    clock_offset_s: float | None = None
    """How far its clock was ahead of ours at its last heartbeat; for people, no decision uses it."""
    keeps_leases: bool = True
    """False once a lease of it moved away: to go on it must register again."""
    told_at_s: float = float("-inf")
    """When the last unasked-for command was sent to it."""

    @property
    def owner(self) -> Owner:
        return Owner(self.record.instance_id, self.record.incarnation)

    def enter(self, state: InstanceState, reason: str = "") -> None:
        """In force immediately, in memory: nobody may choose a dead standby. `Roster.put_state` stores it."""
        self.record = self.record.model_copy(update={"state": state, "reason": reason})

    @property
    def requests_done(self) -> int:
        """Up to where the stored requests have outcomes, of all that it offers now: an earlier offer says nothing of this one."""
        beat = self.beat
        return beat.requests_done if beat and beat.offer == self.record.offer else 0

    def offers(self, resource: str) -> bool:
        """False once its heartbeats tell of the offer in its record, and that one is without the resource."""
        agrees = self.beat is not None and self.beat.offer == self.record.offer
        return resource in self.record.resources or not agrees

    @property
    def lag_entries(self) -> int:
        return 0 if self.beat is None else self.beat.lag_entries

    def holder(self, *, now_s: float, suspicion_s: float) -> Holder:
        """How the registry's rules see it now."""
        return Holder(self.record.state, now_s - self.heard_at_s > suspicion_s)


@dataclass(slots=True)
class Told:
    """What instances told of a service's logs, for when these begin again."""

    latest_logs: dict[str, int] = field(default_factory=dict)
    """stream: the highest generation of it that an instance knew."""
    seen: dict[str, ResourceSeen] = field(default_factory=dict)
    """resource: what instances tell of it that come back from a log that was lost."""
    proved_seq: int = 0
    """Up to where the requests are those that these instances were given."""


@dataclass(slots=True)
class ServiceTable:
    """One service. Change leases only while holding `lock`."""

    name: str
    record: ServiceRecord | None = None
    revision: int = 0
    newer_contract: bool = False
    """A newer version wrote a contract that can't be read here: it is kept."""
    leases: dict[str, Lease] = field(default_factory=dict)
    unreadable_leases: set[str] = field(default_factory=set)
    """Resources whose lease can't be read; `leases` may have an older one."""
    deleted_leases: dict[str, int] = field(default_factory=dict)
    """resource: the revision with which its lease was deleted; the next one comes after it."""
    members: dict[str, Member] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    """instance id: the revision with which its record was deleted; older news of it is stale."""
    owned: Owned | None = None
    """What the service's log says (own.py); None: not read yet."""
    highest_told: int = 0
    """The highest epoch that instances knew when its log began again."""
    leases_behind: set[str] = field(default_factory=set)
    """Resources whose lease is changed here, and not stored yet."""
    handovers: int = 0
    """Handovers under way in this term."""
    logs: LogsRecord | None = None
    """The identities of its streams, and what they lost; None: not known yet."""
    told: Told = field(default_factory=Told)
    logs_revision: int = 0
    logs_kept_s: float = float("-inf")
    provisioned: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_known(self) -> bool:
        """False once its service is forgotten, or for one that never came to be."""
        return bool(
            self.record or self.newer_contract or self.logs or self.members or self.resources()
        )

    def forget(self) -> None:
        """As if nothing of it was ever read. It stays the one table of its name: others may wait for its lock."""
        fresh = ServiceTable(self.name, lock=self.lock)
        for each in fields(self):
            setattr(self, each.name, getattr(fresh, each.name))

    @property
    def lost(self) -> str:
        """What its streams lost, in words: until that is accepted nothing may be served."""
        return self.logs.lost if self.logs else ""

    @property
    def journal_id(self) -> str:
        return self.logs.journal.id if self.logs else ""

    @property
    def kept_holds(self) -> Holds:
        """What is paused, as it is kept beside the log."""
        kept = self.logs.holds if self.logs else {}
        return {what: Hold(each.since, each.by, each.reason) for what, each in kept.items()}

    @property
    def holds(self) -> Holds:
        """What operators have paused."""
        return self.kept_holds if self.owned is None else self.owned.holds

    def follow_log(self, resource: str) -> None:
        """Have the lease say what the log says. A lease from behind it is left alone."""
        if self.owned is None:
            return
        lease = self.leases.get(resource)
        before = lease.record if lease else None
        if before is not None and before.epoch > self.owned.ownership.number:
            return
        if before is None or not self.owned.says(before):
            record = self.owned.record(self.name, resource, before)
            self.leases[resource] = Lease(record, self.lease_revision(resource))
            self.leases_behind.add(resource)

    def beats(self) -> list[Heartbeat]:
        """The last one of each instance that was heard."""
        return [member.beat for member in self.members.values() if member.beat is not None]

    def resources(self) -> set[str]:
        """All that ever had an active."""
        return self.leases.keys() | self.unreadable_leases

    def is_retired(self, resource: str) -> bool:
        lease = self.leases.get(resource)
        return lease is not None and lease.record.state is LeaseState.RETIRED

    def lease_revision(self, resource: str) -> int:
        """Of what is stored under its key as far as is known; 0: nothing ever was."""
        lease = self.leases.get(resource)
        return lease.revision if lease else self.deleted_leases.get(resource, 0)

    def owned_by(self, owner: Owner) -> list[str]:
        """The resources that exactly this run of an instance holds or is waited for with."""
        return [name for name, lease in self.leases.items() if owns(lease.record, owner)]

    def owner_of(self, record: LeaseRecord) -> Member | None:
        """The registered run that holds the lease; None if another run or nobody is registered."""
        member = self.members.get(record.owner)
        if member is None or not owns(record, member.owner):
            return None
        return member

    def candidates(self, *, without: str = "") -> list[Candidate]:
        """The instances that can take resources over, except `without`."""
        active = self.active_counts()
        return [
            Candidate(
                name,
                frozenset(member.record.resources),
                member.lag_entries,
                active.get(name, 0),
                member.record.capacity,
            )
            for name, member in self.members.items()
            if name != without and member.heard and member.record.state in CAN_TAKE_OVER
        ]

    def active_counts(self) -> dict[str, int]:
        """instance id: how many leases its registered run owns."""
        runs = {name: member.record.incarnation for name, member in self.members.items()}
        return Counter(
            record.owner
            for lease in self.leases.values()
            if not (record := lease.record).state.is_unowned
            and runs.get(record.owner) == record.incarnation
        )


@dataclass(slots=True)
class ControlState:
    """All services, and how far the buckets have been read."""

    services: dict[str, ServiceTable] = field(default_factory=dict)
    was_read: bool = False
    registry_revision: int = 0
    leases_revision: int = 0
    unreadables: Unreadables = field(default_factory=Unreadables)
    _own_revisions: set[int] = field(default_factory=set)

    def wrote_lease(self, revision: int) -> None:
        """Our own write needn't be read again, unless somebody else's lies before it."""
        self._own_revisions.add(revision)
        while self.leases_revision + 1 in self._own_revisions:
            self.leases_revision += 1
            self._own_revisions.discard(self.leases_revision)

    def read_leases_to(self, revision: int) -> None:
        """All entries up to `revision` have been taken over."""
        self.leases_revision = max(self.leases_revision, revision)
        self._own_revisions = {own for own in self._own_revisions if own > self.leases_revision}

    def service(self, name: str) -> ServiceTable:
        """The table of `name`, made when it is first needed."""
        return self.services.setdefault(name, ServiceTable(name))

    def known(self) -> list[ServiceTable]:
        """Without those that are forgotten."""
        return [table for table in self.services.values() if table.is_known]

    def members(self) -> Iterator[tuple[ServiceTable, Member]]:
        for table in self.services.values():
            for member in list(table.members.values()):
                yield table, member

    def find_member(self, instance_id: str) -> list[tuple[ServiceTable, Member]]:
        """A process may serve several services under one id."""
        return [
            (table, table.members[instance_id])
            for table in self.services.values()
            if instance_id in table.members
        ]
