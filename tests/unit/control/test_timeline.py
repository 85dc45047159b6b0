"""Failovers as they are told from events, and the sentences that a page begins with."""

from __future__ import annotations

from typing import Any

import pytest
from aegis_control.domain.operators.alarms import Alarm, Part, ServiceFacts, SystemFacts, alarms
from aegis_control.domain.operators.health import Level
from aegis_control.domain.operators.timeline import Failover, Moment, failovers
from aegis_sdk.contract.control import EventRecord, InstanceState, InstanceView


def event(name: str, at_s: float, **more: Any) -> EventRecord:
    return EventRecord.model_validate({"event": name, "time": at_s, "service": "desk"} | more)


def killed(instance_id: str, at_s: float) -> list[EventRecord]:
    """What control tells when an active with two resources dies and `b` takes them."""
    why: dict[str, Any] = {"reason": "connection_closed"}
    done: dict[str, Any] = {"resources": 2, "orphans": 0, "to": ["b"], "duration_s": 0.0061} | why
    return [
        event("failover_begun", at_s, instance_id=instance_id, resources=2, chosen={}, **why),
        event("instance_fenced", at_s + 0.004, instance_id=instance_id, resources=["R1", "R2"]),
        event("lease_granted", at_s + 0.005, instance_id="b", resources=["R1", "R2"], **why),
        event("failover_done", at_s + 0.006, instance_id=instance_id, **done),
        event("instance_lost", at_s + 0.007, instance_id=instance_id, silence_s=0.12, resources=2),
    ]


def test_the_events_of_a_kill_are_one_failover_with_its_times() -> None:
    assert failovers(killed("a", 100.0)) == [
        Failover(
            service="desk",
            instance_id="a",
            reason="connection_closed",
            begun_s=100.0,
            resources=2,
            to=["b"],
            silence_s=0.12,
            duration_s=0.0061,
            moments=[Moment("instance_fenced", "a", 0.004), Moment("lease_granted", "b", 0.005)],
        )
    ]


def test_services_that_fail_over_at_the_same_time_are_told_apart() -> None:
    other = [one.model_copy(update={"service": "book"}) for one in killed("a", 100.001)]
    mixed = sorted([*killed("a", 100.0), *other], key=lambda one: one.time)
    assert [(one.service, len(one.moments), one.silence_s) for one in failovers(mixed)] == [
        ("book", 2, 0.12),
        ("desk", 2, 0.12),
    ]


def test_the_newest_is_the_first_and_a_registration_is_none() -> None:
    events = [
        *killed("a", 100.0),
        event("lease_granted", 150.0, instance_id="b", reason="registered"),
        event("instance_registered", 150.1, instance_id="b"),
        *killed("b", 200.0),
    ]
    assert [one.instance_id for one in failovers(events)] == ["b", "a"]


def test_a_handover_waited_for_nobodys_silence() -> None:
    events = killed("a", 100.0)[:-1]
    [told] = failovers([*events, event("instance_left", 100.1, instance_id="a", resources=2)])
    assert (told.silence_s, told.duration_s) == (None, 0.0061)


def test_a_death_without_a_standby_is_told_with_its_orphans() -> None:
    lost = event("instance_lost", 50.0, instance_id="a", silence_s=0.7, resources=3, reason="x")
    [told] = failovers([lost])
    assert (told.resources, told.orphans, told.to, told.duration_s) == (0, 3, [], None)
    assert failovers([event("instance_lost", 50.0, instance_id="a", resources=0)]) == []


def test_one_that_control_died_in_has_no_end() -> None:
    [told] = failovers(killed("a", 100.0)[:2])
    assert (told.duration_s, told.silence_s, len(told.moments)) == (None, None, 1)


def test_a_later_death_of_the_same_instance_is_not_that_of_an_old_failover() -> None:
    lost = event("instance_lost", 900.0, instance_id="a", silence_s=0.7, resources=1)
    told = failovers([*killed("a", 100.0)[:-1], lost])
    assert [(one.begun_s, one.silence_s) for one in told] == [(900.0, 0.7), (100.0, None)]


# --- alarms ------------------------------------------------------------------------------------------


def instance(name: str = "a", state: InstanceState = InstanceState.LIVE, **more: Any) -> Any:
    return InstanceView(service="desk", instance_id=name, state=state, **more)


