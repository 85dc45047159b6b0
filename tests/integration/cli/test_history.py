"""explain, dlq, events, top and doctor against a real control, real instances and what NATS keeps."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
from typing import Any

import nats
import pytest
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.ids import parent_of
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.trace import new_traceparent
from aegis_sdk.contract.turns.entries import encode_record, turn_head, turn_header
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.errors import Cancelled

from tests.integration.cli.support import Result, end_of, run_cli, start_cli
from tests.integration.cli.system import (
    ADD,
    DEADLINE_S,
    DOUBLE,
    RELAY,
    WAIT,
    System,
    running_system,
)


async def story(system: System, request_id: str, *more: str) -> dict[str, Any]:
    result = await system.cli("explain", request_id, "-o", "json", *more)
    assert (result.code, result.err) == (0, "")
    told: dict[str, Any] = result.json
    return told


def words(told: dict[str, Any]) -> list[str]:
    return [step["word"] for step in told["steps"]]


async def executed(system: System, amount: int = 1) -> str:
    ticket = await system.caller.submit(ADD, amount, resource="T-1")
    await system.caller.attach(ticket.id, ADD, timeout_s=DEADLINE_S)
    return ticket.id


class TestExplain:
    async def test_an_executed_request_tells_who_when_and_in_which_epoch(
        self, system: System
    ) -> None:
        told = await story(system, await executed(system))
        assert (told["service"], told["method"], told["resource"]) == ("totals", "add", "T-1")
        assert told["outcome"] == "executed"
        assert len(told["trace_id"]) == 32
        assert told["caller"] == f"client {told['request_id'].partition('.')[0]}"
        assert words(told) == ["granted", "accepted", "outcome"]
        assert "executed by tot-1 in epoch 1" in told["steps"][-1]["text"]
        assert "request 1 of its stream" in told["steps"][1]["text"]

    async def test_it_needs_no_control(self, system: System) -> None:
        request_id = await executed(system)
        with_control = await story(system, request_id)
        await system.stop_control()
        assert await story(system, request_id) == with_control

    async def test_the_first_in_line_runs_and_the_others_wait_behind_it(
        self, system: System
    ) -> None:
        """G7: a resource's requests are served one at a time, in their order."""
        tickets = [await system.caller.submit(WAIT, "x", resource="T-1") for _ in range(3)]
        first, _, third = [await story(system, ticket.id) for ticket in tickets]
        assert first["standing"] == "is stored, and waits for tot-1, the active"
        assert third["standing"].endswith("tot-1, the active, behind 2 earlier ones")
        assert (first["outcome"], third["outcome"]) == (None, None)
        system.release.set()
        for ticket in tickets:
            await system.caller.attach(ticket.id, WAIT, timeout_s=DEADLINE_S)
        assert (await story(system, tickets[2].id))["outcome"] == "executed"

    async def test_one_that_its_caller_cancelled_is_found_though_its_outcome_has_no_place(
        self, system: System
    ) -> None:
        """G4: an operator sees how it ended, as its caller did."""
        blocker = await system.caller.submit(WAIT, "x", resource="T-1")
        with pytest.raises(Cancelled):
            await system.caller.request(ADD, 1, resource="T-1", timeout_s=0.3)
        caller, _, number = blocker.id.rstrip("t").partition(".")
        told = await story(system, f"{caller}.{int(number) + 1}")
        assert told["outcome"] == "cancelled"
        assert "cancelled by its caller" in told["standing"]
        assert {"accepted", "deadline", "outcome"} <= set(words(told))

    async def test_a_handover_in_between_is_part_of_the_story(self, system: System) -> None:
        await executed(system)
        assert (await system.cli("failover", "T-1", "--to", "tot-2")).code == 0
        request_id = await executed(system)

        async def is_told() -> bool:
            told = await story(system, request_id)
            # Accepted before the new active read the stream, it counts as perhaps begun before.
            known = [word for word in words(told) if word != "begun again"]
            return known == ["fenced", "granted", "accepted", "outcome"]

        await system.until("the events are kept", is_told)
        granted = (await story(system, request_id))["steps"][1]["text"]
        assert "epoch 2 begins: tot-2 is the active (handover by" in granted

    async def test_the_handlers_own_requests_are_its_children(self, system: System) -> None:
        ticket = await system.caller.submit(RELAY, 5, resource="T-1")
        await system.caller.attach(ticket.id, RELAY, timeout_s=DEADLINE_S)
        told = await story(system, ticket.id)
        expected = [child["request_id"] for child in told["children"]]
        assert [parent_of(request_id) for request_id in expected] == [ticket.id] * 2
        assert {child["outcome"] for child in told["children"]} == {"executed"}
        child = await story(system, expected[1])
        assert child["caller"] == f"the handler of {ticket.id}"
        assert child["trace_id"] == told["trace_id"]

    async def test_a_group_request_names_who_served_it(self, system: System) -> None:
        ticket = await system.caller.submit(DOUBLE, 2)
        await system.caller.attach(ticket.id, DOUBLE, timeout_s=DEADLINE_S)
        assert "executed by dbl-1" in (await story(system, ticket.id))["standing"]

    async def test_one_without_an_active_says_that_nobody_is(self, system: System) -> None:
        blocker = await system.caller.submit(WAIT, "x", resource="T-2")
        for instance in ("tot-2", "tot-1"):
            assert (await system.cli("disconnect", instance)).code == 0
        told = await story(system, blocker.id)
        assert "nobody is active for its resource (tot-1 was; disconnected by" in told["standing"]

    async def test_an_unknown_id_is_exit_3_with_and_without_control(self, system: System) -> None:
        for _ in range(2):
            result = await system.cli("explain", "nobody.1")
            assert (result.code, result.out) == (3, "")
            assert "nothing is stored of request nobody.1" in result.err
            await system.stop_control()

    async def test_a_service_narrows_the_search(self, system: System) -> None:
        request_id = await executed(system)
        assert (await system.cli("explain", request_id, "-s", "totals")).code == 0
        assert (await system.cli("explain", request_id, "-s", "doubles")).code == 3


