"""`ipc-cli request` and `cancel` with a real control and real instances: a caller in a shell."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from aegis_sdk.errors import Cancelled

from tests.integration.cli.support import end_of, start_cli
from tests.integration.cli.system import WAIT, System

DEADLINE = ("--timeout", "15")


def told(line: str) -> dict[str, str]:
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


async def test_a_request_prints_its_reply_and_says_its_id_beside_it(system: System) -> None:
    """G1, G2: executed once; the id is one that `explain` knows."""
    result = await system.cli("request", "totals.add", "5", "--resource", "T-1", *DEADLINE)
    assert (result.code, result.json) == (0, [5, "tot-1"])
    first, outcome = result.err.splitlines()
    assert outcome == "executed"
    story = await system.cli("explain", first.removeprefix("request "), "-o", "json")
    assert (story.json["method"], story.json["resource"]) == ("add", "T-1")


async def test_a_program_reads_id_and_outcome_as_json(system: System) -> None:
    result = await system.cli("request", "doubles.double", "21", "-o", "json", *DEADLINE)
    assert (result.code, result.json) == (0, 42)
    first, last = map(told, result.err.splitlines())
    assert last == {"request_id": first["request_id"], "outcome": "executed"}


async def test_the_payload_comes_from_standard_input(system: System) -> None:
    process = await start_cli(
        *("request", "doubles.double", "-", "--url", system.url, "--prefix", system.prefix),
        *DEADLINE,
        stdin=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b" 4\n")
    process.stdin.close()
    result = await end_of(process)
    assert (result.code, result.json) == (0, 8)


async def test_the_same_key_gets_the_stored_outcome(system: System) -> None:
    """G3: also in another process, and from a program in place of a shell."""
    arguments = ("request", "totals.add", "5", "-r", "T-1", "--key", "order-1", *DEADLINE)
    assert [(await system.cli(*arguments)).json for _ in range(2)] == [[5, "tot-1"]] * 2
    other = await system.cli("request", "totals.add", "6", *arguments[3:])
    assert other.code == 5
    assert "order-1" in other.err or "key" in other.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["totals.add", '"5"', "-r", "T-1"], 2, "must be an integer; got '5'"),
        (["totals.add", "5"], 2, "takes a resource"),
        (["totals.add", "{5", "-r", "T-1"], 2, "no JSON"),
        (["totals.add", "NaN", "-r", "T-1"], 2, "no JSON"),
        (["totals.add", "0.1234567890123456789", "-r", "T-1"], 2, "write it as text"),
        (["totals", "5"], 2, "SERVICE.METHOD"),
        (["totals.sub", "5"], 3, "it has: "),
        (["absent.add", "5"], 3, "ever registered"),
        (["totals.add", "5", "-r", "T-9"], 3, "T-9"),
    ],
    ids=str,
)
async def test_what_can_not_be_sent_is_told_before_anything_is_stored(
    system: System, arguments: list[str], code: int, words: str
) -> None:
    result = await system.cli("request", *arguments)
    assert (result.code, result.out) == (code, "")
    assert words in result.err
    assert result.err.count("\n") == 1


async def test_a_dry_run_checks_and_sends_nothing(system: System) -> None:
    result = await system.cli("request", "totals.add", "5", "-r", "T-1", "--dry-run")
    assert (result.code, result.err) == (0, "")
    assert "would be asked" in result.out
    assert await system.add(1) == [1, "tot-1"]


async def test_what_is_not_done_by_the_deadline_is_cancelled_and_exit_4(system: System) -> None:
    """G4: it waits behind one that hangs, and never takes effect."""
    waiting = asyncio.create_task(system.caller.request(WAIT, "x", resource="T-1", timeout_s=15.0))
    await system.until("it runs", lambda: is_running(system))
    result = await system.cli("request", "totals.add", "5", "-r", "T-1", "--timeout", "0.5")
    assert (result.code, result.out) == (4, "")
    assert "it has no effect" in result.err
    system.release.set()
    await waiting
    assert await system.add(1) == [1, "tot-1"]


async def is_running(system: System) -> bool:
    listed = (await system.cli("list-instances", "-o", "json")).json
    return any(entry["running"] for entry in listed)


async def test_ctrl_c_ends_the_request_and_says_what_became_of_it(system: System) -> None:
    """G4: it has begun, and its handler is cut short at the caller's word; exit code 130."""
    process = await start_cli(
        *("request", "totals.wait", '"x"', "-r", "T-1", "-o", "json", "--timeout", "60"),
        *("--url", system.url, "--prefix", system.prefix),
    )
    assert process.stderr is not None
    request_id = told((await process.stderr.readline()).decode())["request_id"]
    process.send_signal(signal.SIGINT)
    result = await end_of(process)
    assert (result.code, result.out) == (130, "")
    assert told(result.err) == {"request_id": request_id, "outcome": "cancelled"}
    with pytest.raises(Cancelled):
        await system.caller.attach(request_id, WAIT)


async def test_cancel_ends_what_another_process_handed_in(system: System) -> None:
    """G4: a definite answer, the same when it is asked again."""
    blocking = asyncio.create_task(system.caller.request(WAIT, "x", resource="T-1", timeout_s=15.0))
    await system.until("it runs", lambda: is_running(system))
    ticket = await system.caller.submit(WAIT, "y", resource="T-1")
    for _ in range(2):
        result = await system.cli("cancel", ticket.id, "--yes", *DEADLINE)
        assert (result.code, result.err) == (0, "")
        assert result.out == f"{ticket.id} is cancelled: it has no effect\n"
    system.release.set()
    assert await blocking == "x"
    with pytest.raises(Cancelled):
        await system.caller.attach(ticket.id, WAIT)


async def test_cancel_says_how_it_had_ended_and_what_it_does_not_know(system: System) -> None:
    first = await system.cli("request", "doubles.double", "1", "-o", "json", *DEADLINE)
    request_id = told(first.err.splitlines()[0])["request_id"]
    late = await system.cli("cancel", request_id, "-o", "json", *DEADLINE)
    assert (late.code, late.json["outcome"]) == (5, "executed")
    unknown = await system.cli("cancel", "nobody.1t", *DEADLINE)
    assert (unknown.code, unknown.out) == (3, "")
    only_sent = await system.cli("cancel", "nobody.1", *DEADLINE)
    assert only_sent.code == 4
    assert "name its method and resource" in only_sent.err
    named = await system.cli("cancel", "nobody.1", "--method", "totals.add", "-r", "T-1", *DEADLINE)
    assert (named.code, "cancelled" in named.out) == (0, True)
