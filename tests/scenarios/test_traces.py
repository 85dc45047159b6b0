"""One request through a failover, told by the logs and the spans of real processes: one trace id."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any, Final

import aegis_sdk
import nats
import pytest
from aegis_sdk.contract.subjects import Subjects

from tests.scenarios.ledger import Booking, Methods
from tests.scenarios.spans import read_spans
from tests.scenarios.system import Process, System, eventually, new_service

HOLD_S: Final = 1.0
"""How long the nested booking runs: the active of the outer request is lost meanwhile."""
DOCS: Final = Path(__file__).parents[2] / "docs" / "observability.md"


class Story:
    """A caller, the old and the new active of A, and the active of B, which A's handler asks."""

    def __init__(self, system: System, service: str) -> None:
        self.system = system
        self.service = service
        self.spans_file = system.folder / "spans"
        self.caller: Process | None = None

    async def start(self) -> None:
        roles = {"old": {"A": "auto"}, "new": {"A": "auto"}, "nested": {"B": "auto"}}
        started = [
            await self.system.start_ledger(self.service, resources, instance_id=name)
            for name, resources in roles.items()
        ]
        self.old, self.new, self.nested = started
        methods = Methods(self.service)
        async with aegis_sdk.connect(self.system.url) as aegis:
            for resource in "AB":  # what comes first after a promotion may be looked at twice
                await aegis.request(methods.book, Booking(op="first"), resource=resource)

    async def fail_over(self, fault: signal.Signals) -> None:
        """The old active is hit while the nested booking runs; returns when the caller has its answer."""
        options = {
            "url": self.system.url,
            "service": self.service,
            "resource": "A",
            "book": "B",
            "hold_s": HOLD_S,
        }
        self.caller = await Process.start(
            "caller",
            "-m",
            "tests.scenarios.caller",
            json.dumps(options),
            folder=self.system.folder,
        )
        self.system.processes.append(self.caller)
        await self.nested.wait_for("begun", op="traced")
        self.old.send(fault)
        answered = await self.caller.wait_for("answered", timeout_s=25.0)
        assert answered["count"] == 2

    def lines(self, process: Process | None, **keys: Any) -> list[dict[str, Any]]:
        """What a process logged about the traced requests."""
        assert process is not None
        return [
            line
            for line in process.log_lines()
            if line.get("trace_id") == self.trace_id and keys.items() <= line.items()
        ]

    @property
    def trace_id(self) -> str:
        assert self.caller is not None
        [sent] = self.caller.logged("request_sent")
        return str(sent["trace_id"])


