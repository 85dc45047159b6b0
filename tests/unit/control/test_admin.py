"""The operators' verbs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aegis_sdk.contract.control import Ack, AdminReply, InstanceState, Role

from tests.unit.control.support import SERVICE, Office


async def crew() -> Office:
    office = Office()
    await office.registers("a", Role.ACTIVE, ("R1", "R2"))
    await office.registers("b", Role.STANDBY, ("R1", "R2"))
    await office.registers("c", Role.STANDBY, ("R1",))
    office.beats("a", "b", "c")
    return office


async def ask(office: Office, verb: str, **argument: Any) -> AdminReply:
    return await office.admin(verb, json.dumps(argument).encode())


async def test_show_route_names_the_active_the_epoch_and_the_standbys() -> None:
    office = await crew()
    [route] = (await ask(office, "show-route", resource="R1")).data
    assert (route["active"], route["epoch"], route["state"]) == ("a", 1, "held")
    assert [standby["instance_id"] for standby in route["standbys"]] == ["b", "c"]


async def test_list_services_shows_instances_and_resources() -> None:
    [service] = (await ask(await crew(), "list-services")).data
    assert (service["service"], service["resources"], service["methods"]) == (SERVICE, 2, ["book"])
    assert [(i["instance_id"], i["active"], i["standby"]) for i in service["instances"]] == [
        ("a", 2, 0),
        ("b", 0, 2),
        ("c", 0, 1),
    ]


async def test_status_and_describe_answer() -> None:
    office = await crew()
    status = (await ask(office, "status")).data
    assert (status["leader"], status["instances"], status["resources"]) == (
        "control-1",
        {"live": 3},
        {"held": 2},
    )
    described = (await ask(office, "describe", service=SERVICE)).data
    assert described["service"]["service"] == SERVICE
    assert [route["resource"] for route in described["routes"]] == ["R1", "R2"]
    assert (await ask(office, "contract", service=SERVICE)).data == described["service"]
    assert len((await ask(office, "list-instances")).data) == 3
    [instance] = (await ask(office, "describe-instance", instance_id="b")).data
    assert instance["state"] == "live"


@pytest.mark.parametrize(
    ("verb", "argument", "code"),
    [
        ("fly", {}, "invalid"),
        ("show-route", {}, "invalid"),
        ("show-route", {"resource": "nope"}, "not_found"),
        ("show-route", {"resource": "R1", "service": "other"}, "not_found"),
        ("describe", {"service": "nope"}, "not_found"),
        ("contract", {"service": "nope"}, "not_found"),
        ("contract", {}, "invalid"),
        ("disconnect", {"instance_id": "nope"}, "not_found"),
        ("drain", {"instance_id": "nope"}, "not_found"),
        ("failover", {"resources": ["R1"], "to": "nope"}, "not_found"),
        ("failover", {"resources": ["R1"], "to": "a"}, "refused"),
        ("failover", {"resources": ["R2"], "to": "c"}, "refused"),
    ],
)
async def test_what_can_not_be_done_is_said_with_a_code(
    verb: str, argument: dict[str, Any], code: str
) -> None:
    reply = await ask(await crew(), verb, **argument)
    assert (reply.ok, reply.code) == (False, code)
    assert reply.message


async def test_disconnect_moves_the_leases_evicts_and_keeps_it_out() -> None:
    office = await crew()
    reply = await ask(office, "disconnect", instance_id="a", by="eve", reason="looks odd")
    assert reply.data["moved"] == {"R1": "b", "R2": "b"}
    assert office.lease("R2").owner == "b"
    assert office.lease("R2").epoch == 2
    assert office.instances.kinds("a") == ["evict"]
    assert office.member("a").record.reason == "disconnected by eve: looks odd"
    back = await office.registers("a", Role.STANDBY, returning=True)
    assert (back.ok, back.code) == (False, "evicted")
    await office.passes(1.5, "a", "b", "c")
    assert office.instances.kinds("a")[1:] == ["evict"] * 2
    assert (await office.registers("a", Role.STANDBY, run="run2")).ok


async def test_disconnect_without_a_standby_leaves_the_resource_vacant() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    reply = await ask(office, "disconnect", instance_id="a")
    assert reply.data["vacant"] == ["R1"]
    assert office.route() == "a 2 vacant"


@pytest.mark.parametrize("verb", ["disconnect", "drain"])
async def test_a_dry_run_says_what_would_move_and_moves_nothing(verb: str) -> None:
    office = await crew()
    reply = await ask(office, verb, instance_id="a", dry_run=True)
    assert reply.data["dry_run"]
    assert set(reply.data["moved"]) == {"R1", "R2"}
    assert (office.route("R1"), office.instances.sent) == ("a 1 held", [])


async def test_drain_asks_the_instance_and_it_leaves_by_itself() -> None:
    office = await crew()
    assert (await ask(office, "drain", instance_id="a")).ok
    assert office.instances.kinds("a") == ["drain"]
    assert office.member("a").record.state is InstanceState.DRAINING
    assert office.route("R2") == "a 1 held"
    await office.leaves("a")
    assert office.route("R2") == "b 2 held"


async def test_an_instance_that_does_not_answer_is_not_draining() -> None:
    office = await crew()
    office.instances.answer = None
    reply = await ask(office, "drain", instance_id="a")
    assert (reply.ok, reply.code) == (False, "refused")
    assert office.member("a").record.state is InstanceState.LIVE


async def test_failover_pauses_the_active_and_moves_one_resource() -> None:
    office = await crew()
    reply = await ask(office, "failover", resources=["R1"], to="c", by="eve")
    assert reply.data["moved"] == {"R1": "c"}
    assert (office.route("R1"), office.told("R1")) == ("c 2 held", "c 2")
    assert office.route("R2") == "a 1 held"
    [(to, command)] = office.instances.sent
    assert (to, command.kind.value, command.resources) == ("a", "pause", ["R1"])
    assert office.events.last("failover_done")["reason"] == "handover by eve"


async def test_failover_passes_over_an_active_that_does_not_answer() -> None:
    """The fence, not the pause, keeps the resource safe."""
    office = await crew()
    office.instances.answer = None
    assert (await ask(office, "failover", resources=["R1"], to="b")).ok
    assert office.route("R1") == "b 2 held"


async def test_an_active_goes_on_when_the_handover_failed() -> None:
    office = await crew()
    office.own_log.away = True
    reply = await ask(office, "failover", resources=["R1"], to="b")
    assert (reply.ok, reply.code) == (False, "internal")
    assert office.instances.kinds("a") == ["pause", "resume"]


async def test_failover_without_a_live_standby_is_refused() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE)
    reply = await ask(office, "failover", resources=["R1"])
    assert (reply.code, reply.message) == ("refused", "no live standby follows 'R1'")


async def test_failover_dry_run_names_the_next_active() -> None:
    office = await crew()
    office.instances.answer = Ack(ok=False)
    reply = await ask(office, "failover", resources=["R2"], dry_run=True)
    assert (reply.data["moved"], office.instances.sent) == ({"R2": "b"}, [])


# --- what control asked for and what is so -------------------------------------------------------------


async def test_a_pause_that_nobody_waits_for_is_ended() -> None:
    """Control's last leader went in the middle of a handover; the heartbeats tell what is paused."""
    office = await crew()
    office.beats("a", paused=1)
    await office.settled()
    [(to, command)] = office.instances.sent
    assert (to, command.kind.value, sorted(command.resources)) == ("a", "resume", ["R1", "R2"])
    office.beats("a", paused=1)
    await office.settled()
    assert len(office.instances.sent) == 1  # once a second at most


