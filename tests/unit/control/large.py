"""A large system as its leader knows it: 50 instances, 10,000 resources."""

from __future__ import annotations

from aegis_control.application.state import ControlState, Lease, Member, ServiceTable
from aegis_sdk.contract.control import InstanceRecord, LeaseRecord, LeaseState, Role, ServiceRecord

SERVICES, INSTANCES, RESOURCES = 5, 10, 2_000
"""Of each service: ten instances and 2,000 resources."""


def large_table(
    name: str, *, instances: int = INSTANCES, resources: int = RESOURCES
) -> ServiceTable:
    """Each resource has an active and a standby."""
    table = ServiceTable(name, ServiceRecord(service=name, methods=[]))
    ids = [f"ACC-{n}" for n in range(resources)]
    for n in range(instances):
        mine = ids[n::instances] + ids[(n + 1) % instances :: instances]
        record = InstanceRecord(
            service=name,
            instance_id=f"{name}-{n}",
            incarnation="r",
            resources=dict.fromkeys(mine, Role.AUTO),
        )
        table.members[record.instance_id] = Member(record, 1, heard_at_s=0.0)
    for n, resource in enumerate(ids):
        table.leases[resource] = Lease(_lease(name, resource, f"{name}-{n % instances}"), 1)
    return table


def _lease(service: str, resource: str, owner: str) -> LeaseRecord:
    return LeaseRecord(
        service=service,
        resource=resource,
        state=LeaseState.HELD,
        owner=owner,
        incarnation="r",
        epoch=1,
    )


def large_state() -> ControlState:
    names = [f"service-{n}" for n in range(SERVICES)]
    return ControlState({name: large_table(name) for name in names})


def one_large_service() -> ControlState:
    """All of it in one service: the worst for what is counted a service at a time."""
    table = large_table("all", instances=SERVICES * INSTANCES, resources=SERVICES * RESOURCES)
    return ControlState({"all": table})
