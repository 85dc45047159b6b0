"""A small control for the bus: it registers instances, grants resources and moves them on request.

It knows no heartbeats: a test says when an instance is lost. A grant begins with an ownership entry in the service's log,
and the gate that shuts the old owner out. So instances learn of it as they do on NATS: by reading, when their links let
them, and never by a call from here.

Everything that it decides happens in one step of the loop. Two replicas, elections, plans that are dropped, and moves that are
made politely are aegis-control's own, and are tried there. Who is next is simple on purpose: the first by name that offers
the resource.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aegis_sdk.contract.control import (
    NOT_REGISTERED,
    Ack,
    InstanceRecord,
    LeaseRecord,
    LeaseState,
    Leave,
    Registration,
    RegistrationReply,
    ResourcesChange,
    Role,
    ServiceRecord,
)
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.contract.turns.writers import writer_name
from aegis_sdk.domain.turns.ownership import IDLE, NOBODY
from aegis_sdk.errors import SecondActive, Unavailable
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.server import MemoryServer


class MemoryControl:
    """The registry, the leases, and who gets what. `running = False`: no control answers.

    A grant changes the lease and the log in one step; on NATS leases follow.
    """

    def __init__(self, bus: MemoryServer) -> None:
        self.running = True
        self._owns: dict[str, int] = {}
        """By service: the last ownership entry."""
        self.services: dict[str, ServiceRecord] = {}
        self.instances: dict[tuple[str, str], InstanceRecord] = {}
        self.leases: dict[tuple[str, str], LeaseRecord] = {}
        self._bus = bus
        self.tell: dict[tuple[str, str], Callable[[list[str]], Awaitable[None]]] = {}
        """By service and instance: has it offer what it takes on demand."""

    # --- what callers ask -------------------------------------------------------------------------------
    async def demand(self, service: str, resource: str) -> None:
        """Somebody asks for what nobody has: the least loaded that takes it on demand gets it, and the next ones follow."""
        takers = [
            each
            for (of, _), each in self.instances.items()
            if of == service and each.on_demand and each.on_demand.matches(resource)
        ]
        takers.sort(key=lambda each: (self._active(service, each.instance_id), each.instance_id))
        standbys = max((each.on_demand.standbys for each in takers if each.on_demand), default=0)
        for each in takers[: 1 + standbys]:
            await self.tell[service, each.instance_id]([resource])

    def _active(self, service: str, instance_id: str) -> int:
        leases = (lease for (of, _), lease in self.leases.items() if of == service)
        return sum(not each.state.is_unowned and each.owner == instance_id for each in leases)

    # --- what instances ask ---------------------------------------------------------------------------
    def register(self, registration: Registration) -> RegistrationReply:
        """Take an instance in, or in again, and grant what it offers and nobody has. A refusal changes nothing."""
        service, instance_id = registration.service, registration.instance_id
        refused = self._second_active(service, instance_id, registration.resources)
        if refused is not None:
            return refused
        self._bus.provision(service)
        for method in registration.methods:
            if method.takes:
                self._bus.provision_events(method.takes.partition(".")[0])
        self._record(registration)
        self._grant_free(service, instance_id, registration.resources)
        return RegistrationReply(ok=True, ack_wait_s=self._bus.ack_wait_s)

    def change(self, change: ResourcesChange, registration: Registration) -> RegistrationReply:
        """What is removed goes to a standby, or becomes vacant."""
        service, instance_id = change.service, change.instance_id
        if (service, instance_id) not in self.instances:
            return RegistrationReply(ok=False, code=NOT_REGISTERED, message="register first")
        refused = self._second_active(service, instance_id, change.add)
        if refused is not None:
            return refused
        self._record(registration)
        self._grant_free(service, instance_id, change.add)
        for resource in change.remove:
            lease = self.leases.get((service, resource))
            if lease is not None and lease.owner == instance_id:
                if change.rests:
                    self._let_go(lease, IDLE, LeaseState.IDLE)
                else:
                    self._move_on(lease)
        return RegistrationReply(ok=True, log_end=self._bus.log(service).last_seq)

    def leave(self, leave: Leave) -> Ack:
        self.lose(leave.service, leave.instance_id)
        return Ack(ok=True)

    # --- what tests ask -------------------------------------------------------------------------------
    def lose(self, service: str, instance_id: str) -> None:
        """The instance is gone: its resources go to their standbys, or become vacant. It is not told. Safe twice."""
        self.instances.pop((service, instance_id), None)
        for lease in list(self.leases.values()):
            if lease.service == service and lease.owner == instance_id:
                self._move_on(lease)

    def grant(self, service: str, resource: str, to: str) -> LeaseRecord:
        """Make `to` (an instance id) the active: a new epoch, whoever was active before."""
        new = self.instances[service, to]
        old = self.leases.get((service, resource))
        lease = LeaseRecord(
            service=service,
            resource=resource,
            state=LeaseState.HELD,
            owner=to,
            incarnation=new.incarnation,
            epoch=old.epoch + 1 if old else 1,
        )
        self.leases[service, resource] = lease
        self._own(service, resource, old, to=writer_name(to, new.incarnation))
        return lease

    def _own(self, service: str, resource: str, old: LeaseRecord | None, *, to: str) -> None:
        """An ownership entry, and the gate that shuts the old owner out."""
        log = self._bus.log(service)
        self._owns[service] = number = self._owns.get(service, 0) + 1
        log.write(f"own.{number}", Moves({resource: to}).encode())
        if old is not None and not old.state.is_unowned:
            log.write(f"gate.{writer_name(old.owner, old.incarnation)}", rollup=True)

    def set_lease_state(self, service: str, resource: str, state: LeaseState) -> None:
        """Change a lease without a new epoch, as when its active is lost and nobody can follow. Callers see it; instances
        don't.
        """
        lease = self.leases[service, resource]
        self.leases[service, resource] = lease.model_copy(update={"state": state})

    # --- how ------------------------------------------------------------------------------------------
    def _grant_free(self, service: str, instance_id: str, offered: Mapping[str, Role]) -> None:
        """What it had is granted again: a new incarnation is a new writer, and its old one must be shut out."""
        for resource, role in offered.items():
            lease = self.leases.get((service, resource))
            vacant = lease is None or lease.state.is_unowned
            own = lease is not None and lease.owner == instance_id
            if role is not Role.STANDBY and (vacant or own):
                self.grant(service, resource, instance_id)

    def _second_active(
        self, service: str, instance_id: str, offered: Mapping[str, Role]
    ) -> RegistrationReply | None:
        for resource, role in offered.items():
            lease = self.leases.get((service, resource))
            if (
                role is Role.ACTIVE
                and lease is not None
                and not lease.state.is_unowned
                and lease.owner != instance_id
            ):
                message = f"{lease.owner} is the active for {resource!r}"
                return RegistrationReply(ok=False, code=SecondActive.code, message=message)
        return None

    def _record(self, registration: Registration) -> None:
        self.services[registration.service] = ServiceRecord(
            service=registration.service,
            methods=registration.methods,
            version=registration.version,
        )
        self.instances[registration.service, registration.instance_id] = InstanceRecord(
            service=registration.service,
            instance_id=registration.instance_id,
            incarnation=registration.incarnation,
            resources=registration.resources,
            on_demand=registration.on_demand,
            takes=[method.takes for method in registration.methods if method.takes],
        )

    def _move_on(self, lease: LeaseRecord) -> None:
        standbys = sorted(
            instance.instance_id
            for (service, _), instance in self.instances.items()
            if service == lease.service and lease.resource in instance.resources
        )
        if standbys:
            self.grant(lease.service, lease.resource, standbys[0])
        else:
            self._let_go(lease, NOBODY, LeaseState.VACANT)

    def _let_go(self, lease: LeaseRecord, owner: str, state: LeaseState) -> None:
        self._own(lease.service, lease.resource, lease, to=owner)
        self.set_lease_state(lease.service, lease.resource, state)


class MemoryControlPort:
    """Control (application/ports.py) over one link."""

    def __init__(self, link: MemoryConnection, control: MemoryControl) -> None:
        self._link = link
        self._control = control

    async def register(self, registration: Registration, *, timeout_s: float) -> RegistrationReply:
        return (await self._answering()).register(registration)

    async def change(
        self, change: ResourcesChange, registration: Registration, *, timeout_s: float
    ) -> RegistrationReply:
        return (await self._answering()).change(change, registration)

    async def leave(self, leave: Leave, *, timeout_s: float) -> Ack:
        return (await self._answering()).leave(leave)

    async def _answering(self) -> MemoryControl:
        await asyncio.sleep(0)
        if not (self._link.reachable and self._control.running):
            raise Unavailable("no control service answers")
        return self._control
