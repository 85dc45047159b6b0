"""The life of a lease: granted, waiting for its owner's return, vacant. Its epoch only rises.

Pure changes of one record; who stores them, and in which order, is the application's.
"""

from __future__ import annotations

from dataclasses import dataclass

from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.control import InstanceState, LeaseRecord, LeaseState

FIRST_SEQ = 1
"""A stream's first message: where a resource without a past starts to read."""

GRANT_RESOURCES_MAX = 1_000
"""One consumer a grant filters by resource; 1,000 filters cost 0.1 s to make, 5,000 2.4 s."""


@dataclass(frozen=True, slots=True)
class Owner:
    """An instance, and which run of it."""

    instance_id: str
    incarnation: str


def owns(lease: LeaseRecord, owner: Owner) -> bool:
    """Does exactly this run hold (or wait to hold) the lease?"""
    return (
        lease.state is not LeaseState.VACANT
        and lease.owner == owner.instance_id
        and lease.incarnation == owner.incarnation
    )


def start_of(lease: LeaseRecord | None, fence: Fence | None, ack_floor: int | None) -> int:
    """From which request on a new active must read.

    Everything up to the old consumer's `ack_floor` has an outcome. None (the consumer is not there or
    can't be read) falls back to the old start: early is harmless, late would lose. The fence stands in
    for a lease that was lost with its bucket.
    """
    past = lease.start_seq if lease else fence.start_seq if fence else FIRST_SEQ
    return max(past, FIRST_SEQ if ack_floor is None else ack_floor + 1)


def next_epoch(lease: LeaseRecord | None, fence: Fence | None) -> int:
    """One more than any epoch that was ever written down."""
    return max(lease.epoch if lease else 0, fence.epoch if fence else 0) + 1


def granted(
    before: LeaseRecord | None,
    *,
    service: str,
    resource: str,
    owner: Owner,
    session: str,
    epoch: int,
    grant: str,
    start_seq: int,
    now_s: float,
    reason: str,
) -> LeaseRecord:
    """The lease of a new active, with what a newer version had noted in the one `before`."""
    return LeaseRecord(
        **((before.model_extra or {}) if before else {}),
        service=service,
        resource=resource,
        state=LeaseState.HELD,
        owner=owner.instance_id,
        incarnation=owner.incarnation,
        session=session,
        epoch=epoch,
        grant=grant,
        start_seq=start_seq,
        since=now_s,
        reason=reason,
    )


def in_state(lease: LeaseRecord, state: LeaseState, *, now_s: float, reason: str) -> LeaseRecord:
    """The same owner and epoch, held, waited for or given up."""
    return lease.model_copy(update={"state": state, "since": now_s, "reason": reason})


def without_successor(owner: InstanceState | None, lease: LeaseState) -> LeaseState:
    """What becomes of a lease that nobody can take over. `owner` is None when its run is not registered.

    A lost owner is waited for, a stalled one keeps it (it may go on), one that is gone leaves it vacant.
    """
    if owner is None or owner is InstanceState.EVICTED:
        return LeaseState.VACANT
    return LeaseState.WAITING if owner is InstanceState.LOST else lease


def begun_again(lease: LeaseRecord, *, epoch: int, done: int, now_s: float) -> LeaseRecord:
    """The lease in logs that begin again: nobody's, behind each epoch and request that anybody knows of."""
    return lease.model_copy(
        update={
            "state": LeaseState.WAITING,
            "incarnation": "",
            "epoch": max(lease.epoch, epoch),
            "start_seq": start_of(lease, None, done),
            "since": now_s,
            "reason": "loss_accepted",
        }
    )


def of_fence(service: str, resource: str, fence: Fence, *, now_s: float) -> LeaseRecord:
    """The lease that a fence followed, when it is gone with its bucket, or an older one is in its place."""
    return LeaseRecord(
        service=service,
        resource=resource,
        state=LeaseState.HELD,
        owner=fence.owner,
        incarnation=fence.incarnation,
        session=fence.session,
        epoch=fence.epoch,
        grant=fence.grant,
        start_seq=fence.start_seq,
        since=now_s,
        reason="restored",
    )


def fence_of(lease: LeaseRecord) -> Fence:
    """The journal entry that begins the lease's epoch."""
    return Fence(
        epoch=lease.epoch,
        owner=lease.owner,
        incarnation=lease.incarnation,
        session=lease.session,
        grant=lease.grant,
        start_seq=lease.start_seq,
        reason=lease.reason,
    )
