"""A service that an operator removes from everywhere: what is refused, what goes in which order, and how it begins again."""

from __future__ import annotations

import json

import pytest
from aegis_control.entrypoints.cli.endings import _show_forgotten
from aegis_control.infrastructure.metrics import _system
from aegis_sdk.contract.control import AdminReply, Forgotten, InstanceState, Role

from tests.unit.control.support import SERVICE, Office


async def forgets(office: Office, *, service: str = SERVICE, dry_run: bool = False) -> AdminReply:
    order = {"service": service, "by": "ann", "dry_run": dry_run}
    return await office.admin("forget", json.dumps(order).encode())


async def left_office() -> Office:
    """A service that was tried once: its only instance has left."""
    office = Office()
    await office.registers("a", Role.AUTO, ["R1", "R2"])
    await office.leaves("a")
    return office


def keys(office: Office) -> list[str]:
    buckets = (office.registry, office.leases)
    return [e.key for b in buckets for e in b.entries.values() if e.value is not None]


async def test_nothing_is_left_of_it_and_its_name_begins_anew() -> None:
    office = await left_office()
    reply = await forgets(office)
    assert reply.data == {
        "service": SERVICE,
        "streams": {"AEGIS_REQ_accounts": 7, "AEGIS_EVT_accounts": 7, "AEGIS_JOURNAL_accounts": 7},
        "leases": 2,
        "records": 2,
        "dead_letters": 0,
        "dry_run": False,
    }
    assert keys(office) == []
    assert office.logs.removed == [
        "AEGIS_REQ_accounts",
        "AEGIS_EVT_accounts",
        "AEGIS_JOURNAL_accounts",
    ]
    office.own_log.entries.clear()
    office.logs.sights.clear()
    await office.roster.refresh()
    await office.reconcile()
    await office.parts.logs.check(office.state.services[SERVICE])
    assert office.state.known() == []
    assert keys(office) == []
    assert (await office.registers("b")).ok
    assert office.route() == "b 1 held"
    assert office.requests.provisioned == [SERVICE, SERVICE]


async def test_a_dry_run_counts_and_changes_nothing() -> None:
    office = await left_office()
    before = keys(office)
    reply = await forgets(office, dry_run=True)
    assert (reply.ok, reply.data["leases"]) == (True, 2)
    assert (keys(office), office.logs.removed, office.requests.closed) == (before, [], False)
    assert "operator_change" not in office.events.names()


async def test_it_is_recorded_who_forgot_what() -> None:
    office = await left_office()
    await forgets(office)
    told = office.events.last("operator_change")
    assert (told["verb"], told["by"], told["service"]) == ("forget", "ann", SERVICE)
    assert told["result"] == "3 streams with 21 messages, 2 leases"


async def test_it_is_refused_while_an_instance_is_registered() -> None:
    office = await left_office()
    await office.registers("b", resources=["R1"])
    reply = await forgets(office)
    assert (reply.ok, reply.code) == (False, "refused")
    assert "b of accounts is registered: drain" in reply.message


async def test_one_that_was_disconnected_counts_until_it_is_silent() -> None:
    office = await left_office()
    await office.registers("b", resources=["R1"])
    await office.admin("disconnect", b'{"instance_id": "b"}')
    assert office.member("b").record.state is InstanceState.EVICTED
    assert (await forgets(office)).code == "refused"
    office.clock.now_s += 31.0
    reply = await forgets(office)
    assert (reply.ok, reply.data["records"]) == (True, 3)
    assert keys(office) == []


async def test_an_instance_record_that_can_not_be_read_is_somebodys() -> None:
    office = await left_office()
    office.registry.put(f"instance.{SERVICE}.newer", b'{"protocol": "of tomorrow"}')
    reply = await forgets(office)
    assert (reply.code, "newer of accounts is registered" in reply.message) == ("refused", True)


async def test_it_is_refused_while_a_request_waits_also_one_that_came_just_now() -> None:
    office = await left_office()
    before = keys(office)
    office.requests.stored = ["K.1", "K.2"]
    reply = await forgets(office)
    assert reply.code == "refused"
    assert "2 stored requests of accounts have no outcome, K.1 first" in reply.message
    office.requests.stored, office.requests.late = [], ["K.3"]
    assert "K.3 first" in (await forgets(office)).message
    assert (office.requests.closed, keys(office)) == (False, before)


async def test_what_was_never_here_is_not_found() -> None:
    office = await left_office()
    assert (await forgets(office, service="No Name")).code == "invalid"
    assert (await forgets(office)).ok
    reply = await forgets(office)
    assert (reply.code, reply.message) == (
        "not_found",
        "nothing is here of a service 'accounts'",
    )


@pytest.mark.parametrize("dies_at", ["leases", "streams"])
async def test_what_was_cut_off_is_forgotten_by_the_next_leader(dies_at: str) -> None:
    office = await left_office()
    if dies_at == "leases":
        office.leases.lose_acks = 1
    else:
        office.logs.away = True
    assert (await forgets(office)).code == "internal"
    after = Office(office)
    await after.roster.refresh()
    await after.reconcile()
    assert [service["service"] for service in (await after.admin("list-services", b"")).data] == [
        SERVICE
    ]
    assert (await forgets(after)).ok
    assert keys(after) == []


async def test_what_was_cut_off_is_forgotten_by_the_same_leader_or_served_again() -> None:
    office = await left_office()
    office.logs.away = True
    assert (await forgets(office)).code == "internal"
    await office.roster.refresh()
    await office.reconcile()
    assert (await office.registers("b")).ok
    await office.leaves("b")
    office.logs.away = False
    assert (await forgets(office)).ok
    assert keys(office) == []


async def test_a_later_leader_does_not_know_its_name_any_more() -> None:
    """Else it would have a service without instances in the metrics, and in the alerts."""
    office = await left_office()
    await forgets(office)
    after = Office(office)
    await after.roster.refresh()
    assert after.state.services == {}
    assert [m for m in _system(office.state.known()) if m.samples] == []


async def test_another_replica_writes_while_it_is_forgotten_and_it_says_so() -> None:
    office = await left_office()
    load = office.registry.load

    async def late(*, after: int = 0, again: bool = False) -> object:
        found = await load(after=after, again=again)
        office.registry.put(f"service.{SERVICE}", b"{}")
        return found

    office.registry.load = late  # type: ignore[method-assign, assignment]
    reply = await forgets(office)
    assert (reply.code, "forget the service again" in reply.message) == ("internal", True)
    office.registry.load = load  # type: ignore[method-assign]
    assert (await forgets(office)).ok


def test_what_went_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    _show_forgotten(
        Forgotten(
            service="desk",
            streams={"AEGIS_REQ_desk": 0, "AEGIS_JOURNAL_desk": 12},
            leases=3,
            records=2,
            dead_letters=1,
            dry_run=True,
        )
    )
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "dry run: desk would be forgotten"
    assert "12 messages" in out
