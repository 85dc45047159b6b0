"""Redriving and dropping dead letters, and the audit trail of what operators change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aegis_control.application.ports import RequestsFull
from aegis_sdk.contract.control import AdminReply, DriftView, Role
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.trace import trace_id

from tests.unit.control.support import SERVICE, Office

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def office_with_a_letter() -> Office:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    request = Request(
        "K.1", SERVICE, "book", "R1", b"[1]", deadline_s=5.0, chain=("x/Y",), traceparent=TRACE
    )
    office.letters.letters["K.1"] = DeadLetter(request, "gave_up", "begun 3 times")
    office.letters.outcomes[SERVICE, "K.1"] = Outcome.error(OutcomeKind.FAILED, "gave_up")
    return office


async def ask(office: Office, verb: str, **argument: Any) -> AdminReply:
    return await office.admin(verb, json.dumps(argument).encode())


async def test_redrive_sends_the_request_under_a_derived_id_and_forgets_the_letter() -> None:
    office = await office_with_a_letter()
    reply = await ask(office, "dlq-redrive", request_id="K.1")
    assert (reply.data["fate"], reply.data["new_request_id"]) == ("redriven", "K.1+1")
    [sent] = office.letters.sent
    assert (sent.request_id, sent.method, sent.resource, sent.payload) == (
        "K.1+1",
        "book",
        "R1",
        b"[1]",
    )
    assert (sent.deadline_s, sent.chain) == (None, ())
    assert trace_id(sent.traceparent) == trace_id(TRACE)
    assert office.letters.letters == {}


async def test_a_redrive_that_died_before_it_forgot_the_letter_sends_the_same_id_again() -> None:
    """G3: the id is the same, and says that it may have been sent before, so it has one effect."""
    office = await office_with_a_letter()
    office.letters.lose_drops = 1
    assert not (await ask(office, "dlq-redrive", request_id="K.1")).ok
    assert (await ask(office, "dlq-redrive", request_id="K.1")).ok
    first, second = office.letters.sent
    assert first.request_id == second.request_id == "K.1+1"
    assert first.attempt == second.attempt == 2


@pytest.mark.parametrize("dropped", [True, False])
async def test_a_redrive_whose_request_has_an_outcome_sends_nothing(dropped: bool) -> None:
    """G3: it was redriven before; a second effect would follow."""
    office = await office_with_a_letter()
    office.letters.outcomes[SERVICE, "K.1+1"] = Outcome(OutcomeKind.EXECUTED, b"1")
    if dropped:
        office.letters.letters.clear()
    reply = await ask(office, "dlq-redrive", request_id="K.1")
    assert reply.data["fate"] == "already_redriven"
    assert (office.letters.sent, office.letters.letters) == ([], {})


async def test_a_letter_whose_request_was_executed_in_the_end_is_not_sent_again() -> None:
    """G3: a letter may be older than its request's end."""
    office = await office_with_a_letter()
    office.letters.outcomes[SERVICE, "K.1"] = Outcome(OutcomeKind.EXECUTED, b"1")
    reply = await ask(office, "dlq-redrive", request_id="K.1")
    assert (reply.code, office.letters.sent) == ("refused", [])


async def test_a_full_request_stream_keeps_the_letter() -> None:
    office = await office_with_a_letter()
    office.letters.full = True
    reply = await ask(office, "dlq-redrive", request_id="K.1")
    assert reply.code == "refused"
    assert str(RequestsFull("the requests of accounts")) in reply.message
    assert "K.1" in office.letters.letters


@pytest.mark.parametrize("verb", ["dlq-redrive", "dlq-drop"])
async def test_a_dry_run_changes_and_records_nothing(verb: str) -> None:
    office = await office_with_a_letter()
    reply = await ask(office, verb, request_id="K.1", dry_run=True)
    assert (reply.ok, reply.data["dry_run"]) == (True, True)
    assert (office.letters.sent, list(office.letters.letters)) == ([], ["K.1"])
    assert "operator_change" not in office.events.names()


