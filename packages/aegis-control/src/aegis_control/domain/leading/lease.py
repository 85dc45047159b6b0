"""The life of a lease: held, waiting for its owner's return, vacant. Its epoch only rises.

Pure changes of one record; who stores them, and in which order, is the application's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aegis_sdk.contract.control import InstanceState, LeaseRecord, LeaseState

BY_HAND: Final = "handover"
"""How the reason begins for which an operator moved a resource."""


@dataclass(frozen=True, slots=True)
class Owner:
    """An instance, and which run of it."""

    instance_id: str
    incarnation: str


def owns(lease: LeaseRecord, owner: Owner) -> bool:
    """Does exactly this run hold (or wait to hold) the lease?"""
    return (
        not lease.state.is_unowned
        and lease.owner == owner.instance_id
        and lease.incarnation == owner.incarnation
    )


def was_put_by_hand(lease: LeaseRecord) -> bool:
    """Did an operator choose this owner? It keeps the resource then, until it fails or leaves."""
    return lease.reason.startswith(BY_HAND)


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
