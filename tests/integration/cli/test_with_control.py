"""ipc-cli with a real control and real instances: what it says is so, and what it does happens."""

from __future__ import annotations

import asyncio

import pytest
from aegis_sdk import Paused
from aegis_sdk.contract.control import InstanceState

from tests.integration.cli.system import DEADLINE_S, WAIT, System


async def test_lists_and_routes_show_what_is_registered(system: System) -> None:
    listed = await system.cli("list-services")
    assert listed.code == 0
    words = [line.split() for line in listed.out.splitlines()]
    assert words[1][:3] == ["doubles", "dbl-1", "live"]
    assert words[2][:5] == ["totals", "tot-1", "live", "2", "active"]
    assert words[3][:4] == ["tot-2", "live", "2", "standby"]
    [route] = (await system.cli("show-route", "T-1", "-o", "json")).json
    assert (route["service"], route["state"], route["active"]) == ("totals", "held", "tot-1")
    assert [standby["instance_id"] for standby in route["standbys"]] == ["tot-2"]


async def test_describe_holds_methods_schemas_and_routes(system: System) -> None:
    described = (await system.cli("describe", "totals", "-o", "json")).json
    methods = {method["name"]: method for method in described["service"]["methods"]}
    assert methods["add"]["request_schema"] == {"type": "integer"}
    assert methods["wait"]["reply_schema"] == {"type": "string"}
    assert [route["resource"] for route in described["routes"]] == ["T-1", "T-2"]


async def test_status_is_ok(system: System) -> None:
    status = await system.cli("status")
    assert (status.code, status.err) == (0, "")
    assert "3 (3 live)" in status.out


async def test_a_dry_run_changes_nothing(system: System) -> None:
    before = await system.active()
    result = await system.cli("disconnect", "tot-1", "--dry-run", "-o", "json")
    assert result.json["moved"] == {"T-1": "tot-2", "T-2": "tot-2"}
    assert result.json["dry_run"] is True
    assert await system.active() == before


async def test_failover_moves_the_resource_and_its_state(system: System) -> None:
    """G6, G8: the new active goes on from the old one's total."""
    assert await system.add(1) == [1, "tot-1"]
    _, epoch = await system.active()
    result = await system.cli("failover", "T-1", "--to", "tot-2")
    assert (result.code, result.err) == (0, "")
    assert await system.active() == ("tot-2", epoch + 1)
    assert await system.add(10) == [11, "tot-2"]
    assert await system.active("T-2") == ("tot-1", epoch)


async def test_disconnect_evicts_the_active_and_callers_notice_only_time(system: System) -> None:
    """G6, G8: the standby goes on with the whole state, and no call fails."""
    assert await system.add(1) == [1, "tot-1"]
    result = await system.cli("disconnect", "tot-1", "--reason", "test", "--yes")
    assert result.code == 0
    assert await system.add(10) == [11, "tot-2"]
    await system.until(
        "tot-1 is evicted or gone",
        lambda: system.instance_is("tot-1", InstanceState.EVICTED),
    )
    [route] = (await system.cli("show-route", "T-1", "-o", "json")).json
    assert "test" in route["reason"]


async def test_drain_lets_the_active_leave(system: System) -> None:
    """G6, G8: the standby goes on with the whole state, and no call fails."""
    assert await system.add(1) == [1, "tot-1"]
    result = await system.cli("drain", "tot-1", "--yes")
    assert (result.code, result.err) == (0, "")
    assert await system.add(10) == [11, "tot-2"]
    await system.until("tot-1 has left", lambda: system.instance_is("tot-1", None))


async def test_what_is_not_there_is_exit_3_and_what_can_not_be_is_exit_5(system: System) -> None:
    for arguments in (
        ["show-route", "T-9"],
        ["show-route", "T-1", "-s", "other"],
        ["disconnect", "tot-9", "--yes"],
        ["drain", "tot-9"],
        ["failover", "T-9"],
        ["failover", "T-1", "--to", "tot-9"],
        ["describe", "other"],
    ):
        assert (await system.cli(*arguments)).code == 3, arguments
    refused = await system.cli("failover", "T-1", "--to", "tot-1")
    assert refused.code == 5
    assert "tot-1 is the active" in refused.err


async def test_what_an_instance_offers_is_not_retired(system: System) -> None:
    refused = await system.cli("retire", "T-1", "--yes")
    assert (refused.code, refused.out) == (5, "")
    assert "'T-1' is offered by tot-1, tot-2: have it removed there" in refused.err
    assert (await system.cli("retire", "T-9", "--dry-run")).code == 3


async def test_a_pause_is_shown_everywhere_and_ends_with_resume(system: System) -> None:
    paused = await system.cli("pause", "T-1", "--reason", "wrong prices", "--as", "ann")
    assert (paused.code, paused.err) == (0, "")
    assert paused.out.startswith("paused: T-1 of totals since ")
    assert paused.out.endswith(" by ann: wrong prices\n")
    with pytest.raises(Paused, match="T-1 is paused by ann: wrong prices"):
        await system.add(1)
    assert await system.add(1, "T-2") == [1, "tot-1"]
    for verb in (["status"], ["list-services"], ["describe", "totals"], ["show-route", "T-1"]):
        assert "by ann: wrong prices" in (await system.cli(*verb)).out
    assert "by ann: wrong prices" in (await system.cli("top", "--once")).out
    assert "ipc-cli resume T-1 --service totals" in (await system.cli("doctor")).out
    assert (await system.cli("status")).code == 0  # it is meant
    assert "traffic_paused" in (await system.cli("events")).out
    resumed = await system.cli("resume", "T-1")
    assert (resumed.code, resumed.err) == (0, "")
    assert await system.add(1) == [1, "tot-1"]
    assert (await system.cli("resume", "T-1")).out == "T-1 is not paused\n"


async def test_a_pause_says_what_runs_and_waits_for_it(system: System) -> None:
    running = asyncio.create_task(
        system.caller.request(WAIT, "x", resource="T-1", timeout_s=DEADLINE_S)
    )
    await system.until("it runs", lambda: is_running(system))
    short = await system.cli("pause", "totals/wait", "--wait", "0.3")
    assert short.code == 0
    assert short.out.splitlines()[1:] == [
        "had begun, and go on: 1",
        "still run after 0.3 s: 1",
    ]
    system.release.set()
    assert await running == "x"
    again = await system.cli("pause", "totals/wait", "-o", "json")
    assert (again.json["was_so"], again.json["running"]) == (True, 0)


async def is_running(system: System) -> bool:
    listed = (await system.cli("list-instances", "-o", "json")).json
    return any(entry["running"] for entry in listed)


async def test_what_can_not_be_paused_is_one_line_with_what_can(system: System) -> None:
    for target, code, says in (
        ("T-9", 3, "services: doubles, totals"),
        ("totals/ad", 3, "totals has no method 'ad': it handles add, "),
    ):
        result = await system.cli("pause", target)
        assert (result.code, result.out) == (code, "")
        assert result.err.count("\n") == 1
        assert says in result.err
