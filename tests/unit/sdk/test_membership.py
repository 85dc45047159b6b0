"""An instance's place in its service: it comes back when control lost it, and never after it has left."""

from __future__ import annotations

import asyncio

from aegis_sdk.application.membership import Membership, obey
from aegis_sdk.contract.control import (
    Ack,
    Command,
    CommandKind,
    Leave,
    Registration,
    RegistrationReply,
)

from tests.unit.sdk.support import settle

REGISTRATION = Registration(
    service="svc", instance_id="i-1", incarnation="run", methods=[], resources={}
)
REGISTER = Command(kind=CommandKind.REGISTER, incarnation="run")


class Office:
    """Control, as it is asked: what came, in order. `open` lets registrations through."""

    session = "a connection"

    def __init__(self) -> None:
        self.came: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def register(self, registration: Registration, *, timeout_s: float) -> RegistrationReply:
        self.came.append("return" if registration.returning else "register")
        await self.open.wait()
        self.came.append("registered")
        return RegistrationReply(ok=True)

    async def leave(self, leave: Leave, *, timeout_s: float) -> Ack:
        self.came.append("leave")
        return Ack(ok=True)


def told_to_register(membership: Membership) -> None:
    assert obey(REGISTER, membership=membership, incarnation="run") == Ack(ok=True)


async def test_an_instance_that_control_does_not_know_comes_back() -> None:
    office = Office()
    told_to_register(Membership(office, REGISTRATION))
    await settle()
    assert office.came == ["return", "registered"]


async def test_one_that_has_left_does_not_come_back() -> None:
    """A heartbeat that overtook nothing: control hears it after the leaving, and asks who that is.

    Registered again it would hold its resources for as long as a lost active is waited for.
    """
    office = Office()
    membership = Membership(office, REGISTRATION)
    await membership.leave("drained", timeout_s=1.0)
    told_to_register(membership)
    await settle()
    assert office.came == ["leave"]


async def test_one_that_leaves_while_it_comes_back_stays_away() -> None:
    office = Office()
    office.open.clear()
    membership = Membership(office, REGISTRATION)
    told_to_register(membership)
    await settle()
    await membership.leave("drained", timeout_s=1.0)
    office.open.set()
    await settle()
    assert office.came == ["return", "leave"]
