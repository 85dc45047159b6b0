"""`ipc-cli state`, `state diff` and `history` with a real control, real instances and their log."""

from __future__ import annotations

import json
from typing import Any

import nats
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import TURN
from aegis_sdk.contract.turns.subjects import LogSubjects
from nats.aio.client import Client

from tests.integration.cli.system import System


def log_of(system: System) -> LogSubjects:
    return LogSubjects(Subjects(system.prefix), "totals")


async def history(system: System, *more: str) -> Any:
    return (await system.cli("history", "T-1", "-o", "json", *more)).json


async def state(system: System, *more: str, code: int = 0) -> Any:
    result = await system.cli("state", "T-1", "-o", "json", *more)
    assert (result.code, result.err) == (code, "")
    return result.json


async def test_the_state_now_and_at_each_earlier_position_and_time(system: System) -> None:
    """G6: from the log alone; control and instances are not asked."""
    for amount in (1, 10, 100):
        await system.add(amount)
    await system.add(5, "T-2")
    found = (await history(system))["outcomes"]
    assert [(step["method"], step["outcome"], step["set"]) for step in found] == [
        ("add", "executed", {"total": 1}),
        ("add", "executed", {"total": 11}),
        ("add", "executed", {"total": 111}),
    ]
    await system.stop_control()
    now = await state(system)
    assert (now["state"], now["outcomes"], now["service"]) == ({"total": 111}, 3, "totals")
    for step in found:
        told = await state(system, "--at", str(step["position"]))
        assert (told["state"], told["time"]) == (step["set"], step["time"])
    assert (await state(system, "--at", str(found[0]["position"] - 1)))["state"] == {}
    assert (await state(system, "--at", "1d"))["state"] == {}
    assert (await state(system, "--at", "2100-01-01"))["state"] == {"total": 111}


async def test_a_diff_shows_what_one_request_changed_also_within_a_turn(system: System) -> None:
    arguments = ("-r", "T-1", "-o", "json")
    first = (await system.cli("request", "totals.add", "1", *arguments)).err
    second = (await system.cli("request", "totals.add", "10", *arguments)).err
    request_id = json.loads(second.splitlines()[0])["request_id"]
    result = await system.cli("state", "diff", request_id)
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    assert ["method", "totals.add"] in lines
    assert lines[-1] == ["total", "1", "11"]
    before = json.loads(first.splitlines()[0])["request_id"]
    [change] = (await system.cli("state", "diff", before, "-o", "json")).json["changes"]
    assert (change["had"], change["has"], change["after"]) == (False, True, 1)


async def test_what_is_for_people_says_the_position_and_the_keys(system: System) -> None:
    await system.add(1)
    shown = await system.cli("state", "T-1")
    assert shown.code == 0
    assert '"total": 1' in shown.out
    listed = await system.cli("history", "T-1", "-n", "1")
    assert listed.out.splitlines()[-1].split()[-3:] == ["add", "executed", "total"]


async def saved(system: System, operator: Client, values: dict[str, int], number: int) -> None:
    """A checkpoint up to the log's end, as an owner stores it."""
    log = log_of(system)
    js = operator.jetstream()
    end = (await js.stream_info(log.stream)).state.last_seq
    text = json.dumps(values).encode()
    made = Checkpoint("w", "T-1", read=end, number=number, values=text)
    headers = made.headers() | {"Nats-Rollup": "sub"}
    await js.publish(log.checkpoint("T-1"), made.encode(), headers=headers)


async def test_what_was_trimmed_away_is_said_with_what_is_still_there(system: System) -> None:
    for amount in (1, 10, 100, 1000):
        await system.add(amount)
    found = (await history(system))["outcomes"]
    operator = await nats.connect(system.url)
    await saved(system, operator, {"total": 1111}, 4)
    js, log = operator.jetstream(), log_of(system)
    for subject in log.outcomes:
        await js.purge_stream(log.stream, seq=found[2]["position"], subject=subject)
    left = await history(system)
    assert (left["removed"], len(left["outcomes"])) == (2, 2)
    assert "outcomes 1 to 2 are not in the log" in (await system.cli("history", "T-1")).out
    assert (await state(system))["state"] == {"total": 1111}
    assert (await state(system, "--at", str(found[2]["position"])))["state"] == {"total": 111}
    earlier = await system.cli("state", "T-1", "--at", str(found[1]["position"]))
    assert (earlier.code, earlier.out) == (3, "")
    assert f"goes back to position {found[2]['position']}" in earlier.err
    await operator.close()


async def test_what_this_version_can_not_read_is_told_and_not_dropped(system: System) -> None:
    """Exit code 6: an entry of another version, in which outcomes of the resource may be."""
    await system.add(1)
    operator = await nats.connect(system.url)
    js, log = operator.jetstream(), log_of(system)
    await system.stop_control()
    change = b'{"set":{"total":50},"delete":[]}'
    line = f"K.9 T-1 add 1 1 {len(change)} executed n=3\n".encode()
    readable = b"1 writer=x log= nonce=\n" + line + b"11" + change + b"\n"
    await js.publish(log.turn("x", 7), b"2 writer=x\nwhatever\n", headers={TURN: "K.8"})
    await js.publish(log.turn("x", 8), readable, headers={TURN: "K.9"})
    told = await state(system, code=6)
    assert told["missing"] == [{"first": 2, "last": 2}]
    assert told["unread"][0]["request_ids"] == ["K.8"]
    shown = await system.cli("history", "T-1")
    assert "unreadable" in shown.out
    assert "K.8" in shown.out
    await js.publish(log.checkpoint("T-1"), b"2", headers={"Nats-Rollup": "sub"})
    assert (await state(system, code=6))["state"] == {"total": 50}  # all outcomes are there
    await operator.close()


async def test_what_is_not_there_is_exit_3(system: System) -> None:
    for arguments in (
        ["state", "T-9"],
        ["state", "T-1", "--service", "doubles"],
        ["state", "T-1", "--at", "999999"],
        ["state", "diff", "nobody.1"],
        ["history", "T-9"],
    ):
        result = await system.cli(*arguments)
        assert (result.code, result.out) == (3, ""), arguments
        assert result.err.count("\n") == 1