@pytest.mark.parametrize("verb", ["dlq-redrive", "dlq-drop"])
@pytest.mark.parametrize(
    ("request_id", "code"),
    [("K.2", "not_found"), ("*.>", "invalid"), ("K.>", "invalid"), ("K", "invalid")],
)
async def test_what_is_no_dead_letter_is_said_with_a_code(
    verb: str, request_id: str, code: str
) -> None:
    office = await office_with_a_letter()
    assert (await ask(office, verb, request_id=request_id)).code == code
    assert list(office.letters.letters) == ["K.1"]


async def test_drop_forgets_the_letter_and_nothing_else() -> None:
    office = await office_with_a_letter()
    assert (await ask(office, "dlq-drop", request_id="K.1")).data["fate"] == "dropped"
    assert (office.letters.sent, office.letters.letters) == ([], {})
    assert (SERVICE, "K.1") in office.letters.outcomes


# --- the audit trail ---------------------------------------------------------------------------------
async def test_every_change_is_recorded_with_who_what_and_the_result() -> None:
    office = await office_with_a_letter()
    await office.registers("b", Role.STANDBY)
    office.beats("a", "b")
    orders: list[tuple[str, dict[str, Any]]] = [
        ("failover", {"resources": ["R1"], "to": "b"}),
        ("drain", {"instance_id": "a"}),
        ("disconnect", {"instance_id": "b"}),
        ("dlq-drop", {"request_id": "K.1"}),
    ]
    for verb, argument in orders:
        assert (await ask(office, verb, by="eve", reason="test", **argument)).ok, verb
        recorded = office.events.last("operator_change")
        expected = {"verb": verb, "by": "eve", "ok": True, "reason": "test"} | argument
        assert recorded.items() >= expected.items()
        assert recorded["result"]


async def test_a_refused_change_is_recorded_too() -> None:
    office = await office_with_a_letter()
    await ask(office, "failover", resources=["R1"], by="eve")
    recorded = office.events.last("operator_change")
    assert (recorded["ok"], recorded["error_code"]) == (False, "refused")
    assert recorded["result"] == "no live standby follows 'R1'"


async def test_a_change_that_broke_is_recorded_before_the_error_goes_on() -> None:
    office = await office_with_a_letter()

    async def break_it(_: str) -> None:
        raise RuntimeError("broken")

    office.letters.find = break_it  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError, match="broken"):
        await ask(office, "dlq-drop", request_id="K.1", by="eve")
    assert office.events.last("operator_change")["ok"] is False


async def test_looking_is_not_recorded() -> None:
    office = await office_with_a_letter()
    for verb in ("status", "list-services", "checkup"):
        assert (await ask(office, verb)).ok
    assert "operator_change" not in office.events.names()


# --- what else operators see -------------------------------------------------------------------------
async def test_a_grant_tells_each_epoch_and_whom_it_fenced() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE, ("R1", "R2"))
    await office.registers("b", Role.STANDBY, ("R1", "R2"))
    office.beats("a", "b")
    assert "instance_fenced" not in office.events.names()
    await ask(office, "failover", resources=["R2"], to="b")
    assert office.events.last("lease_granted")["epochs"] == {"R2": 2}
    fenced = office.events.last("instance_fenced")
    assert (fenced["instance_id"], fenced["resources"]) == ("a", ["R2"])


async def test_checkup_tells_drift_and_resources_that_nobody_could_take_over() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE, ("R1", "R2"))
    await office.registers("b", Role.STANDBY, ("R2",))
    office.checkup.found = [DriftView(name=SERVICE, setting="max_age", found=1, wanted=2)]
    view = (await ask(office, "checkup")).data
    assert view["lonely"] == [{"service": SERVICE, "resources": 1, "examples": ["R1"]}]
    assert [drift["setting"] for drift in view["drift"]] == ["max_age"]
    assert view["servers"] is None


async def test_an_instances_clock_is_compared_with_controls() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    office.beats("a")
    assert office.member("a").clock_offset_s is None
    office.beats("a", wall_s=office.clock.now_s + 2.5)
    [view] = (await ask(office, "describe-instance", instance_id="a")).data
    assert view["clock_offset_s"] == 2.5
