"""A resource that an operator ends for good: what is refused, what the log says, and what brings it back."""

from __future__ import annotations

import json

import pytest
from aegis_control.entrypoints.cli.endings import _show
from aegis_sdk.contract.control import AdminReply, LeaseState, Retired, Role

from tests.unit.control.support import SERVICE, Office


async def retires(office: Office, resource: str = "R1", *, dry_run: bool = False) -> AdminReply:
    order = {"resource": resource, "by": "ann", "dry_run": dry_run}
    return await office.admin("retire", json.dumps(order).encode())


async def vacant_office() -> Office:
    """R1 is nobody's, R2 is served."""
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    await office.registers("b", Role.AUTO, ["R2"])
    await office.leaves("a")
    assert office.route("R1") == "a 3 vacant"
    return office


async def test_a_resource_that_somebody_offers_is_not_retired() -> None:
    office = await vacant_office()
    reply = await retires(office, "R2")
    assert (reply.ok, reply.code) == (False, "refused")
    assert "'R2' is offered by b: have it removed there" in reply.message


async def test_a_resource_that_requests_wait_for_is_not_retired() -> None:
    office = await vacant_office()
    office.requests.stored = ["K.1", "K.2"]
    reply = await retires(office)
    assert (reply.ok, reply.code) == (False, "refused")
    assert "2 stored requests wait for 'R1', K.1 first" in reply.message
    assert office.route("R1") == "a 3 vacant"


async def test_one_that_another_leader_was_faster_than_is_not_said_to_be_retired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = await vacant_office()
    await office.registers("c", Role.AUTO, ["R2"])
    other = Office(office)
    await other.roster.refresh()
    other.beats("b", "c")
    look = office.requests.open

    async def open_while_another_leads(service: str, resource: str) -> list[str]:
        if not other.events.seen:
            await other.granting.give(other.state.services[SERVICE], {"c": ["R2"]}, reason="spread")
        return await look(service, resource)

    monkeypatch.setattr(office.requests, "open", open_while_another_leads)
    assert not (await retires(office)).ok
    assert office.told("R1") == " 3"
    assert (await retires(office)).ok
    assert office.lease("R1").state is LeaseState.RETIRED


async def test_a_retired_resource_is_not_vacant_and_nobody_is_looked_for() -> None:
    office = await vacant_office()
    dry = await retires(office, dry_run=True)
    assert dry.ok
    assert office.route("R1") == "a 3 vacant"
    reply = await retires(office)
    assert reply.ok
    assert reply.data["epoch"] == 4
    assert office.route("R1") == "a 4 retired"
    await office.reconcile()
    assert office.route("R1") == "a 4 retired"
    status = await office.admin("status", b"")
    assert status.data["resources"] == {"retired": 1, "held": 1}
    assert (await retires(office)).data["epoch"] == 4  # twice is once


async def test_a_new_leader_with_empty_leases_knows_from_the_log_that_it_is_retired() -> None:
    office = await vacant_office()
    await retires(office)
    office.leases.entries.clear()
    after = Office(office)
    await after.roster.refresh()
    await after.reconcile()
    await after.settled()
    assert after.route("R1").endswith("4 retired")


async def test_who_offers_it_later_brings_it_back() -> None:
    office = await vacant_office()
    await retires(office)
    await office.registers("c", Role.AUTO, ["R1"])
    assert office.route("R1") == "c 5 held"
    await office.leaves("c")
    assert office.route("R1") == "c 6 vacant"


async def test_what_is_unknown_is_not_found() -> None:
    office = await vacant_office()
    reply = await retires(office, "R9")
    assert (reply.ok, reply.code) == (False, "not_found")


def test_the_final_state_is_printed_as_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """What is pasted elsewhere has to be read there; a control character of a value does nothing to the terminal."""
    state = {"AAPL": {"quantity": 60}, "note": "\x1b[31mred\nline"}
    _show(Retired(service="desk", resource="ACC-1", epoch=3, outcomes=2, state=state))
    said, of, *json_ = capsys.readouterr().out.splitlines()
    assert (said, of) == (
        "ACC-1 of desk has ended",
        "after 2 outcomes, in epoch 3; its state:",
    )
    assert json.loads("\n".join(json_)) == state
    assert len(json_) == 6
