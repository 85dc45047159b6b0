"""What operators pause: what the log says, who has to read it, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aegis_control.domain.leading.owning import StoredGate, StoredMoves
from aegis_sdk.contract.control import AdminReply, Role
from aegis_sdk.contract.turns.holds import HOLDS_MAX

from tests.unit.control.support import SERVICE, Office


async def asks(office: Office, verb: str, target: str, **more: Any) -> AdminReply:
    order = {"target": target, "by": "ann", "reason": "wrong prices"} | more
    return await office.admin(verb, json.dumps(order).encode())


async def an_office() -> Office:
    """`a` serves R1, and `b` R2; both have read all there is."""
    office = Office()
    await office.registers("a", Role.AUTO, ["R1"])
    await office.registers("b", Role.AUTO, ["R2"])
    knows(office, "a", "b")
    return office


def knows(office: Office, *names: str, running: int = 0) -> None:
    """They say that they know what is paused by any entry that there may be."""
    office.beats(*names, own_number=1_000, held_running=running)


def gates(office: Office, after: int) -> list[str]:
    entries = office.own_log.entries[SERVICE]
    return [e.writer for e in entries if isinstance(e, StoredGate) and e.seq > after]


def holds(office: Office) -> list[list[str]]:
    """What each ownership entry says is paused."""
    entries = office.own_log.entries[SERVICE]
    return [sorted(e.moves.holds) for e in entries if isinstance(e, StoredMoves)]


async def test_the_log_says_it_and_every_writer_concerned_is_shut_out_behind_it() -> None:
    office = await an_office()
    before = office.own_log.seq
    reply = await asks(office, "pause", "R1")
    assert reply.ok, reply.message
    assert reply.data["pause"] | {"since": 0.0} == {
        "service": SERVICE,
        "what": "R1",
        "resource": "R1",
        "method": None,
        "since": 0.0,
        "by": "ann",
        "reason": "wrong prices",
    }
    assert holds(office)[-1] == ["@R1"]
    assert gates(office, before) == ["a~run1"]
    before = office.own_log.seq
    await asks(office, "pause", f"{SERVICE}/book")
    assert holds(office)[-1] == ["/book", "@R1"]
    assert gates(office, before) == ["a~run1", "b~run1"]


async def test_each_later_entry_repeats_it_until_it_is_resumed() -> None:
    office = await an_office()
    await asks(office, "pause", SERVICE)
    await office.registers("c", Role.AUTO, ["R3"])
    assert holds(office)[-2:] == [[""], [""]]
    assert (await asks(office, "resume", SERVICE)).ok
    await office.registers("d", Role.AUTO, ["R4"])
    assert holds(office)[-2:] == [[], []]


async def test_the_next_leader_knows_it_from_the_log() -> None:
    office = await an_office()
    await asks(office, "pause", "R1")
    after = Office(office)
    await after.roster.refresh()
    await after.reconcile()
    status = await after.admin("status", b"")
    assert [pause["what"] for pause in status.data["paused"]] == ["R1"]


async def test_a_log_that_lost_it_begins_again_with_what_is_kept_beside_it() -> None:
    office = await an_office()
    await asks(office, "pause", "R1")
    office.own_log.entries[SERVICE] = []
    table = office.state.services[SERVICE]
    await office.granting.begin_again(table, {}, log_id="log-2")
    await office.registers("c", Role.AUTO, ["R3"])
    assert holds(office)[-1] == ["@R1"]


async def test_the_answer_waits_for_each_instance_that_runs() -> None:
    office = await an_office()
    office.beats("a", "b")  # they have read nothing of it
    asked = asyncio.create_task(asks(office, "pause", "R1"))
    await asyncio.sleep(0.1)
    assert not asked.done()
    knows(office, "a")
    await asyncio.sleep(0.1)
    assert not asked.done()
    knows(office, "b", running=2)
    reply = await asked
    assert (reply.data["unconfirmed"], reply.data["asleep"]) == ([], [])
    assert reply.data["running"] == 2


async def test_one_that_runs_and_does_not_say_so_is_named() -> None:
    office = await an_office()
    office.beats("a", "b")
    asked = asyncio.create_task(asks(office, "pause", "R1"))
    await asyncio.sleep(0.1)
    knows(office, "b")
    office.clock.now_s += 3.0
    await asyncio.sleep(0.1)
    assert not asked.done()
    office.clock.now_s += 1.0
    reply = await asked
    assert reply.ok
    assert reply.data["unconfirmed"] == ["a"]


async def test_one_that_sleeps_is_waited_for_until_it_doubts_by_itself() -> None:
    office = await an_office()
    office.beats("a", "b")
    await office.passes(1.0, "b")
    assert office.member("a").record.state == "lost"
    knows(office, "b")
    asked = asyncio.create_task(asks(office, "pause", "R2"))
    await asyncio.sleep(0.1)
    office.clock.now_s += 2.0
    await asyncio.sleep(0.1)
    assert not asked.done()
    office.clock.now_s += 1.0
    reply = await asked
    assert (reply.data["unconfirmed"], reply.data["asleep"]) == ([], ["a"])


async def test_twice_is_once() -> None:
    office = await an_office()
    await asks(office, "pause", "R1")
    office.clock.now_s += 5.0
    again = await asks(office, "pause", "R1", by="bob")
    assert (again.data["was_so"], again.data["pause"]["by"]) == (True, "ann")
    assert again.data["pause"]["since"] == 1_000.0
    assert (await asks(office, "resume", "R1")).data["was_so"] is False
    assert (await asks(office, "resume", "R1")).data["was_so"] is True
    assert [n for n in office.events.names() if "traffic" in n] == [
        "traffic_paused",
        "traffic_resumed",
    ]
    assert office.events.last("traffic_resumed")["duration_s"] == 5.0


async def test_a_dry_run_changes_nothing() -> None:
    office = await an_office()
    entries = list(office.own_log.entries[SERVICE])
    assert (await asks(office, "pause", "R1", dry_run=True)).data["dry_run"]
    assert (await asks(office, "resume", "R1", dry_run=True)).data["was_so"]
    assert office.own_log.entries[SERVICE] == entries


@pytest.mark.parametrize(
    ("target", "more", "code", "says"),
    [
        ("R9", {}, "not_found", "give RESOURCE, SERVICE or SERVICE/METHOD (services: accounts)"),
        ("accounts/bok", {}, "not_found", "accounts has no method 'bok': it handles book"),
        ("R1", {"service": "orders"}, "not_found", "'R1' is no resource"),
        ("accounts", {"service": "accounts"}, "not_found", "'accounts' is no resource"),
    ],
)
async def test_a_wrong_name_is_told_with_what_there_is(
    target: str, more: dict[str, str], code: str, says: str
) -> None:
    office = await an_office()
    for verb in ("pause", "resume"):
        reply = await asks(office, verb, target, **more)
        assert (reply.ok, reply.code) == (False, code)
        assert says in reply.message


async def test_a_name_of_a_service_and_a_resource_has_to_be_told_apart() -> None:
    office = Office()
    await office.registers("a", Role.AUTO, [SERVICE])
    knows(office, "a")
    reply = await asks(office, "pause", SERVICE)
    assert (reply.ok, reply.code) == (False, "invalid")
    assert "say --service" in reply.message
    assert (await asks(office, "pause", SERVICE, service=SERVICE)).ok
    assert holds(office)[-1] == [f"@{SERVICE}"]


async def test_there_is_a_bound() -> None:
    office = Office()
    names = [f"R{n}" for n in range(HOLDS_MAX + 1)]
    await office.registers("a", Role.AUTO, names)
    knows(office, "a")
    for name in names[:-1]:
        assert (await asks(office, "pause", name)).ok
    reply = await asks(office, "pause", names[-1])
    assert (reply.ok, reply.code) == (False, "refused")


async def test_a_gate_that_nobody_acknowledged_is_no_pause_yet_and_asking_again_is_enough() -> None:
    office = await an_office()

    async def silent(service: str, writers: list[str]) -> list[None]:
        return [None for _ in writers]

    office.own_log.shut_out, kept = silent, office.own_log.shut_out  # type: ignore[assignment,method-assign]
    assert (await asks(office, "pause", "R1")).code == "internal"
    office.own_log.shut_out = kept  # type: ignore[method-assign]
    before = office.own_log.seq
    assert (await asks(office, "pause", "R1")).ok
    assert gates(office, before) == ["a~run1"]
