"""Instances that fail, leave, stall and come back: who has the lease then, and at which epoch."""

from __future__ import annotations

import pytest
from aegis_sdk.contract.control import InstanceState, Role
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.errors import Unavailable

from tests.unit.control.support import SERVICE, Office


async def pair(resources: tuple[str, ...] = ("R1",)) -> Office:
    """`a` is active, `b` stands by."""
    office = Office()
    await office.registers("a", Role.ACTIVE, resources)
    await office.registers("b", Role.STANDBY, resources)
    office.beats("a", "b")
    return office


async def test_a_silent_active_is_replaced_within_the_timeout() -> None:
    office = await pair()
    await office.passes(0.65, "b")
    assert office.route() == "a 1 held"
    await office.passes(0.15, "b")
    assert (office.route(), office.told()) == ("b 2 held", "b 2")
    assert office.member("a").record.state is InstanceState.LOST
    assert office.events.last("failover_done")["to"] == ["b"]
    assert office.events.last("instance_lost")["reason"] == "heartbeats_missed"


async def test_without_a_standby_the_return_is_awaited_and_keeps_the_epoch() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    await office.passes(1.0)
    assert office.route() == "a 1 waiting"
    await office.passes(0.1, "a")
    assert office.route() == "a 1 held"
    assert office.member("a").record.state is InstanceState.LIVE
    assert office.own_log.seq == 1


async def test_without_a_return_within_the_grace_the_resource_is_vacant() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    await office.passes(29.0)
    await office.reconcile()
    assert office.route() == "a 1 waiting"
    await office.passes(2.0)
    await office.reconcile()
    assert office.route() == "a 2 vacant"
    assert "a" not in office.state.services[SERVICE].members


async def test_one_who_lost_its_leases_must_register_again() -> None:
    office = await pair()
    await office.passes(0.8, "b")
    await office.passes(0.5, "a", "b")
    assert office.instances.kinds("a") == ["register"]
    assert office.member("a").record.state is InstanceState.LOST
    assert (await office.registers("a", Role.ACTIVE, returning=True)).ok
    assert office.route() == "b 2 held"
    await office.passes(1.0, "a")
    assert office.route() == "a 3 held"


async def test_a_stalled_active_is_replaced_and_stands_by_when_it_wakes() -> None:
    office = await pair()
    office.beats("b")
    office.beats("a", loop_lag_s=5.5)
    await office.settled()
    assert (office.route(), office.member("a").record.state) == ("b 2 held", InstanceState.STALLED)
    office.beats("a")
    await office.settled()
    assert office.member("a").record.state is InstanceState.LIVE
    await office.passes(1.0, "a")
    assert office.route() == "a 3 held"


async def test_a_stalled_active_without_a_standby_keeps_its_resource() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    office.beats("a", loop_lag_s=9.0)
    await office.settled()
    await office.reconcile()
    assert office.route() == "a 1 held"
    await office.registers("b", Role.STANDBY)
    assert office.route() == "b 2 held"


async def test_resources_spread_over_equal_standbys() -> None:
    names = tuple(f"R{i}" for i in range(10))
    office = await pair(names)
    await office.registers("c", Role.STANDBY, names)
    await office.passes(0.8, "b", "c")
    owners = [office.lease(name).owner for name in names]
    assert sorted(owners) == ["b"] * 5 + ["c"] * 5


async def test_the_standby_with_the_least_lag_takes_over() -> None:
    office = await pair()
    await office.registers("c", Role.STANDBY)
    await office.passes(0.6, "b", "c")
    office.beats("b", lag_entries=10)
    office.beats("c", lag_entries=3)
    office.clock.now_s += 0.12
    office.watch.tick()
    await office.settled()
    assert office.route() == "c 2 held"


async def test_a_draining_or_silent_standby_is_not_chosen() -> None:
    office = await pair()
    await office.registers("c", Role.STANDBY)
    assert (await office.admin("drain", b'{"instance_id": "b"}')).ok
    await office.passes(0.8, "b")
    assert office.route() == "a 1 waiting"


async def test_both_connections_closed_is_death_without_waiting() -> None:
    office = await pair()
    office.beats("a", "b")
    office.watch.closed("a.main", "Client Closed")
    await office.settled()
    assert office.route() == "a 1 held"
    office.watch.closed("a.pulse", "Client Closed")
    await office.settled()
    assert office.route() == "b 2 held"
    assert office.events.last("failover_done")["reason"] == "connection_closed"


async def test_connections_that_no_heartbeat_names_are_strangers() -> None:
    """Whatever they are called: somebody of another account, or another program of ours."""
    office = await pair()
    office.beats("a", "b")
    for session in ("other.1", "other.2", "a.main"):
        office.watch.closed(session, "Client Closed")
    await office.settled()
    assert office.route() == "a 1 held"


