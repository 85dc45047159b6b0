"""Control gives what is asked for to instances that take it on demand: who is told to add it, and when nobody has to be."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk.contract.control import (
    Ack,
    CommandKind,
    Demand,
    OnDemand,
    ResourcesChange,
    RetireResource,
    Role,
)
from aegis_sdk.errors import NoRoute

from tests.unit.control.support import SERVICE, Office

ACCOUNTS = OnDemand(patterns=["ACC-*"])


class Desk(Office):
    """An office of instances that take accounts on demand. They say yes to what they are told, and do it when `adds` is called."""

    async def takes(self, instance_id: str, *resources: str) -> None:
        assert (await self.registers(instance_id, resources=resources, on_demand=ACCOUNTS)).ok
        self.beats(instance_id)

    async def demand(self, resource: str, *, service: str = SERVICE) -> Ack:
        demand = Demand(service=service, resource=resource)
        asking = asyncio.create_task(self.parts.place.demand(demand.model_dump_json().encode()))
        await asyncio.sleep(0)
        await self.settled()
        return await asking

    async def looks(self) -> None:
        await self.parts.place(self.state.services[SERVICE], is_moving=False)
        await self.settled()

    async def changes(self, instance_id: str, offer: int, **change: object) -> None:
        made = ResourcesChange.model_validate(
            {"service": SERVICE, "instance_id": instance_id, "incarnation": "run1", "offer": offer}
            | change
        )
        assert (await self.parts.change(made.model_dump_json().encode())).ok

    def added(self) -> dict[str, list[str]]:
        """instance: what it was told to add."""
        told = [(to, each) for to, each in self.instances.sent if each.kind is CommandKind.ADD]
        return {to: command.resources for to, command in told}


async def resting() -> Desk:
    """ACC-1 was a's, and idle; b was its standby, and has not let go of it."""
    desk = Desk()
    await desk.takes("a", "ACC-1")
    await desk.takes("b", "ACC-1")
    await desk.changes("a", 1, remove=["ACC-1"], rests=True)
    assert desk.route("ACC-1") == "a 2 idle"
    return desk


async def test_what_nobody_has_is_added_by_the_instance_that_has_least() -> None:
    desk = Desk()
    await desk.takes("a", "ACC-1")
    await desk.takes("b")
    answer = await desk.demand("ACC-2")
    assert desk.added() == {"b": ["ACC-2"]}
    assert (answer.ok, answer.code) == (False, "busy")  # b has not added it yet
    await desk.changes("b", 1, add={"ACC-2": Role.AUTO})
    assert desk.lease("ACC-2").owner == "b"
    desk.instances.sent.clear()
    assert (await desk.demand("ACC-2")).ok
    assert desk.added() == {}


async def test_what_rests_goes_to_who_follows_it_which_has_nothing_to_add() -> None:
    desk = await resting()
    assert (await desk.demand("ACC-1")).ok
    assert desk.lease("ACC-1").owner == "b"
    assert desk.added() == {}


async def test_a_stored_request_brings_back_what_rests() -> None:
    """Nobody demands it: its sender stored it, and went."""
    desk = await resting()
    await desk.looks()
    assert desk.route("ACC-1") == "a 2 idle"
    desk.requests.resources_asked, desk.requests.stored = ["ACC-1"], ["c.1"]
    await desk.passes(1.0, "a", "b")
    await desk.looks()
    assert desk.lease("ACC-1").owner == "b"


async def test_a_stored_request_brings_what_nobody_has_heard_of() -> None:
    desk = Desk()
    await desk.takes("a")
    desk.requests.resources_asked = ["ACC-9", "OTHER"]
    await desk.looks()
    assert desk.added() == {"a": ["ACC-9"]}


async def test_a_stored_request_that_has_its_outcome_brings_nothing() -> None:
    desk = await resting()
    desk.requests.resources_asked = ["ACC-1"]
    for _ in range(10):
        await desk.passes(1.0, "a", "b")
        await desk.looks()
    assert desk.route("ACC-1") == "a 2 idle"


async def test_what_waits_for_an_instance_that_is_gone_is_brought_by_another() -> None:
    desk = Desk()
    await desk.takes("a", "ACC-1")
    await desk.takes("b")
    await desk.passes(2.0, "b")
    assert desk.route("ACC-1").endswith("waiting")
    await desk.looks()
    assert desk.added() == {"b": ["ACC-1"]}


@pytest.mark.parametrize(
    ("resource", "service", "why"),
    [
        ("OTHER", SERVICE, "none takes it on demand"),
        ("ACC-1", "nobodys", "service 'nobodys' is not known"),
        ("", SERVICE, "resource"),
        ("ACC-" + "9" * 500, SERVICE, "bytes"),
    ],
)
async def test_what_is_refused_says_why(resource: str, service: str, why: str) -> None:
    desk = Desk()
    await desk.takes("a")
    answer = await desk.demand(resource, service=service)
    assert (answer.ok, answer.code) == (False, NoRoute.code)
    assert why in answer.message
    assert desk.added() == {}


async def test_what_an_operator_has_retired_stays_so() -> None:
    desk = Desk()
    await desk.takes("a", "ACC-1")
    await desk.changes("a", 1, remove=["ACC-1"], rests=True)
    retire = RetireResource(service=SERVICE, resource="ACC-1")
    assert (await desk.admin("retire", retire.model_dump_json().encode())).ok
    answer = await desk.demand("ACC-1")
    assert answer.code == NoRoute.code
    assert "was retired by an operator" in answer.message
    desk.requests.resources_asked, desk.requests.stored = ["ACC-1"], ["c.1"]
    await desk.looks()
    assert desk.route("ACC-1").endswith("retired")
