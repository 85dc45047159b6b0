"""Control's events: records that come back from the stream as they were made, whichever version wrote them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from aegis_control.domain.events import KINDS, Event, FailoverDone, told_by
from aegis_sdk.contract.control import EventRecord


def stored(event: Event) -> EventRecord:
    body = {"event": event.name, "time": 1.0, **event.details()}
    return EventRecord.model_validate_json(json.dumps(body))


@pytest.mark.parametrize("kind", KINDS.values())
def test_an_event_comes_back_as_it_was_made(kind: type[Event]) -> None:
    made = kind.model_validate({"reason": "because", "service": "desk", "resource": "R1"})
    assert told_by(stored(made)) == made
    assert set(stored(made).model_extra or {}) <= {"reason", "service", "resource"}, "no defaults"


@pytest.mark.parametrize("kind", KINDS.values())
def test_what_an_event_says_is_in_the_table_of_keys(kind: type[Event]) -> None:
    """They are lines of control's log."""
    page = Path(__file__).parents[3] / "docs" / "observability.md"
    table = page.read_text(encoding="utf-8").partition("### Keys")[2].partition("###")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert kind.model_fields.keys() <= set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_every_kind_has_a_name_of_its_own_that_stays() -> None:
    """Operators' scripts, alerts and the events of older versions name them."""
    assert set(KINDS) == {
        *("instance_registered", "resources_changed", "registration_refused", "instance_recovered"),
        "contract_broken",
        *("instance_draining", "instance_forgotten", "instance_lost", "instance_stalled"),
        *("instance_evicted", "instance_left", "failover_begun", "failover_done"),
        *("instance_fenced", "lease_granted", "spread_begun", "spread_done"),
        *("requests_forgotten", "journal_trimmed", "journal_trim_held_up"),
        *("consumer_made_again", "stream_made_again", "bucket_replaced", "value_unreadable"),
        "events_not_provided",
        *("log_lost", "loss_accepted", "request_dead_lettered", "leader_elected"),
        *("leader_stepped_down", "leader_record_unreadable", "control_step_failed"),
        *("operator_change", "traffic_paused", "traffic_resumed"),
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"service": "desk", "news": 1}, FailoverDone(service="desk")),
        ({"service": "desk", "resources": "many"}, None),
    ],
)
def test_of_another_version_what_can_be_read_is(
    more: dict[str, object], expected: Event | None
) -> None:
    record = EventRecord.model_validate({"event": "failover_done", "time": 1.0, **more})
    assert told_by(record) == expected
    assert told_by(EventRecord(event="not_yet_known", time=1.0)) is None