async def die(system: System, amount: int, n: int) -> str:
    """What an instance stores of a request that killed three processes: a dead letter and `failed`."""
    names = Subjects(system.prefix)
    request = Request(
        f"poison.{n}", "totals", "add", "T-1", str(amount).encode(), traceparent=new_traceparent()
    )
    letter = DeadLetter(request, "gave_up", "begun 3 times, and its process died each time")
    outcome = Outcome.error(OutcomeKind.FAILED, "gave_up", "begun 3 times")
    client = await nats.connect(system.url)
    js = client.jetstream()
    await js.publish(
        names.dead_letter("totals", request.request_id), request.payload, headers=letter.headers()
    )
    subject = LogSubjects(names, "totals").single("T-1", request.request_id)
    entry = turn_head("tot-0~gone", "", "") + encode_record(request, outcome)
    await js.publish(subject, entry, headers=turn_header([request.request_id]))
    await client.close()
    return request.request_id


class TestDeadLetters:
    async def test_list_and_show_tell_why_without_control(self, system: System) -> None:
        request_id = await die(system, 7, 1)
        await system.stop_control()
        listed = await system.cli("dlq", "list")
        assert "totals.add" in listed.out
        assert "gave_up: begun 3 times" in listed.out
        assert listed.out.endswith("dead letters: 1\n")
        [entry] = (await system.cli("dlq", "list", "-o", "json")).json
        assert (entry["request_id"], entry["resource"], entry["payload"]) == (request_id, "T-1", 7)
        assert (await system.cli("dlq", "show", request_id, "-o", "json")).json == entry
        assert f"would be {request_id}+1" in (await system.cli("dlq", "show", request_id)).out
        assert (await system.cli("dlq", "list", "-s", "other", "-o", "json")).json == []

    async def test_redriven_twice_it_has_one_effect(self, system: System) -> None:
        """G3: the second redrive has the first one's id."""
        request_id = await die(system, 7, 2)
        first = await system.cli("dlq", "redrive", request_id, "-o", "json")
        assert first.json[0]["fate"] == "redriven"
        new_id = first.json[0]["new_request_id"]
        assert await system.caller.attach(new_id, ADD, timeout_s=DEADLINE_S) == [7, "tot-1"]
        second = await system.cli("dlq", "redrive", request_id, "-o", "json")
        assert (second.code, second.json[0]["fate"]) == (0, "already_redriven")
        assert await system.add(0) == [7, "tot-1"]
        assert (await system.cli("dlq", "list", "-o", "json")).json == []

    async def test_a_letter_that_came_back_is_redriven_to_the_same_effect(
        self, system: System
    ) -> None:
        """G3: as after a control that died before it forgot the letter."""
        request_id = await die(system, 7, 3)
        await system.cli("dlq", "redrive", request_id)
        await system.caller.attach(f"{request_id}+1", ADD, timeout_s=DEADLINE_S)
        with contextlib.suppress(nats.js.errors.APIError):
            await die(system, 7, 3)
        again = await system.cli("dlq", "redrive", request_id, "-o", "json")
        assert again.json[0]["fate"] == "already_redriven"
        assert await system.add(0) == [7, "tot-1"]

    async def test_a_dry_run_changes_nothing_and_all_takes_all(self, system: System) -> None:
        ids = [await die(system, 1, n) for n in (4, 5)]
        dry = await system.cli("dlq", "redrive", "--all", "--dry-run")
        assert dry.out.splitlines() == [
            f"dry run: {request_id} would be sent again as {request_id}+1" for request_id in ids
        ]
        assert len((await system.cli("dlq", "list", "-o", "json")).json) == 2
        dropped = await system.cli("dlq", "drop", "--all", "-o", "json")
        assert [entry["fate"] for entry in dropped.json] == ["dropped", "dropped"]
        nothing = await system.cli("dlq", "drop", "--all")
        assert (nothing.code, nothing.out) == (0, "there are no dead letters\n")

    async def test_one_that_is_not_there_does_not_keep_the_others(self, system: System) -> None:
        request_id = await die(system, 1, 6)
        result = await system.cli("dlq", "drop", "nobody.1", request_id)
        assert result.code == 3
        assert result.out == f"{request_id} dropped\n"
        assert result.err.count("\n") == 1

    async def test_its_story_tells_the_death_and_the_redrive(self, system: System) -> None:
        request_id = await die(system, 1, 7)
        await system.cli("dlq", "redrive", request_id, "--as", "eve")
        await system.caller.attach(f"{request_id}+1", ADD, timeout_s=DEADLINE_S)

        async def is_told() -> bool:
            told = await story(system, request_id)
            return {"dead letter", "outcome", "operator", "redriven"} <= set(words(told))

        await system.until("the story is whole", is_told)


