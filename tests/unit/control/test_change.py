"""An instance that runs offers more, or less: what is granted, refused, given away, and what a crash between leaves."""

from __future__ import annotations

import pytest
from aegis_sdk.contract.control import (
    InstanceRecord,
    InstanceState,
    RegistrationReply,
    ResourcesChange,
    Role,
)
from aegis_sdk.contract.subjects import Subjects

from tests.unit.control.support import SERVICE, Office


async def changes(
    office: Office,
    instance_id: str,
    *remove: str,
    add: dict[str, Role] | None = None,
    offer: int = 1,
    run: str = "run1",
    rests: bool = False,
) -> RegistrationReply:
    change = ResourcesChange(
        service=SERVICE,
        instance_id=instance_id,
        incarnation=run,
        offer=offer,
        add=add or {},
        remove=list(remove),
        rests=rests,
    )
    return await office.parts.change(change.model_dump_json().encode())


async def test_what_is_added_is_placed_like_at_a_registration() -> None:
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    await office.registers("b", Role.AUTO, ["R1", "R2"])
    roles = {"R2": Role.AUTO, "R3": Role.AUTO, "R4": Role.STANDBY}
    reply = await changes(office, "a", add=roles)
    assert reply.ok
    assert office.route("R2") == "b 2 held"
    assert office.route("R3") == "a 3 held"
    assert "R4" not in office.owned().ownership.resources()
    assert office.member("a").record.resources == {"R1": Role.AUTO} | roles
    assert office.events.last("resources_changed")["added"] == 3


async def test_a_new_resource_is_read_from_where_the_log_names_it() -> None:
    """Not from the log's beginning: an instance that runs for a month adds it in milliseconds."""
    office = Office()
    await office.registers("a", Role.AUTO, [f"R{n}" for n in range(50)])
    end = office.own_log.seq
    reply = await changes(office, "a", add={"NEW": Role.AUTO})
    assert reply.log_after >= end
    reply = await changes(office, "a", add={"R1": Role.AUTO, "NEWER": Role.AUTO}, offer=2)
    assert reply.log_after < end


async def test_what_is_removed_goes_to_a_standby_or_to_nobody() -> None:
    office = Office()
    await office.registers("a", Role.AUTO, ["R1", "R2", "R3"])
    await office.registers("b", Role.STANDBY, ["R1"])
    office.beats("b")
    reply = await changes(office, "a", "R1", "R2")
    assert reply.ok
    assert office.told("R1") == "b 2"
    assert office.told("R2") == " 3"
    assert office.told("R3") == "a 1"
    assert reply.log_end == office.owned().newest_seq
    await office.reconcile()
    assert office.told("R2") == " 3"  # and nobody is found for it


async def test_asking_twice_changes_nothing_more() -> None:
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    await changes(office, "a", "R1", add={"R2": Role.ACTIVE})
    entries = len(office.own_log.entries[SERVICE])
    assert (await changes(office, "a", "R1", add={"R2": Role.ACTIVE})).ok
    assert len(office.own_log.entries[SERVICE]) == entries


async def test_one_that_another_is_active_for_refuses_the_whole_change() -> None:
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    await office.registers("b", Role.ACTIVE, ["R2"])
    reply = await changes(office, "a", "R1", add={"R3": Role.AUTO, "R2": Role.ACTIVE})
    assert (reply.ok, reply.code) == (False, "second_active")
    assert list(office.member("a").record.resources) == ["R1"]
    assert office.told("R1") == "a 1"


async def test_who_is_not_registered_or_not_in_this_run_has_to_register_first() -> None:
    office = Office()
    assert (await changes(office, "a")).code == "not_registered"
    await office.registers("a")
    assert (await changes(office, "a", run="run0")).code == "not_registered"


@pytest.mark.parametrize(("state", "code"), [("draining", "draining"), ("evicted", "evicted")])
async def test_who_leaves_can_add_nothing(state: str, code: str) -> None:
    office = Office()
    await office.registers("a")
    office.member("a").enter(InstanceState(state))
    reply = await changes(office, "a", add={"R2": Role.AUTO})
    assert (reply.ok, reply.code) == (False, code)


async def test_a_change_between_whose_steps_control_dies_is_finished_by_asking_again() -> None:
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    office.own_log.away = True
    assert (await changes(office, "a", "R1", add={"R2": Role.AUTO})).code == "busy"
    office.own_log.away = False
    after = Office(office)
    await after.roster.refresh()
    after.beats("a")
    assert after.told("R1") == "a 1"
    assert (await changes(after, "a", "R1", add={"R2": Role.AUTO})).ok
    assert (after.told("R1")[0], after.told("R2")[0]) == (" ", "a")


async def test_who_gave_a_change_up_that_was_made_is_asked_to_register_again() -> None:
    """Its heartbeats tell of a later offer than the record."""
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    await changes(office, "a", add={"R2": Role.AUTO})
    office.beats("a", offer=1)
    await office.settled()
    assert not office.instances.sent
    office.beats("a", offer=2)
    await office.settled()
    assert office.instances.kinds("a") == ["register"]
    await office.registers("a", Role.AUTO, ["R1"], returning=True, offer=2)
    assert office.told("R2")[0] == " "
    stale = await office.registers("a", Role.AUTO, ["R1", "R2"], returning=True, offer=1)
    assert stale.code == "busy"
    assert (await changes(office, "a", add={"R2": Role.AUTO}, offer=1)).code == "busy"


