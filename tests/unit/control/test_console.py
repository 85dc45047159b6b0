"""What the console page is told: documents of a bounded size, made once however many look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aegis_control.application.operators.console import (
    EVENTS_MAX,
    Action,
    Console,
    Letter,
    Replica,
    Shelf,
    Timeline,
)
from aegis_control.application.operators.history import History
from aegis_control.application.ports import Backlog
from aegis_control.domain.operators.alarms import Part
from aegis_control.domain.operators.health import Level
from aegis_sdk.contract.control import AdminReply, EventRecord, InstanceState, Role
from aegis_sdk.errors import Unavailable

from tests.unit.control.support import SERVICE, Office


@dataclass
class Desk:
    """A console whose leader is an Office in memory; `away`: nobody leads."""

    office: Office = field(default_factory=Office)
    away: bool = False
    connected: bool = True
    asked: list[str] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    backlogs: list[list[str]] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    letters_read: int = 0

    def console(self, **options: Any) -> Console:
        return Console(
            ask=self.ask,
            shelf=cast(Shelf, self),
            backlog=self.backlog,
            history=History().find,
            replica=lambda: Replica("control-1", "0", "aegis", self.connected, "control-1"),
            clock=self.office.clock,
            actions=True,
            **options,
        )

    async def ask(self, verb: str, data: bytes) -> AdminReply:
        self.asked.append(verb)
        if data:
            self.orders.append(json.loads(data))
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("no replica of control leads")
        return await self.office.admin(verb, data)

    async def backlog(self, services: Sequence[str]) -> Backlog:
        self.backlogs.append(list(services))
        return Backlog({(SERVICE, "any"): 2, (SERVICE, "at"): 5}, dead_letters=1)

    async def newest_letters(self, most: int) -> list[Letter]:
        self.letters_read += 1
        return self.letters[:most]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def find(desk: Desk, **wanted: Any) -> Any:
    reply = await desk.console().resources(json.dumps(wanted).encode())
    assert reply.ok, reply.message
    return reply.data


# --- overview ------------------------------------------------------------------------------------------


async def test_the_overview_counts_resources_and_names_instances(desk: Desk) -> None:
    await desk.office.registers("a", resources=["R1", "R2"])
    await desk.office.registers("b", resources=["R1"])
    console = desk.console()
    now = await console.overview()
    assert now.services is not None
    [service] = now.services
    assert [(i.instance_id, i.active, i.standby) for i in service.instances] == [
        ("a", 2, 0),
        ("b", 0, 1),
    ]
    assert service.leases == {"held": 2, "waiting": 0, "vacant": 0, "retired": 0, "idle": 0}
    assert service.unfollowed == 1
    assert (now.leader, now.actions, now.why) == ("control-1", True, "")


async def test_many_pages_cost_one_question_in_its_time(desk: Desk) -> None:
    console = desk.console()
    await asyncio.gather(*(console.overview() for _ in range(100)))
    assert desk.asked == ["overview"]
    desk.office.clock.now_s += 1.0
    await console.overview()
    assert desk.asked == ["overview"] * 2


async def test_the_streams_are_read_beside_it_and_only_while_somebody_looks(desk: Desk) -> None:
    await desk.office.registers("a")
    console = desk.console()
    first = await console.overview()
    assert first.services is not None
    assert (first.services[0].depth, first.dead_letters) == (None, None)
    await asyncio.sleep(0)
    desk.office.clock.now_s += 1.0
    then = await console.overview()
    assert then.services is not None
    assert (then.services[0].depth, then.dead_letters) == (7, 1)
    assert desk.backlogs == [[SERVICE]]
    assert Part.LETTERS in [alarm.part for alarm in then.alarms]


async def test_without_a_leader_the_page_is_told_why(desk: Desk) -> None:
    desk.away = True
    now = await desk.console().overview()
    assert now.services is None
    assert "no replica of control leads" in now.why
    assert [(alarm.level, alarm.part) for alarm in now.alarms] == [(Level.BAD, Part.CONTROL)]


async def test_a_leader_that_comes_back_is_asked_again(desk: Desk) -> None:
    console = desk.console()
    desk.away = True
    await console.overview()
    desk.away = False
    desk.office.clock.now_s += 1.0
    assert (await console.overview()).services == []


async def test_an_instance_that_is_lost_is_the_first_thing_that_is_said(desk: Desk) -> None:
    await desk.office.registers("a")
    await desk.office.registers("b")
    await desk.office.passes(2.0, "b")
    now = await desk.console().overview()
    assert now.alarms[0].what.startswith("accounts: a is lost (heartbeats_missed)")


# --- resources -----------------------------------------------------------------------------------------


async def test_resources_come_in_pages_with_what_is_wrong_first(desk: Desk) -> None:
    names = [f"R{n:02}" for n in range(30)]
    await desk.office.registers("a", resources=names)
    await desk.office.registers("b", resources=[name for name in names if name != "R17"])
    page = await find(desk, limit=10)
    assert (page["total"], page["matched"]) == (30, 30)
    assert [(row["resource"], row["trouble"]) for row in page["rows"][:2]] == [
        ("R17", "no_standby"),
        ("R00", ""),
    ]
    last = await find(desk, limit=10, offset=20)
    assert [row["resource"] for row in last["rows"]][-1] == "R29"
    assert (await find(desk, troubled=True))["matched"] == 1


async def test_the_worst_is_the_first(desk: Desk) -> None:
    await desk.office.registers("gone", resources=["V"])
    await desk.office.leaves("gone")
    await desk.office.registers("a", resources=["W"])
    await desk.office.registers("b", resources=["X"])
    await desk.office.passes(2.0, "b")
    rows = (await find(desk))["rows"]
    assert [(row["resource"], row["trouble"], row["owner"]) for row in rows] == [
        ("V", "vacant", "gone"),
        ("W", "waiting", "a"),
        ("X", "no_standby", "b"),
    ]


async def test_the_search_is_by_id_or_active_and_case_does_not_matter(desk: Desk) -> None:
    await desk.office.registers("one", resources=["ÄPFEL-1", "<b>x</b>"])
    await desk.office.registers("two", resources=["other"])
    assert [row["resource"] for row in (await find(desk, text="äpfel"))["rows"]] == ["ÄPFEL-1"]
    assert [row["resource"] for row in (await find(desk, text="TWO"))["rows"]] == ["other"]
    assert (await find(desk, text="R9"))["matched"] == 0
    assert (await find(desk, service="nobody"))["rows"] == []


async def test_a_row_tells_its_standbys_and_their_lag(desk: Desk) -> None:
    await desk.office.registers("a")
    await desk.office.registers("b", Role.STANDBY)
    desk.office.beats("b", lag_entries=7)
    [row] = (await find(desk))["rows"]
    assert (row["active"], row["epoch"]) == ("a", 1)
    assert row["standbys"] == [
        {"instance_id": "b", "state": InstanceState.LIVE.value, "lag_entries": 7}
    ]


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 201}, {"offset": -1}])
async def test_a_page_has_bounds(desk: Desk, wrong: dict[str, int]) -> None:
    reply = await desk.console().resources(json.dumps(wrong).encode())
    assert (reply.ok, reply.code) == (False, "invalid")


# --- events ------------------------------------------------------------------------------------------------


def record(n: int, **more: Any) -> EventRecord:
    return EventRecord.model_validate({"event": "instance_registered", "time": float(n)} | more)


def kept(*seqs: int) -> Timeline:
    timeline = Timeline()
    for seq in seqs:
        timeline.keep(seq, record(seq))
    return timeline


def test_only_what_is_new_is_told() -> None:
    timeline = kept(1, 2, 5)
    assert [event.seq for event in timeline.since(0).events] == [1, 2, 5]
    assert [event.seq for event in timeline.since(2).events] == [5]
    nothing = timeline.since(5)
    assert (nothing.last, nothing.events, nothing.failovers) == (5, [], None)


def test_a_page_that_knows_of_a_later_past_is_told_everything() -> None:
    """The stream was made anew, or this replica began to read it again."""
    assert [event.seq for event in kept(1, 2).since(900).events] == [1, 2]


def test_a_stream_that_begins_again_replaces_what_was_kept() -> None:
    timeline = kept(7, 8)
    timeline.keep(1, record(1))
    assert [event.seq for event in timeline.since(0).events] == [1]


def test_events_are_bounded_and_long_lists_are_cut() -> None:
    timeline = kept(*range(1, EVENTS_MAX + 50))
    timeline.keep(
        9_999, record(1, resources=[f"R{n}" for n in range(5_000)], epochs={"R": 1}, reason="")
    )
    told = timeline.since(0)
    assert len(told.events) == EVENTS_MAX
    assert told.events[-1].details == {"resources": ["R0", "R1", "R2", "… (5000)"]}


# --- dead letters and changes ----------------------------------------------------------------------------------


async def test_letters_are_read_once_for_all_pages(desk: Desk) -> None:
    console = desk.console()
    await asyncio.gather(*(console.letters() for _ in range(20)))
    assert desk.letters_read == 1


async def test_a_change_is_recorded_with_the_name_that_was_typed(desk: Desk) -> None:
    await desk.office.registers("a")
    await desk.office.registers("b")
    action = Action(by=" maria ", resources=["R1"], reason="before the upgrade")
    reply = await desk.console().act("failover", action)
    assert reply.ok
    assert desk.office.route() == "b 2 held"
    recorded = desk.office.events.last("operator_change")
    assert (recorded["by"], recorded["reason"]) == ("console:maria", "before the upgrade")


async def test_a_dry_run_changes_and_records_nothing(desk: Desk) -> None:
    await desk.office.registers("a")
    await desk.office.registers("b")
    reply = await desk.console().act("disconnect", Action(by="m", instance_id="a", dry_run=True))
    assert reply.data["moved"] == {"R1": "b"}
    assert desk.office.route() == "a 1 held"
    assert "operator_change" not in desk.office.events.names()


@pytest.mark.parametrize(
    "wrong",
    [{}, {"by": ""}, {"by": "   "}, {"by": "a\nb"}, {"by": "x" * 65}, {"by": "m", "force": True}],
)
def test_an_action_without_a_name_or_with_unknown_words_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Action.model_validate(wrong)
