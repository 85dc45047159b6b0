"""What `explain` tells of the facts that were found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aegis_control.domain.operators.story import (
    Child,
    Died,
    Ended,
    Facts,
    GivenUp,
    Noted,
    Queue,
    StoredRequest,
    Word,
    relevant,
    tell,
)
from aegis_sdk.contract.control import EventRecord, LeaseRecord, LeaseState
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request

ID = "Kq3v9x2m.17"


def request(resource: str | None = "ACC-1", deadline_s: float | None = None) -> Request:
    return Request(ID, "accounts", "book", resource, b"{}", deadline_s=deadline_s)


def facts(resource: str | None = "ACC-1", *, deadline_s: float | None = None, **more: Any) -> Facts:
    accepted = StoredRequest(request(resource, deadline_s), 7, 90.0)
    return replace(Facts(ID, 100.0, "accounts", accepted), **more)


def lease(state: LeaseState = LeaseState.HELD, epoch: int = 3) -> LeaseRecord:
    return LeaseRecord(
        service="accounts",
        resource="ACC-1",
        state=state,
        owner="acc-1",
        incarnation="r",
        epoch=epoch,
        reason="why",
    )


def ended(outcome: Outcome, at_s: float = 91.0) -> Ended:
    return Ended(outcome, 12, at_s, "ACC-1")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, "nobody was ever active"),
        ({"lease": lease(LeaseState.VACANT)}, "nobody is active for its resource (acc-1 was; why)"),
        ({"lease": lease(LeaseState.WAITING)}, "its active acc-1 is lost"),
        ({"lease": lease()}, "is stored, and waits for acc-1, the active"),
        ({"lease": lease(), "earlier": 5}, "acc-1, the active, behind 5 earlier ones"),
        (
            {"lease": lease(), "earlier": 5, "earlier_is_all": False},
            "the active, behind at least 5 earlier ones",
        ),
        (
            {"given_up": GivenUp(9, 95.0, "ACC-1")},
            "given up by its caller before it had an outcome",
        ),
    ],
)
def test_a_targeted_request_without_an_outcome_says_where_it_waits_and_why(
    more: dict[str, Any], says: str
) -> None:
    assert says in tell(facts(**more)).standing


@pytest.mark.parametrize(
    ("queue", "says"),
    [
        (None, "no instance ever registered"),
        (Queue(delivered_seq=4), "behind 2 requests not given out; no instance asks"),
        (Queue(delivered_seq=4, readers=2), "instances are asking for work"),
        (Queue(delivered_seq=7, unacknowledged=3), "not acknowledged (3 in hand)"),
    ],
)
def test_a_group_request_says_how_far_its_consumer_is(queue: Queue | None, says: str) -> None:
    assert says in tell(facts(None, queue=queue)).standing


def test_a_deadline_that_passed_without_an_outcome_is_said() -> None:
    story = tell(facts(deadline_s=95.0))
    assert "deadline passed 5.0 s ago" in story.standing
    assert "deadline passed" not in tell(facts(deadline_s=101.0)).standing


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (
            Outcome(OutcomeKind.EXECUTED, b"{}", b"{}", epoch=3, instance_id="acc-1"),
            "executed by acc-1 in epoch 3 (journal 12), with a change of state",
        ),
        (
            Outcome.error(OutcomeKind.REJECTED, "limit", "too much", instance_id="acc-1"),
            "rejected by acc-1 (journal 12): limit, too much",
        ),
        (
            Outcome.error(OutcomeKind.CANCELLED, "cancelled", "the caller's deadline passed"),
            "cancelled by its caller (journal 12): cancelled, the caller's deadline passed",
        ),
        (Outcome(OutcomeKind.FAILED, b"not json"), "failed (journal 12)"),
    ],
)
def test_an_outcome_says_how_it_ended_and_by_whom(outcome: Outcome, says: str) -> None:
    story = tell(facts(ended=ended(outcome)))
    assert (story.standing, story.outcome) == (says, outcome.kind)


def test_the_timeline_is_in_the_order_of_the_times() -> None:
    executed = Outcome(OutcomeKind.EXECUTED, b"{}", epoch=4, instance_id="acc-2")
    story = tell(
        facts(
            noted=Noted(1, 93.0),
            children=[Child("Kq3v9x2m~17.1", "pricing", OutcomeKind.EXECUTED, 94.0)],
            ended=ended(executed, 95.0),
            redriven=ended(executed, 99.0),
        )
    )
    assert [step.word for step in story.steps] == [
        Word.ACCEPTED,
        Word.NOTED,
        Word.CHILD,
        Word.OUTCOME,
        Word.REDRIVEN,
    ]
    assert story.steps[1].text.startswith("begin 2: one run before it may have died")
    assert "Kq3v9x2m.17+1" in story.steps[-1].text


def test_a_dead_letter_alone_is_a_story_too() -> None:
    died = Died(DeadLetter(request(), "gave_up", "begun 3 times"), 95.0)
    story = tell(Facts(ID, 100.0, "accounts", died=died))
    assert story.method == "book"
    assert story.standing.startswith("a dead letter (gave_up: begun 3 times)")
    assert [step.word for step in story.steps] == [Word.DEAD]


@pytest.mark.parametrize(
    ("request_id", "caller"),
    [
        ("Kq3v9x2m.17", "client Kq3v9x2m"),
        ("Kq3v9x2m~17.2", "the handler of Kq3v9x2m.17"),
        ("key-accounts.abc", "whoever used this idempotency key"),
    ],
)
def test_the_caller_is_told_from_the_id(request_id: str, caller: str) -> None:
    executed = Outcome(OutcomeKind.EXECUTED, b"{}")
    assert tell(Facts(request_id, 1.0, "accounts", ended=ended(executed))).caller == caller


def event(name: str, time: float, **more: object) -> EventRecord:
    return EventRecord.model_validate({"event": name, "time": time, **more})


def granted(time: float, epoch: int, *resources: str, service: str = "accounts") -> EventRecord:
    return event(
        "lease_granted",
        time,
        service=service,
        resources=list(resources),
        epoch=99,
        epochs=dict.fromkeys(resources, epoch),
        instance_id=f"acc-{epoch}",
        reason="r",
    )


def test_relevant_are_the_epoch_it_was_accepted_in_and_those_up_to_its_end() -> None:
    events = [
        granted(10.0, 1, "ACC-1"),
        granted(20.0, 2, "ACC-1", "ACC-2"),
        granted(21.0, 2, "ACC-1", service="other"),
        granted(25.0, 7, "ACC-2"),
        granted(40.0, 3, "ACC-1"),
        event("operator_change", 45.0, request_id=ID, verb="dlq-redrive", by="eve", ok=True),
        event("operator_change", 46.0, request_id="other.1"),
        granted(60.0, 4, "ACC-1"),
    ]
    found = relevant(
        events, request_id=ID, service="accounts", resource="ACC-1", since_s=30.0, until_s=50.0
    )
    assert sorted(one.time for one in found) == [20.0, 40.0, 45.0]


def test_a_grant_tells_the_epoch_of_this_resource() -> None:
    story = tell(facts(events=[granted(80.0, 3, "ACC-1")]))
    assert [step.word for step in story.steps] == [Word.GRANTED, Word.ACCEPTED]
    assert story.steps[0].text == "epoch 3 begins: acc-3 is the active (r)"


def test_an_operators_refused_change_is_told_as_such() -> None:
    refused = event(
        "operator_change",
        95.0,
        request_id=ID,
        verb="dlq-drop",
        by="eve",
        ok=False,
        result="no dead letter",
    )
    [_, step] = tell(facts(events=[refused])).steps
    assert step.text == "dlq-drop by eve: refused: no dead letter"