@pytest.fixture
async def story(system: System, monkeypatch: pytest.MonkeyPatch) -> Story:
    story = Story(system, new_service())
    monkeypatch.setenv("AEGIS_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("TEST_SPANS", str(story.spans_file))
    await story.start()
    return story


async def test_one_trace_id_connects_all_who_had_a_request_in_hand(story: Story) -> None:
    """The caller, the active that was killed, its successor, and the nested request of both."""
    await story.fail_over(signal.SIGKILL)
    await eventually(lambda: story.lines(story.caller, event="request_answered"))  # a thread writes
    assert [line["event"] for line in story.lines(story.caller)] == [
        "request_sent",
        "request_answered",
    ]
    begun, asked = story.lines(story.old)
    assert (begun["event"], begun["attempt"], begun["epoch"]) == ("request_begun", 1, 1)
    assert (asked["event"], asked["resource"]) == ("request_sent", "B")
    [again] = story.lines(story.new, event="request_begun")
    assert (again["level"], again["attempt"]) == ("info", 2)
    assert again["epoch"] > begun["epoch"]
    assert again["request_id"] == begun["request_id"]
    [asked_again] = story.lines(story.new, event="request_sent")
    assert asked_again["request_id"] == asked["request_id"]
    # An instance answers before it writes its line.
    [stored] = await eventually(lambda: story.lines(story.new, event="request_stored"))
    assert (stored["outcome"], stored["instance_id"]) == ("executed", "new")
    [nested] = await eventually(lambda: story.lines(story.nested, event="request_stored"))
    assert nested["request_id"] == asked["request_id"]


async def test_one_trace_of_spans_survives_the_death_of_an_active(story: Story) -> None:
    """The killed process tells nothing more; the spans of all others hang together by its headers."""
    await story.fail_over(signal.SIGKILL)
    spans = await eventually(lambda: story_spans(story))
    by_name = {
        (span["name"], span["attributes"].get("messaging.client.id")): span for span in spans
    }
    forward, book = f"{story.service}.forward", f"{story.service}.book"
    user, sent = by_name["user", None], by_name[f"send {forward}", None]
    run = by_name[f"process {forward}", "new"]
    asked = next(s for s in spans if s["name"] == f"send {book}")
    booked = by_name[f"process {book}", "nested"]
    assert sent["parent"] == user["span_id"]
    assert (run["parent"], asked["parent"]) == (sent["span_id"], run["span_id"])
    assert run["attributes"]["aegis.attempt"] == 2
    assert run["attributes"]["aegis.epoch"] > 1
    assert asked["links"] == [booked["parent"]], "the killed process's own question, asked again"
    assert (sent["kind"], run["kind"]) == ("PRODUCER", "CONSUMER")
    assert {span["trace_id"] for span in spans} == {story.trace_id}


def story_spans(story: Story) -> list[dict[str, Any]]:
    """The spans of the caller's trace when all five are there; the first bookings have their own."""
    spans = [s for s in read_spans(story.spans_file) if s["trace_id"] == story.trace_id]
    return spans if len(spans) >= 5 else []


async def test_a_zombies_refused_commit_is_told_in_the_same_trace(story: Story) -> None:
    """G5: the old active was only paused; it wakes up and is refused."""
    await story.fail_over(signal.SIGSTOP)
    story.old.send(signal.SIGCONT)
    [refused] = await eventually(lambda: story.lines(story.old, event="commit_fenced"))
    assert (refused["level"], refused["epoch"], refused["instance_id"]) == ("warning", 1, "old")
    [stored] = await eventually(lambda: story.lines(story.new, event="request_stored"))
    assert stored["request_id"] == refused["request_id"]
    [demoted] = await eventually(lambda: story.old.logged("demoted"))
    assert (demoted["resource"], demoted["instance_id"]) == ("A", "old")


async def test_every_line_is_json_with_known_keys_and_each_event_is_told(story: Story) -> None:
    """Through a failover, a drain, an eviction and an absence of NATS."""
    system = story.system
    await story.fail_over(signal.SIGKILL)
    await system.crash_nats()
    await eventually(lambda: story.new.logged("nats_restored"))
    await system.wait_for_control()
    client = await nats.connect(system.url)
    evict = json.dumps({"instance_id": "nested", "by": "tester"}).encode()
    await client.request(Subjects().admin("disconnect"), evict, timeout=5.0)
    await client.close()
    await story.nested.wait_for("evicted")
    assert await story.new.end() == 0
    [control] = [process for process in system.processes if process.name.startswith("control")]
    assert await control.end() == 0
    for process in system.processes:
        for line in process.log_lines():
            check_line(process.name, line)
    told = {line["event"] for process in system.processes for line in process.log_lines()}
    assert told >= {
        *("registered", "promoted", "draining", "drained", "evicted", "nats_lost", "nats_restored"),
        *("control_started", "leader_elected", "instance_registered", "lease_granted"),
        *("instance_lost", "failover_begun", "instance_fenced", "failover_done"),
        *("instance_evicted", "instance_left", "leader_stepped_down", "control_stopped"),
    }
    assert control.logged("nats_lost")
    assert control.logged("nats_restored")
    [done] = [line for line in control.logged("failover_done") if line["instance_id"] == "old"]
    assert 0 < done["duration_s"] < 10
    assert (done["service"], done["to"]) == (story.service, ["new"])
    [drained] = story.new.logged("drained")
    assert (drained["instance_id"], drained["service"]) == ("new", story.service)
    assert drained["duration_s"] > 0


def documented_keys() -> set[str]:
    """From the table of keys in docs/observability.md."""
    section = DOCS.read_text().partition("### Keys")[2].partition("###")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def check_line(who: str, line: dict[str, Any]) -> None:
    assert {"timestamp", "level", "event"} <= line.keys(), (who, line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line["timestamp"]), (who, line)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", line["event"]), (who, line)
    assert re.fullmatch(r"[0-9a-f]{32}", line.get("trace_id") or "0" * 32), (who, line)
    assert line.keys() <= documented_keys(), (who, line)


async def test_nobody_writes_passwords_into_the_log(system: System) -> None:
    """A URL may hold them."""
    host = system.url.removeprefix("nats://")
    options = {
        "url": f"nats://app:app@{host}",
        "service": new_service(),
        "resources": {},
        "id": "x",
    }
    process = await Process.start(
        "x", "-m", "tests.scenarios.ledger", json.dumps(options), folder=system.folder
    )
    system.processes.append(process)
    await process.wait_for("ready", timeout_s=20.0)
    await system.crash_nats()
    await eventually(lambda: process.logged("nats_restored"))
    assert f"nats://app:***@{host}" in process.log_text()
    assert "app:app" not in process.log_text()
