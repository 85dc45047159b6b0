"""Registrations: what is granted, refused, and written in which order."""

from __future__ import annotations

import pytest
from aegis_sdk.contract.control import MethodSpec, Registration, Role
from aegis_sdk.contract.subjects import Subjects

from tests.unit.control.support import SERVICE, Office


async def test_an_active_owns_all_its_resources_by_one_entry() -> None:
    office = Office()
    names = [f"R{i}" for i in range(2_300)]
    assert (await office.registers("a", Role.ACTIVE, names)).ok
    assert {office.route(name) for name in names} == {"a 1 held"}
    assert office.own_log.numbers(SERVICE) == [1]
    assert office.events.last("lease_granted")["resources"] == names


async def test_a_second_active_is_refused_by_name_and_nothing_is_stored() -> None:
    """G5: the refusal leaves no trace of the second one."""
    office = Office()
    await office.registers("a", Role.ACTIVE, ["R1"])
    before = dict(office.registry.entries)
    reply = await office.registers("b", Role.ACTIVE, ["R1", "R9"])
    assert (reply.ok, reply.code) == (False, "second_active")
    assert "instance a is active for R1" in reply.message
    assert "standby or auto" in reply.message
    assert office.registry.entries == before
    assert len(office.leases.entries) == 1


async def test_while_the_active_is_doubted_a_second_one_is_asked_to_come_again() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    await office.passes(0.4)
    reply = await office.registers("b", Role.ACTIVE)
    assert (reply.ok, reply.code) == (False, "busy")
    assert 0 < reply.retry_after_s < 0.7
    await office.passes(0.4)
    assert (await office.registers("b", Role.ACTIVE)).ok
    assert office.route() == "b 2 held"


async def test_a_standby_follows_and_an_auto_takes_what_is_free() -> None:
    office = Office()
    await office.registers("s", Role.STANDBY)
    assert office.leases.entries == {}
    await office.registers("a", Role.AUTO)
    assert office.route() == "a 1 held"
    await office.registers("b", Role.AUTO)
    assert office.route() == "a 1 held"


async def test_registering_again_keeps_leases_and_epochs() -> None:
    """A reply that was lost on the way must not cost an epoch."""
    office = Office()
    await office.registers("a", Role.ACTIVE)
    revision = office.leases.revision
    assert (await office.registers("a", Role.ACTIVE, returning=True)).ok
    assert office.route() == "a 1 held"
    assert office.leases.revision == revision


async def test_a_new_run_of_the_same_instance_gets_a_new_epoch() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE, ["R1", "R2"])
    await office.registers("a", Role.ACTIVE, ["R1"], run="run2")
    assert office.route("R1") == "a 2 held"
    assert office.lease("R1").incarnation == "run2"
    assert office.route("R2") == "a 1 held"
    await office.registers("b", Role.STANDBY, ["R2"])
    assert office.route("R2") == "b 3 held"


async def test_the_older_of_two_runs_with_one_id_is_told_to_stay_away() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    await office.registers("a", Role.ACTIVE, run="run2")
    office.beats("a", run="run1")
    await office.settled()
    assert office.instances.sent[-1][1].incarnation == "run1"
    assert office.instances.kinds("a") == ["register"]
    reply = await office.registers("a", Role.ACTIVE, run="run1", returning=True)
    assert (reply.ok, reply.code) == (False, "evicted")
    assert "another run" in reply.message


async def test_a_standby_takes_over_an_orphan() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    await office.passes(1.0)
    assert office.route() == "a 1 waiting"
    await office.registers("b", Role.STANDBY)
    assert office.route() == "b 2 held"


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[1", b'{"service": "accounts"}'])
async def test_garbage_is_refused_in_words(garbage: bytes) -> None:
    reply = await Office().register(garbage)
    assert (reply.ok, reply.code) == (False, "invalid")
    assert reply.message


async def test_a_resource_name_that_can_not_be_is_refused() -> None:
    reply = await Office().registers("a", Role.ACTIVE, [""])
    assert (reply.code, "empty" in reply.message) == ("invalid", True)


async def test_when_the_log_can_not_be_written_the_instance_asks_again() -> None:
    office = Office()
    office.own_log.away = True
    reply = await office.registers("a", Role.ACTIVE)
    assert (reply.ok, reply.code) == (False, "busy")
    office.own_log.away = False
    assert (await office.registers("a", Role.ACTIVE)).ok
    assert (office.route(), office.told()) == ("a 1 held", "a 1")


async def test_after_the_lease_bucket_was_lost_epochs_go_on_from_the_log() -> None:
    """G5: an epoch must never restart, or an old active could commit again."""
    office = Office()
    await office.registers("a", Role.ACTIVE)
    office.leases.entries.clear()
    other = Office(office)
    await other.roster.refresh()
    await other.registers("a", Role.ACTIVE, run="run2")
    assert (other.route(), other.told()) == ("a 2 held", "a 2")


async def test_a_resource_that_another_replica_gave_away_first_stays_there() -> None:
    office = Office()
    await office.registers("b", Role.STANDBY)
    other = Office(office)
    await other.roster.refresh()
    await other.registers("x", Role.ACTIVE)
    await office.registers("a", Role.AUTO)
    assert (office.route(), office.told()) == ("x 1 held", "x 1")


async def test_the_service_is_known_after_its_last_instance_left() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    assert (await office.leaves("a")).ok
    keys = [key for key, entry in office.registry.entries.items() if entry.value]
    assert keys == [Subjects.logs_key(SERVICE), Subjects.service_key(SERVICE)]


async def test_one_wrong_program_does_not_change_the_contract_for_all_callers() -> None:
    office = Office()
    await office.registers("a")
    wrong = Registration(
        service=SERVICE,
        instance_id="wrong",
        incarnation="run1",
        methods=[MethodSpec(name="book", targeted=False), MethodSpec(name="more")],
    )
    reply = await office.register(wrong.model_dump_json().encode())
    assert (reply.ok, reply.code) == (False, "invalid")
    assert "'book' needs a resource at the other instances of accounts" in reply.message
    assert "wrong" not in office.state.services[SERVICE].members
    record = office.state.services[SERVICE].record
    assert record is not None
    assert [(method.name, method.targeted) for method in record.methods] == [("book", True)]
    await office.leaves("a")
    assert (await office.register(wrong.model_dump_json().encode())).ok


async def test_a_run_that_offers_a_resource_no_more_gives_it_up() -> None:
    """It stood back: its version can't tell the state. A standby takes it, or it is vacant."""
    office = Office()
    await office.registers("a", Role.ACTIVE, ("R1", "R2"))
    await office.registers("b", Role.STANDBY, ("R1",))
    office.beats("a", "b")
    assert (await office.registers("a", Role.AUTO, (), returning=True)).ok
    assert (office.route("R1"), office.route("R2")) == (
        "b 2 held",
        "a 3 vacant",
    )


async def test_a_run_that_takes_the_place_of_its_own_last_one_is_let_in() -> None:
    """Its log was lost before control noticed: to control its last run lives. A stranger's run is refused."""
    office = Office()
    await office.registers("a")
    office.beats("a")
    registration = Registration(
        service=SERVICE,
        instance_id="a",
        incarnation="run2",
        methods=[MethodSpec(name="book", targeted=True)],
        resources={"R1": Role.AUTO},
        returning=True,
    )
    reply = await office.register(registration.model_dump_json().encode())
    assert reply.code == "evicted"
    renewed = registration.model_copy(update={"renews": "run1"})
    assert (await office.register(renewed.model_dump_json().encode())).ok
    assert office.lease().incarnation == "run2"
