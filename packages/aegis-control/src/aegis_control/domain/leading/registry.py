"""What a registration gets: for each resource it is granted, kept, followed, doubted or refused.

The whole registration stands or falls together; one refused resource refuses all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aegis_sdk.contract.control import (
    InstanceState,
    LeaseRecord,
    MethodSpec,
    Registration,
    Role,
    ServiceRecord,
)
from aegis_sdk.contract.names import check_instance, check_service, encode_token
from aegis_sdk.errors import InvalidName

from aegis_control.domain.leading.lease import Owner, owns
from aegis_control.domain.leading.liveness import CAN_KEEP


class Standing(StrEnum):
    """A resource as the registering instance finds it."""

    NEW = "new"
    """Nobody was ever active for it."""
    FREE = "free"
    """It had an active, which is gone, lost or stalled."""
    MINE = "mine"
    """This very run holds it."""
    MINE_BEFORE = "mine_before"
    """An earlier run of this instance id held it."""
    HELD = "held"
    DOUBTED = "doubted"
    """Its active is late or draining: in a moment we know."""


class Claim(StrEnum):
    GRANT = "grant"
    KEEP = "keep"
    FOLLOW = "follow"
    ASK_AGAIN = "ask_again"
    REFUSE = "refuse"


CLAIMS: Final[Mapping[tuple[Role, Standing], Claim]] = {
    (Role.ACTIVE, Standing.NEW): Claim.GRANT,
    (Role.ACTIVE, Standing.FREE): Claim.GRANT,
    (Role.ACTIVE, Standing.MINE): Claim.KEEP,
    (Role.ACTIVE, Standing.MINE_BEFORE): Claim.GRANT,
    (Role.ACTIVE, Standing.HELD): Claim.REFUSE,
    (Role.ACTIVE, Standing.DOUBTED): Claim.ASK_AGAIN,
    (Role.AUTO, Standing.NEW): Claim.GRANT,
    (Role.AUTO, Standing.FREE): Claim.GRANT,
    (Role.AUTO, Standing.MINE): Claim.KEEP,
    (Role.AUTO, Standing.MINE_BEFORE): Claim.GRANT,
    (Role.AUTO, Standing.HELD): Claim.FOLLOW,
    (Role.AUTO, Standing.DOUBTED): Claim.FOLLOW,
    # A standby of a resource that never had an active waits for one; of an orphan, it takes over.
    (Role.STANDBY, Standing.NEW): Claim.FOLLOW,
    (Role.STANDBY, Standing.FREE): Claim.GRANT,
    (Role.STANDBY, Standing.MINE): Claim.KEEP,
    (Role.STANDBY, Standing.MINE_BEFORE): Claim.GRANT,
    (Role.STANDBY, Standing.HELD): Claim.FOLLOW,
    (Role.STANDBY, Standing.DOUBTED): Claim.FOLLOW,
}


@dataclass(frozen=True, slots=True)
class Holder:
    """The registered instance that holds a lease, as control sees it now."""

    state: InstanceState
    doubted: bool
    """Not heard for longer than it should be, but not judged yet."""


def standing(lease: LeaseRecord | None, holder: Holder | None, me: Owner) -> Standing:
    """Classify a resource; `holder` is None when the lease's owner is not registered (in that run)."""
    if lease is None:
        return Standing.NEW
    if owns(lease, me):
        return Standing.MINE
    if lease.state.is_unowned:
        return Standing.FREE
    if lease.owner == me.instance_id:
        return Standing.MINE_BEFORE
    return _standing_of(holder)


def _standing_of(holder: Holder | None) -> Standing:
    if holder is None or holder.state not in CAN_KEEP:
        return Standing.FREE
    if holder.doubted or holder.state is InstanceState.DRAINING:
        return Standing.DOUBTED
    return Standing.HELD


def claim(role: Role, found: Standing, *, returning: bool) -> Claim:
    """What to do for one resource. One who returns takes what it finds, and is not refused."""
    return CLAIMS[Role.AUTO if returning else role, found]


def check_registration(registration: Registration) -> None:
    """Raises: InvalidName, with what is wrong and what is allowed."""
    check_service(registration.service)
    check_instance(registration.instance_id)
    if not registration.incarnation:
        raise InvalidName("incarnation is empty: give each run of an instance a new one")
    if encode_token(registration.incarnation, kind="incarnation") != registration.incarnation:
        raise InvalidName(
            f"incarnation {registration.incarnation!r}: use A-Z, a-z, 0-9, '_' and '-'"
        )
    _check_methods(registration.methods)
    for event in registration.events:
        check_service(event.name)
    for resource in registration.resources:
        encode_token(resource)


def check_contract(registration: Registration, known: ServiceRecord | None) -> None:
    """What a method is to callers can't change under the instances that serve it. Raises: InvalidName."""
    served = {method.name: _is(method) for method in known.methods} if known else {}
    for method in registration.methods:
        if (other := served.get(method.name, _is(method))) != _is(method):
            raise InvalidName(
                f"method {method.name!r} {other} at the other instances of"
                f" {registration.service}, and {_is(method)} here: give it another name,"
                " or stop the others first"
            )


def _is(method: MethodSpec) -> str:
    if method.reads:
        return "is read"
    return "needs a resource" if method.targeted else "serves the group"


def _check_methods(methods: list[MethodSpec]) -> None:
    if not methods:
        raise InvalidName("the registration has no method: there is nothing to serve")
    seen: set[str] = set()
    for method in methods:
        check_service(method.name)
        if method.name in seen:
            raise InvalidName(f"method {method.name!r} is there twice")
        seen.add(method.name)
        if method.takes:
            split_event(method.takes)


def split_event(text: str) -> tuple[str, str]:
    """(service, event) of `<service>.<event>`. Raises: InvalidName."""
    service, _, event = text.partition(".")
    return check_service(service), check_service(event)


def streams_needed(registration: Registration) -> list[str]:
    """Services whose stream of events has to be there."""
    emits = [registration.service] if registration.events else []
    return emits + [split_event(method.takes)[0] for method in registration.methods if method.takes]


def service_record(
    registration: Registration, known: ServiceRecord | None, *, alone: bool
) -> ServiceRecord:
    """The service's contract after this registration.

    While other instances are registered (a rolling upgrade, say), methods of theirs that this one does
    not have stay known; the first instance of a fresh start says what the service is.
    """
    methods = {method.name: method for method in registration.methods}
    events = {event.name: event for event in registration.events}
    if known is not None and not alone:
        methods = {method.name: method for method in known.methods} | methods
        events = {event.name: event for event in known.events} | events
    return ServiceRecord(
        **((known.model_extra or {}) if known else {}),
        service=registration.service,
        methods=sorted(methods.values(), key=lambda method: method.name),
        events=sorted(events.values(), key=lambda event: event.name),
        version=registration.version,
    )