async def events(system: System, *more: str) -> list[dict[str, Any]]:
    result = await system.cli("events", "-o", "json", *more)
    assert (result.code, result.err) == (0, "")
    return [json.loads(line) for line in result.out.splitlines()]


class TestEvents:
    async def test_they_tell_what_control_did(self, system: System) -> None:
        await system.cli("failover", "T-1", "--to", "tot-2", "--as", "eve", "--reason", "test")

        async def is_there() -> bool:
            return "operator_change" in [event["event"] for event in await events(system)]

        await system.until("the change is recorded", is_there)
        found = {event["event"]: event for event in await events(system)}
        assert {
            "leader_elected",
            "instance_registered",
            "lease_granted",
            "failover_begun",
            "instance_fenced",
            "failover_done",
        } <= set(found)
        assert found["failover_done"]["duration_s"] > 0
        change = found["operator_change"]
        assert (change["by"], change["verb"], change["to"], change["reason"], change["ok"]) == (
            "eve",
            "failover",
            "tot-2",
            "test",
            True,
        )
        [only] = await events(system, "--audit")
        assert only == change

    async def test_they_can_be_read_without_control_and_narrowed(self, system: System) -> None:
        await system.stop_control()
        assert {event["service"] for event in await events(system, "-s", "doubles")} == {"doubles"}
        assert len(await events(system, "--limit", "2")) == 2
        assert await events(system, "--since", "1h")
        assert await events(system, "--since", "2199-01-01") == []
        assert (await events(system))[-1]["event"] == "leader_stepped_down"

    async def test_who_is_taken_from_the_environment(self, system: System) -> None:
        args = ("--url", system.url, "--prefix", system.prefix)
        await run_cli("failover", "T-9", *args, env={"AEGIS_OPERATOR": "mallory"})

        async def is_there() -> bool:
            return [event["by"] for event in await events(system, "--audit")] == ["mallory"]

        await system.until("the attempt is recorded", is_there)

    async def test_without_a_stream_of_events_it_is_exit_3(self, nats_url: str) -> None:
        result = await run_cli("events", "--url", nats_url, "--prefix", "nobody")
        assert result.code == 3
        assert "no events are kept" in result.err


class TestTop:
    async def test_once_shows_services_and_instances(self, system: System) -> None:
        await executed(system)
        result = await system.cli("top", "--once", "--interval", "0.2")
        assert result.code == 0
        rows = {line.split()[0]: line.split() for line in result.out.splitlines() if line.strip()}
        assert rows["totals"][1:4] == ["2", "2", "2"]
        assert rows["tot-2"][1:5] == ["totals", "live", "2", "standby"]

    async def test_json_holds_rates_and_queues_as_callers_see_them(self, system: System) -> None:
        """Calls are most often not stored: those that are answered count, and those that wait at their active."""
        blockers = [await system.caller.submit(WAIT, "x", resource="T-1") for _ in range(3)]
        sent = [
            asyncio.create_task(
                system.caller.request(WAIT, "x", resource="T-1", timeout_s=DEADLINE_S)
            )
            for _ in range(2)
        ]

        async def shows(calls: bool) -> bool:
            if calls:
                await executed(system)
            result = await system.cli("top", "--once", "-o", "json")
            assert result.json["dead_letters"] == 0
            [row] = [r for r in result.json["services"] if r["view"]["service"] == "totals"]
            if calls:
                return float(row["view"]["calls_per_s"] or 0) > 0
            is_open = sum(instance["open"] for instance in row["view"]["instances"])
            return bool(row["stored"]["at"] >= len(blockers) and is_open == 5)

        await system.until("all that wait are shown", lambda: shows(False))
        system.release.set()
        await asyncio.gather(*sent)
        await system.until("calls are shown", lambda: shows(True))