def recorded(office: Office) -> InstanceRecord:
    """As it is stored."""
    value = office.registry.entries[Subjects.instance_key(SERVICE, "a")].value
    assert value is not None
    return InstanceRecord.model_validate_json(value)


async def test_what_comes_one_by_one_is_stored_together() -> None:
    office = Office()
    await office.registers("a", Role.AUTO, ["R0"])
    writes = office.registry.revision
    for n in range(1, 100):
        await changes(office, "a", add={f"R{n}": Role.AUTO}, offer=n)
    assert recorded(office).offer == 0
    await office.settled()
    assert office.registry.revision == writes + 1
    assert recorded(office) == office.member("a").record
    assert len(recorded(office).resources) == 100


async def test_a_leader_that_comes_before_an_offer_is_stored_has_its_instance_register_anew() -> (
    None
):
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    await changes(office, "a", add={"R2": Role.AUTO})
    after = Office(office)
    await after.roster.refresh()
    after.beats("a", offer=1)
    await after.settled()
    assert after.told("R2") == "a 2"
    assert after.instances.kinds("a") == ["register"]
    assert (await after.registers("a", Role.AUTO, ["R1", "R2"], offer=1)).ok
    assert after.told("R2") == "a 2"
    assert recorded(after).resources.keys() == {"R1", "R2"}
    await office.settled()  # the earlier leader wakes up
    await after.roster.refresh()
    assert after.member("a").record.resources.keys() == {"R1", "R2"}


async def behind(*instance_ids: str) -> Office:
    """A new leader: the log gave R1 to the first one of them, and no lease says so yet."""
    office = Office()
    office.leases_follow = False
    for name in instance_ids:
        assert (await office.registers(name, Role.AUTO, ["R1"])).ok
    after = Office(office)
    await after.roster.refresh()
    assert not after.leases.entries
    after.beats(*instance_ids)
    return after


@pytest.mark.parametrize("rests", [True, False], ids=["it rests", "it is removed"])
async def test_a_removal_that_another_leader_was_faster_than_is_asked_for_again(
    rests: bool,
) -> None:
    """Its entry had the number of the other's. Answered as done, the resource stayed an instance's that offers it no more."""
    office = Office()
    for name, resources in (("a", ["R1", "R2"]), ("b", ["R2"])):
        await office.registers(name, Role.AUTO, resources)
    other = Office(office)
    await other.roster.refresh()
    other.beats("a", "b")
    assert await other.granting.give(other.state.services[SERVICE], {"b": ["R2"]}, reason="spread")
    assert (await changes(office, "a", "R1", rests=rests)).code == "busy"
    assert office.told("R1") == "a 1"
    assert (await changes(office, "a", "R1", rests=rests)).ok
    assert office.told("R1").split() == ["3"]


async def test_who_leaves_leaves_what_the_log_gave_to_it() -> None:
    after = await behind("a", "b")
    assert (await after.leaves("a")).ok
    assert after.told("R1") == "b 2"


async def test_who_registers_does_not_take_what_the_log_gave_to_another() -> None:
    after = await behind("a")
    assert (await after.registers("b", Role.AUTO, ["R1"])).ok
    assert after.told("R1") == "a 1"


@pytest.mark.parametrize(("others", "told"), [((), "  2"), (("b",), "b 2")])
async def test_an_owner_that_does_not_offer_its_resource_stands_back(
    others: tuple[str, ...], told: str
) -> None:
    """However that came to be: it would serve nobody, and nobody would take over from one that lives."""
    office = Office()
    for name in ("a", *others):
        await office.registers(name, Role.AUTO, ["R1", "R2"])
    member = office.member("a")
    member.record = member.record.model_copy(update={"resources": {"R2": Role.AUTO}, "offer": 1})
    office.beats("a", *others)
    await office.reconcile()
    assert office.told("R1") == "a 1"  # it has not heard yet that it offers this no more
    office.beats("a", offer=1)
    await office.reconcile()
    assert office.told("R1").split() == told.split()
    assert office.told("R2") == "a 1"


async def test_what_was_stored_before_does_not_undo_an_offer_that_is_not() -> None:
    """A state that an instance entered is being stored while it offers more."""
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    before = office.member("a").record
    await changes(office, "a", add={"R2": Role.AUTO})
    await office.roster.put_instance(office.state.services[SERVICE], before)
    assert office.member("a").record.offer == 1
    await office.settled()
    assert recorded(office).resources.keys() == {"R1", "R2"}


async def test_what_was_heard_before_an_addition_says_nothing_of_its_stored_requests() -> None:
    """Requests that wait for the resource must not be taken for settled: its instance did not look at them yet."""
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    office.beats("a", requests_done=9)
    assert office.member("a").requests_done == 9
    await changes(office, "a", add={"R2": Role.AUTO})
    assert office.member("a").requests_done == 0
    office.beats("a", requests_done=9, offer=1)
    assert office.member("a").requests_done == 9


async def test_what_can_not_be_read_is_refused() -> None:
    office = Office()
    assert (await office.parts.change(b"\xff")).code == "invalid"
    assert (await changes(office, "a", add={"": Role.AUTO})).code == "invalid"
