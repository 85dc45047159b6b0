"""What `doctor` makes of what it found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aegis_control.domain.operators.health import (
    Facts,
    Finding,
    Level,
    StreamFact,
    examine,
    is_degraded,
)
from aegis_sdk.contract.control import (
    CheckupView,
    DriftView,
    InstanceState,
    InstanceView,
    LonelyView,
    ServerView,
)


def server(name: str = "n0", **more: object) -> ServerView:
    return ServerView.model_validate(
        {"name": name, "version": "2.15.1", "sync_always": True, "storage_bytes_max": 1000} | more
    )


SERVERS = [server("n0"), server("n1"), server("n2")]
CHECKUP = CheckupView(leader="c-1", replicas=3, servers=SERVERS)
STREAM = StreamFact("AEGIS_REQ_accounts", 3, 10, 100, 10, -1)
WELL = Facts(
    version="2.15.1",
    max_payload_bytes=1 << 20,
    clock_offset_s=0.001,
    clock_error_s=0.001,
    storage_bytes=1,
    storage_bytes_max=-1,
    streams=[STREAM],
    dead_letters=0,
    checkup=CHECKUP,
    instances=[InstanceView(service="a", instance_id="i", state=InstanceState.LIVE)],
    resources={"held": 2},
)


def of(facts: Facts, check: str) -> list[Finding]:
    return [finding for finding in examine(facts) if finding.check == check]


def levels(facts: Facts, check: str) -> set[Level]:
    return {finding.level for finding in of(facts, check)}


def test_a_safe_system_has_nothing_but_ok() -> None:
    findings = examine(WELL)
    assert {finding.level for finding in findings} == {Level.OK}
    assert not is_degraded(findings)


def test_what_is_not_ok_says_what_to_do_about_it() -> None:
    bad = replace(
        WELL,
        version="2.10.0",
        dead_letters=3,
        max_payload_bytes=1000,
        clock_offset_s=-4.0,
        resources={"vacant": 1, "waiting": 2},
        streams=[replace(STREAM, messages=90, behind=("n1",))],
        checkup=CHECKUP.model_copy(
            update={
                "servers": [server(sync_always=False, sync_interval_s=120.0, storage_bytes=900)],
                "drift": [DriftView(name="stream X", setting="max_age", found=1, wanted=2)],
                "lonely": [LonelyView(service="a", resources=9, examples=["R1", "R2"])],
            }
        ),
        instances=[InstanceView(service="a", instance_id="i", state=InstanceState.STALLED)],
    )
    findings = examine(bad)
    assert is_degraded(findings)
    for finding in findings:
        assert finding.level is Level.OK or finding.do, finding
    assert {finding.check for finding in findings if finding.level is Level.BAD} == {
        "server version",
        "sync",
        "replicas",
        "storage",
        "streams",
        "clocks",
        "settings",
        "instances",
        "resources",
        "standbys",
        "dead letters",
    }


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("2.15.0", Level.OK),
        ("2.16.0-RC.1", Level.OK),
        ("3.0.0", Level.OK),
        ("2.14.4", Level.NOTE),
        ("2.14.3", Level.BAD),
        ("2.13.9", Level.BAD),
        ("2.12.14", Level.NOTE),
        ("2.12.13", Level.BAD),
        ("2.10.29", Level.BAD),
        ("", Level.BAD),
    ],
)
def test_a_server_with_the_broken_fence_check_is_bad(version: str, level: Level) -> None:
    """G5: it would let an old active commit."""
    facts = replace(WELL, version=version, checkup=None)
    assert levels(facts, "server version") == {level}


def test_without_the_system_account_what_it_alone_tells_is_unknown_and_not_degraded() -> None:
    facts = replace(
        WELL,
        checkup=CHECKUP.model_copy(update={"servers": None}),
        streams=[replace(STREAM, replicas=1)],
    )
    findings = examine(facts)
    unknown = {finding.check for finding in findings if finding.level is Level.UNKNOWN}
    assert unknown == {"sync", "replicas", "storage"}
    assert levels(facts, "system account") == {Level.NOTE}
    assert all("system account" in finding.found for finding in findings if finding.check == "sync")
    assert not is_degraded(findings)


@pytest.mark.parametrize(
    ("servers", "level"), [(SERVERS, Level.BAD), (SERVERS[:1], Level.NOTE)], ids=["three", "one"]
)
def test_single_copies_are_bad_where_there_are_servers_for_more(
    servers: list[ServerView], level: Level
) -> None:
    """G1: the loss of one disk would lose what was accepted."""
    checkup = CHECKUP.model_copy(update={"servers": servers})
    facts = replace(WELL, checkup=checkup, streams=[replace(STREAM, replicas=1)])
    assert levels(facts, "replicas") == {level}


def test_without_control_it_is_degraded_and_says_what_is_not_told() -> None:
    facts = replace(WELL, checkup=None, instances=[], control_missing="nobody answers")
    assert is_degraded(examine(facts))
    assert levels(facts, "control") == {Level.BAD, Level.UNKNOWN}
    assert levels(facts, "settings") == set()


@pytest.mark.parametrize(
    ("offset_s", "level"), [(0.5, Level.OK), (0.502, Level.BAD), (-0.6, Level.BAD)]
)
def test_clocks_further_apart_than_half_a_second_are_bad(offset_s: float, level: Level) -> None:
    assert levels(replace(WELL, clock_offset_s=offset_s), "clocks") == {Level.OK, level}


def test_the_instance_with_the_worst_clock_is_named() -> None:
    far = InstanceView(
        service="a", instance_id="far", state=InstanceState.LIVE, clock_offset_s=-2.0
    )
    near = far.model_copy(update={"instance_id": "near", "clock_offset_s": 0.1})
    [bad] = [
        one for one in of(replace(WELL, instances=[near, far]), "clocks") if one.level is Level.BAD
    ]
    assert "far: -2000 ms" in bad.found


def test_a_full_stream_of_events_is_as_it_should_be() -> None:
    full = StreamFact("AEGIS_EVENTS", 3, 10, -1, 100, 100)
    assert levels(replace(WELL, streams=[full]), "streams") == set()