async def test_a_pause_of_a_handover_under_way_is_left_alone() -> None:
    office = await crew()
    office.state.services["accounts"].handovers = 1
    office.beats("a", paused=1)
    await office.settled()
    assert office.instances.sent == []


async def test_a_handover_that_is_cancelled_lets_the_active_go_on() -> None:
    """The term ends while the active still finishes what it runs."""
    office = await crew()
    asked = asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        asked.set()
        await asyncio.sleep(3600)

    office.instances.command = never  # type: ignore[method-assign]
    handover = asyncio.create_task(ask(office, "failover", resources=["R1"], to="b"))
    await asked.wait()
    handover.cancel()
    await asyncio.gather(handover, return_exceptions=True)
    assert office.instances.kinds("a") == ["resume"]
    assert office.state.services["accounts"].handovers == 0


async def test_a_drain_on_record_is_asked_for_until_the_instance_drains() -> None:
    office = await crew()
    assert (await ask(office, "drain", instance_id="a")).ok
    for _ in range(3):
        office.clock.now_s += 1.0
        office.beats("a")
    await office.settled()
    assert office.instances.kinds("a") == ["drain"] * 4
    office.clock.now_s += 1.0
    office.beats("a", draining=True)
    await office.settled()
    assert office.instances.kinds("a") == ["drain"] * 4


async def test_an_instance_that_drains_by_itself_is_given_nothing_more() -> None:
    office = await crew()
    office.beats("b", draining=True)
    await office.settled()
    assert office.member("b").record.state is InstanceState.DRAINING
    reply = await ask(office, "failover", resources=["R1"], to="b")
    assert (reply.ok, reply.code) == (False, "refused")