def told(service: ServiceFacts, **more: Any) -> list[Alarm]:
    return alarms(SystemFacts(now_s=1_000.0, services=[service], **more))


def test_a_system_that_is_well_says_nothing() -> None:
    fine = ServiceFacts("desk", [instance()], depth=3, failures_per_s=[0.0] * 9, p99_ms=[4.9] * 9)
    assert told(fine) == []


@pytest.mark.parametrize(
    ("facts", "level", "part", "words"),
    [
        (
            ServiceFacts("desk", [instance(), instance("b", InstanceState.LOST, reason="x")]),
            *(Level.BAD, Part.INSTANCES, "desk: b is lost (x)"),
        ),
        (
            ServiceFacts("desk", [instance("a", InstanceState.STALLED)]),
            *(Level.BAD, Part.INSTANCES, "a is stalled"),
        ),
        (
            ServiceFacts("desk", [instance("a", InstanceState.DRAINING)]),
            *(Level.NOTE, Part.INSTANCES, "a is draining"),
        ),
        (ServiceFacts("desk", []), Level.BAD, Part.INSTANCES, "desk has no instance"),
        (
            ServiceFacts("desk", [instance()], waiting=1),
            *(Level.BAD, Part.RESOURCES, "1 resource of desk wait"),
        ),
        (
            ServiceFacts("desk", [instance()], vacant=1_200),
            *(Level.BAD, Part.RESOURCES, "1,200 resources of desk without an active"),
        ),
        (
            ServiceFacts("desk", [instance()], log_lost="AEGIS_REQ_desk is gone"),
            *(Level.BAD, Part.RESOURCES, "desk lost stored entries and is not served: AEGIS_REQ"),
        ),
        (
            ServiceFacts("desk", [instance()], unfollowed=2),
            *(Level.BAD, Part.RESOURCES, "2 resources of desk without a live standby"),
        ),
        (
            ServiceFacts("desk", [instance(lag_entries=1_001)]),
            *(Level.BAD, Part.INSTANCES, "1,001 journal entries behind"),
        ),
        (
            ServiceFacts("desk", [instance(loop_lag_s=0.6)]),
            *(Level.NOTE, Part.INSTANCES, "main loop is 0.6 s late"),
        ),
        (
            ServiceFacts("desk", [instance()], depth=101),
            *(Level.NOTE, Part.PLOTS, "101 requests wait"),
        ),
        (
            ServiceFacts("desk", [instance()], failures_per_s=[0.0, 0.0, 2.5, 0.0]),
            *(Level.NOTE, Part.PLOTS, "requests fail, up to 2.5 a second"),
        ),
        (
            ServiceFacts("desk", [instance()], p99_ms=[6.0] * 5),
            *(Level.NOTE, Part.PLOTS, "p99 at the callers is 6.0 ms"),
        ),
    ],
)
def test_each_thing_that_is_wrong_is_one_sentence_with_its_place(
    facts: ServiceFacts, level: Level, part: Part, words: str
) -> None:
    [alarm] = told(facts)
    assert (alarm.level, alarm.part, alarm.service) == (level, part, "desk")
    assert words in alarm.what
    assert alarm.do


def test_one_slow_step_is_no_news() -> None:
    assert told(ServiceFacts("desk", [instance()], p99_ms=[6.0, 6.0, 4.0, 60.0, 6.0])) == []


def test_what_is_wrong_comes_before_what_is_worth_knowing() -> None:
    service = ServiceFacts("desk", [instance("a", InstanceState.DRAINING)], unfollowed=1)
    found = told(service, dead_letters=1, failovers=failovers(killed("a", 990.0)))
    assert [alarm.level for alarm in found] == [Level.BAD, Level.BAD, Level.NOTE, Level.NOTE]
    assert [alarm.part for alarm in found] == [
        *(Part.RESOURCES, Part.LETTERS, Part.INSTANCES, Part.FAILOVERS)
    ]
    assert found[-1].what == ("desk: 2 resources moved from a to b, 10 s ago (connection_closed)")


def test_what_moved_long_ago_is_not_told_again() -> None:
    service = ServiceFacts("desk", [instance()])
    assert told(service, failovers=failovers(killed("a", 100.0))) == []
