"""An instance's place in its service: it comes back when control lost it, and never after it has left."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk.application.membership import Membership, obey
from aegis_sdk.contract.control import (
    Ack,
    Command,
    CommandKind,
    Leave,
    Registration,
    RegistrationReply,
    ResourcesChange,
    Role,
)
from aegis_sdk.errors import SecondActive, Unavailable

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
        self.offers: list[tuple[int, list[str]]] = []
        """Of each registration: the offer, and its resources."""
        self.answers: list[RegistrationReply | Exception] = []
        """To changes."""

    async def register(self, registration: Registration, *, timeout_s: float) -> RegistrationReply:
        self.came.append("return" if registration.returning else "register")
        await self.open.wait()
        self.came.append("registered")
        self.offers.append((registration.offer, list(registration.resources)))
        return RegistrationReply(ok=True)

    async def change(
        self, change: ResourcesChange, registration: Registration, *, timeout_s: float
    ) -> RegistrationReply:
        self.came.append(f"offer {change.offer}")
        reply = self.answers.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

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


DONE = RegistrationReply(ok=True)


async def test_what_control_has_answered_is_offered_from_then_on() -> None:
    office = Office()
    membership = Membership(office, REGISTRATION)
    office.answers = [DONE, DONE]
    await membership.change(add={"A": Role.AUTO, "B": Role.AUTO}, remove=(), wait_s=1.0)
    await membership.change(add={}, remove=["A"], wait_s=1.0)
    assert office.came == ["offer 1", "offer 2"]
    assert dict(membership.resources) == {"B": Role.AUTO}
    told_to_register(membership)
    await settle()
    assert office.offers == [(2, ["B"])]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Unavailable("no answer"), Unavailable),
        (RegistrationReply(ok=False, code="second_active", message="b has it"), SecondActive),
    ],
)
async def test_a_change_that_fails_leaves_the_offer_and_is_above_what_control_may_have(
    answer: RegistrationReply | Exception, error: type[Exception]
) -> None:
    """Control may have carried it out: heartbeats then tell of a later offer, and control asks for that."""
    office = Office()
    membership = Membership(office, REGISTRATION)
    office.answers = [answer]
    with pytest.raises(error):
        await membership.change(add={"A": Role.AUTO}, remove=(), wait_s=0.0)
    assert not membership.resources
    assert membership.registration.offer == 2


async def test_a_change_at_a_control_that_does_not_know_the_instance_is_made_when_it_does() -> None:
    office = Office()
    membership = Membership(office, REGISTRATION)
    office.answers = [RegistrationReply(ok=False, code="not_registered"), DONE]
    await membership.change(add={"A": Role.AUTO}, remove=(), wait_s=5.0)
    assert office.came == ["offer 1", "return", "registered", "offer 1"]
    assert list(membership.resources) == ["A"]


async def test_one_that_has_stood_back_meanwhile_stays_out_of_the_offer() -> None:
    office = Office()
    registration = REGISTRATION.model_copy(update={"resources": {"X": Role.AUTO}})
    membership = Membership(office, registration)
    office.answers = [RegistrationReply(ok=False, code="busy", retry_after_s=0.05), DONE]
    changing = asyncio.create_task(membership.change(add={"A": Role.AUTO}, remove=(), wait_s=5.0))
    await settle()
    membership.stand_back("X")
    await changing
    await settle()
    assert office.offers[-1] == (3, ["A"])