async def test_a_heartbeat_that_was_slower_than_the_news_of_the_death_revives_nobody() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    office.beats("a")
    for kind in ("main", "pulse"):
        office.watch.closed(f"a.{kind}", "Client Closed")
    office.beats("a")
    await office.settled()
    assert office.route() == "a 1 waiting"
    office.beats("a", connected="again")
    await office.settled()
    assert office.route() == "a 1 held"


async def test_leaving_hands_over_before_it_is_acknowledged() -> None:
    office = await pair()
    ack = await office.leaves("a")
    assert ack.ok
    assert (office.route(), office.told()) == ("b 2 held", "b 2")
    assert (await office.leaves("a")).ok
    assert (await office.leaves("b")).ok
    assert office.route() == "b 3 vacant"


async def test_a_resource_left_vacant_goes_to_the_next_who_comes() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    await office.leaves("a")
    await office.registers("b", Role.STANDBY)
    assert office.route() == "b 3 held"


async def test_a_new_leader_waits_a_full_timeout_and_then_finishes_what_is_left() -> None:
    office = await pair()
    office.clock.now_s += 100.0
    successor = Office(office)
    await successor.roster.refresh()
    await successor.reconcile()
    await successor.passes(0.6, "b")
    assert successor.route() == "a 1 held"
    await successor.passes(0.2, "b")
    assert (successor.route(), successor.told()) == ("b 2 held", "b 2")


async def test_a_new_leader_does_not_choose_whom_it_never_heard() -> None:
    office = await pair()
    await office.registers("aa", Role.STANDBY)
    successor = Office(office)
    await successor.roster.refresh()
    successor.beats("a")
    await successor.passes(0.5, "b")
    for kind in ("main", "pulse"):
        successor.watch.closed(f"a.{kind}", "Client Closed")
    await successor.settled()
    assert successor.route() == "b 2 held"


async def test_an_old_leader_that_wakes_up_undoes_nothing() -> None:
    """Its writes carry revisions that are gone."""
    office = await pair()
    await office.registers("c", Role.STANDBY)
    successor = Office(office)
    await successor.roster.refresh()
    successor.beats("b")
    await successor.passes(0.9, "b")
    assert successor.route() == "b 2 held"
    # The old one believes that `a` holds the lease, and would give it to `c`.
    table = office.state.services[SERVICE]
    assert table.leases["R1"].record.owner == "a"
    async with table.lock:
        moved = await office.granting.grant(table, ["R1"], office.member("c"), reason="late")
    assert moved == []
    assert (office.route(), office.told()) == ("b 2 held", "b 2")
    assert table.leases["R1"].record.owner == "b"


async def test_heartbeats_that_lay_unread_count_before_anybody_is_judged() -> None:
    office = await pair()
    office.hearing.unread.append(lambda: office.beats("a", "b"))
    office.clock.now_s += 1.0
    office.watch.tick()
    await office.settled()
    assert office.route() == "a 1 held"


async def test_control_that_is_cut_off_judges_nobody() -> None:
    office = await pair()
    office.hearing.away = True
    office.clock.now_s += 1.0
    office.watch.tick()
    with pytest.raises(Unavailable):
        await office.settled()
    assert office.route() == "a 1 held"
    office.hearing.away = False
    await office.passes(0.1, "b")
    assert office.route() == "b 2 held"


async def test_control_that_slept_itself_judges_nobody_by_the_past() -> None:
    office = await pair()
    office.clock.now_s += 10.0
    office.watch.forgive()
    office.watch.tick()
    await office.settled()
    assert office.route() == "a 1 held"


async def test_reconciling_twice_changes_nothing() -> None:
    office = await pair(("R1", "R2"))
    await office.reconcile()
    before = (office.leases.revision, office.registry.revision, office.own_log.seq)
    await office.reconcile()
    assert (office.leases.revision, office.registry.revision, office.own_log.seq) == before


async def test_an_instance_that_control_forgot_is_told_to_register_once_a_second() -> None:
    office = await pair()
    stranger = Office()
    await stranger.passes(2.5, "a")
    assert stranger.instances.kinds("a") == ["register"] * 3
    assert office.instances.kinds("a") == []


async def test_a_deleted_record_that_is_read_late_seats_nobody() -> None:
    office = await pair()
    stale = [await office.registry.read(Subjects.instance_key(SERVICE, "a"))]
    await office.leaves("a")
    assert stale[0] is not None
    office.roster._intake.registry_entry(stale[0])
    assert "a" not in office.state.services[SERVICE].members