class TestDoctor:
    async def test_it_finds_nothing_bad_on_one_well_node(self, system: System) -> None:
        result = await system.cli("doctor", "-o", "json")
        bad = [one for one in result.json["findings"] if one["level"] == "bad"]
        assert (result.code, bad) == (0, [])
        checks = {one["check"] for one in result.json["findings"]}
        assert {"control", "server version", "sync", "clocks", "system account"} <= checks

    async def test_it_finds_what_was_done_to_the_system(self, system: System) -> None:
        await die(system, 1, 8)
        client = await nats.connect(system.url)
        js = client.jetstream()
        info = await js.stream_info(Subjects(system.prefix).request_stream("totals"))
        info.config.max_msgs = 77
        await js.update_stream(info.config)
        await client.close()
        await system.cli("disconnect", "tot-2")
        result = await system.cli("doctor", "-o", "json")
        assert result.code == 6
        bad = {one["check"]: one for one in result.json["findings"] if one["level"] == "bad"}
        assert set(bad) == {"dead letters", "settings", "standbys"}
        assert "max_msgs is 77" in bad["settings"]["found"]
        assert "T-1, T-2" in bad["standbys"]["found"]

    async def test_without_control_it_says_so_and_what_nats_tells(self, system: System) -> None:
        await system.stop_control()
        result = await system.cli("doctor", "--timeout", "1")
        assert result.code == 6
        assert "no control service answers" in result.out
        assert "nats-server 2." in result.out
        assert result.err == ""


async def _until_line(process: asyncio.subprocess.Process, part: str) -> Result:
    """Read lines until one holds `part`."""
    assert process.stdout is not None
    seen = ""
    async with asyncio.timeout(30):
        while part not in seen:
            line = await process.stdout.readline()
            assert line, f"ended after {seen!r}"
            seen += line.decode()
    return Result(0, seen, "")


async def test_events_are_followed_until_ctrl_c(system: System) -> None:
    args = ("--url", system.url, "--prefix", system.prefix)
    process = await start_cli("events", "--follow", *args)
    await _until_line(process, "instance_registered")
    await system.cli("failover", "T-2", "--to", "tot-2", "--as", "eve")
    await _until_line(process, "by=eve")
    process.send_signal(signal.SIGINT)
    ended = await end_of(process)
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert ended.err.count("\n") <= 1


@pytest.mark.usefixtures("_control_logs_elsewhere")
@pytest.mark.parametrize(
    ("verb", "shown"),
    [(["events", "--follow"], "instance_registered"), (["top", "-o", "json"], "calls_per_s")],
)
async def test_what_goes_on_for_ever_ends_with_exit_4_when_nats_goes(
    verb: list[str], shown: str
) -> None:
    with EmbeddedNats() as own:
        async with running_system(own.url, own.system_url, "aegis"):
            process = await start_cli(*verb, "--url", own.url, "--timeout", "1")
            await _until_line(process, shown)
            own.kill()
            ended = await end_of(process)
            own.start()
        assert ended.code == 4
        assert ended.err.count("\n") == 1
        assert "Traceback" not in ended.err


async def test_top_at_a_terminal_redraws_until_ctrl_c(system: System) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from aegis_control.entrypoints.cli import main; main()",
        *("top", "--interval", "0.2", "--url", system.url, "--prefix", system.prefix),
        stdin=theirs,
        stdout=theirs,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        | {"TERM": "xterm"},
    )
    os.close(theirs)
    shown = ""
    async with asyncio.timeout(30):
        while shown.count("INSTANCE") < 3:
            shown += (await asyncio.to_thread(os.read, ours, 65536)).decode()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        while True:
            try:
                shown += (await asyncio.to_thread(os.read, ours, 65536)).decode()
            except OSError:
                break
    assert await process.wait() == 130
    assert process.stderr is not None
    assert b"Traceback" not in await process.stderr.read()
    os.close(ours)
    assert "\x1b[?1049h" in shown
    assert shown.rindex("\x1b[?1049l") > shown.rindex("\x1b[?1049h")  # the screen is given back
    assert "tot-1" in shown
