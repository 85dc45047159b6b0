"""What control announced as lost is excused; whatever else is missing, or was done twice, is a violation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.chaos.checkers import CHECKERS, check_all
from bench.chaos.history import (
    Accepted,
    Fault,
    Gone,
    History,
    Loss,
    Operation,
    OutcomeEntry,
    Status,
    nested,
    read,
    write,
)

JOURNAL = Loss(service="s", stream="AEGIS_JOURNAL_s", what="is gone", accepted_s=10.0)
REQUESTS = Loss(service="s", stream="AEGIS_REQ_s", what="is gone", accepted_s=10.0)


def operation(op: str, invoked_s: float, **more: Any) -> Operation:
    known = {
        "process": "c",
        "workload": "register",
        "service": "s",
        "resource": "R",
        "kind": "read",
    }
    ended = {"status": Status.OK, "completed_s": invoked_s + 0.1, "result": 0}
    return Operation(op=op, invoked_s=invoked_s, **{**known, **ended, **more})


def stored(op: str, seq: int = 100, **more: Any) -> OutcomeEntry:
    known = {"service": "s", "resource": "R", "outcome": "executed", "reply": 0}
    return OutcomeEntry(op=op, seq=seq, **{**known, **more})


def gone(op: str, stored_s: float, **more: Any) -> Gone:
    return Gone(op=op, stored_s=stored_s, **{"service": "s", "seq": 5, **more})


def found(checker: str, **history: Any) -> list[str]:
    judged = check_all(History(**history), [CHECKERS[checker]])
    return [violation.message for violation in judged]


def test_what_was_acknowledged_before_an_announced_loss_may_be_missing() -> None:
    operations = [operation("gone", 5.0), operation("stored", 6.0)]
    outcomes = [stored("stored")]
    assert not found("kept", operations=operations, outcomes=outcomes, losses=[JOURNAL])


@pytest.mark.parametrize(
    ("invoked_s", "service", "losses"),
    [
        (5.0, "s", []),  # nothing was announced
        (11.0, "s", [JOURNAL]),  # asked after that was accepted
        (5.0, "other", [JOURNAL]),
        (5.0, "s", [REQUESTS]),  # the journal has the outcomes of what was answered
    ],
)
def test_else_it_may_not(invoked_s: float, service: str, losses: list[Loss]) -> None:
    assert found("kept", operations=[operation("gone", invoked_s, service=service)], losses=losses)


@pytest.mark.parametrize(
    ("outcome", "losses", "violations"),
    [
        ("expired", [JOURNAL], 0),
        ("cancelled", [JOURNAL], 0),
        ("rejected", [JOURNAL], 1),  # it ran again, and nothing is random here
        ("expired", [], 1),
        ("expired", [REQUESTS], 1),
    ],
)
def test_what_was_acknowledged_and_lost_may_end_behind_its_deadline(
    outcome: str, losses: list[Loss], violations: int
) -> None:
    """Its request is still kept, and comes again."""
    outcomes = [stored("a", outcome=outcome)]
    judged = found("kept", operations=[operation("a", 5.0)], outcomes=outcomes, losses=losses)
    assert len(judged) == violations


def test_a_wrong_answer_whose_outcome_is_still_there_is_no_loss() -> None:
    """An older copy holds outcomes too: what they say is what the caller must have been told."""
    operations = [operation("a", 5.0, result=7)]
    assert found("kept", operations=operations, outcomes=[stored("a")], losses=[JOURNAL])


def test_what_ran_again_behind_an_announced_loss_may_be_answered_otherwise() -> None:
    operations, again = [operation("a", 5.0, result=7)], [stored("a", seq=300)]
    lost = {"losses": [JOURNAL], "gone": [gone("a", 5.05)]}
    assert not found("kept", operations=operations, outcomes=again, **lost)
    assert not found("linearizable", operations=operations, outcomes=again, **lost)


@pytest.mark.parametrize(("seq", "violations"), [(90, 1), (110, 0)])
def test_what_ran_again_behind_the_lost_log_may_come_later_than_it_was_answered(
    seq: int, violations: int
) -> None:
    """Its request was kept: it is a request that was open, for whoever judges the order."""
    loss = replace(JOURNAL, last_seq=100)
    asked = [operation("again", 5.0), operation("later", 6.0)]
    outcomes = [stored("later", seq=seq - 5), stored("again", seq=seq)]
    assert len(found("order", operations=asked, outcomes=outcomes, losses=[loss])) == violations


@pytest.mark.parametrize(
    ("late_s", "result", "violations"), [(0.5, 7, 0), (0.5, 1, 0), (1.5, 7, 1)]
)
def test_an_answer_may_be_on_its_way_when_the_loss_is_accepted(
    late_s: float, result: int, violations: int
) -> None:
    """Its instance stood still behind the store, and the request was kept and ran again."""
    loss = replace(JOURNAL, last_seq=100)
    asked = replace(operation("a", 5.0, result=result), completed_s=loss.accepted_s + late_s)
    outcomes = [stored("a", seq=110, reply=1)]
    assert len(found("kept", operations=[asked], outcomes=outcomes, losses=[loss])) == violations


@pytest.mark.parametrize(("losses", "violations"), [([], 1), ([JOURNAL], 0), ([REQUESTS], 1)])
def test_a_group_request_without_its_nested_one_needs_a_lost_journal(
    losses: list[Loss], violations: int
) -> None:
    args = {"element": "g", "to": "G"}
    asked = operation("g", 5.0, workload="group", resource="", kind="deal", args=args)
    ran = [stored("g", resource="")]
    judged = found("group", operations=[asked], outcomes=ran, losses=losses)
    assert len([problem for problem in judged if "nested" in problem]) == violations


@pytest.mark.parametrize(("stored_s", "losses"), [(5.0, []), (5.0, [REQUESTS]), (11.0, [JOURNAL])])
def test_an_outcome_that_goes_without_an_announced_loss_is_found(
    stored_s: float, losses: list[Loss]
) -> None:
    """Whether or not anybody was told of it."""
    assert found("announced", gone=[gone("a", stored_s)], losses=losses)


def test_an_outcome_that_goes_with_an_announced_loss_is_not() -> None:
    assert not found("announced", gone=[gone("a", 5.0)], losses=[JOURNAL])


def test_nor_is_one_that_was_stored_anew() -> None:
    """Its writer heard nothing of the first time, and an older copy took that."""
    assert not found("announced", gone=[gone("a", 5.0)], outcomes=[stored("a", seq=300)])


def test_an_outcome_that_is_stored_twice_is_found_whatever_was_lost() -> None:
    twice = [stored("a", seq=300), stored("a", seq=301)]
    assert found("once", operations=[operation("a", 5.0)], outcomes=twice, losses=[JOURNAL])


def test_an_accepted_request_without_an_outcome_needs_one_that_was_lost() -> None:
    accepted = [Accepted(seq=3, service="s", resource="R", op="a")]
    open_ = [operation("a", 5.0, status=Status.UNKNOWN, completed_s=None)]
    assert found("kept", operations=open_, accepted=accepted, losses=[JOURNAL])
    lost = {"losses": [JOURNAL], "gone": [gone("a", 5.0)]}
    assert not found("kept", operations=open_, accepted=accepted, **lost)


def test_a_request_that_is_not_known_any_more_needs_an_announced_loss_of_requests() -> None:
    asked = [operation("a", 5.0, status=Status.UNKNOWN, error="NeverAccepted")]
    assert found("announced", operations=asked)
    assert found("announced", operations=asked, losses=[JOURNAL])
    assert not found("announced", operations=asked, losses=[REQUESTS])


@pytest.mark.parametrize(
    ("invoked_s", "losses", "violations"),
    [(9.0, [], 0), (7.0, [REQUESTS], 1), (9.0, [REQUESTS], 0), (12.0, [REQUESTS], 1)],
)
def test_or_a_copy_that_was_put_back(invoked_s: float, losses: list[Loss], violations: int) -> None:
    """A request that only its caller knew goes without another word."""
    fault = Fault(kind="put_back", target="nats", began_s=8.0, healed_s=11.0)
    asked = operation("a", invoked_s, service="o", status=Status.UNKNOWN, error="NeverAccepted")
    told = found("announced", operations=[asked], losses=losses, faults=[fault])
    assert len(told) == violations


def test_an_effect_behind_a_refusal_needs_a_lost_outcome() -> None:
    """G4: cancelled is cancelled, unless that was in the journal that is lost."""
    asked = [operation("a", 5.0, status=Status.FAIL, error="Cancelled", result=None)]
    ran = {"operations": asked, "outcomes": [stored("a", seq=300)]}
    assert found("definite", **ran, losses=[JOURNAL])
    assert not found("definite", **ran, losses=[JOURNAL], gone=[gone("a", 5.05)])


@pytest.mark.parametrize("error", ["Cancelled", "Overloaded"])
@pytest.mark.parametrize(("ended_s", "violations"), [(7.5, 1), (9.0, 0), (11.5, 1)])
def test_or_an_answer_that_was_put_back_with_all_that_was_stored_just_then(
    ended_s: float, violations: int, error: str
) -> None:
    """Its caller alone had seen it, and another stream's loss was told."""
    fault = Fault(kind="put_back", target="nats", began_s=8.0, healed_s=11.0)
    asked = operation("a", 7.0, service="o", status=Status.FAIL, error=error, result=None)
    asked = replace(asked, completed_s=ended_s)
    ran = stored("a", seq=300, service="o")
    told = found("definite", operations=[asked], outcomes=[ran], losses=[REQUESTS], faults=[fault])
    assert len(told) == violations


def test_of_a_cancel_that_was_put_back_nobody_is_told() -> None:
    """Its caller alone had seen it, and nothing else was stored by then."""
    fault = Fault(kind="put_back", target="nats", began_s=8.0, healed_s=11.0)
    asked = operation("a", 7.5, status=Status.FAIL, error="Cancelled", result=None)
    asked = replace(asked, completed_s=9.0)
    history: dict[str, Any] = {"outcomes": [stored("a")], "faults": [fault]}
    assert not found("definite", operations=[asked], **history)
    assert found("definite", operations=[replace(asked, error="Expired")], **history)


@pytest.mark.parametrize(("losses", "violations"), [([], 1), ([JOURNAL], 0), ([REQUESTS], 0)])
def test_half_a_transfer_needs_a_loss(losses: list[Loss], violations: int) -> None:
    """The payer's balance, or the request, was lost while the receiver was asked: the credit stands alone."""
    asked = operation(
        "t", 5.0, workload="transfers", kind="transfer", args={"amount": 1, "to": "Q"}
    )
    credit = [stored(nested("t"), resource="Q", reply=1)]
    pairs = [
        m
        for m in found("totals", operations=[asked], outcomes=credit, losses=losses)
        if "t was" in m
    ]
    assert len(pairs) == violations


def test_or_a_request_that_was_given_up() -> None:
    """Three owners in a row had begun it and were lost; what it had asked for stands."""
    asked = operation(
        "t", 5.0, workload="transfers", kind="transfer", args={"amount": 1, "to": "Q"}
    )
    ended = stored("t", outcome="failed", reply={"code": "gave_up"})
    outcomes = [stored(nested("t"), resource="Q", reply=1), ended]
    told = found("totals", operations=[asked], outcomes=outcomes)
    assert not [message for message in told if "t was" in message]


def test_a_loss_excuses_no_place_that_is_not_answered_again() -> None:
    fault = Fault(kind="lose_journal", target="s", began_s=8.0, healed_s=10.0)
    late = [operation("a", 11.0, completed_s=40.0), operation("b", 5.0)]
    assert found("recovery", operations=late, faults=[fault], losses=[JOURNAL])


def test_what_is_gone_is_kept_with_the_history() -> None:
    history = History(gone=[gone("a", 5.0)], losses=[JOURNAL])
    assert read(write(history)).gone == history.gone


@pytest.mark.parametrize(
    ("what", "counts"), [("is gone", False), ("was emptied", False), ("is an older copy", True)]
)
def test_what_a_writer_stored_in_an_emptied_log_before_that_was_accepted_does_not_count(
    what: str, counts: bool
) -> None:
    """It went on with what it had read; whoever reads the log from there on knows no owner. An older copy tells the owner."""
    loss = replace(JOURNAL, last_seq=100, what=what)
    before = operation("before", 9.5, kind="write", args={"value": 7}, result=7)
    asked = [before, operation("after", 11.0, result=0)]

    def judged(stored_s: float) -> list[str]:
        outcomes = [stored("before", seq=101, reply=7, stored_s=stored_s), stored("after", seq=200)]
        return found("fold", operations=asked, outcomes=outcomes, losses=[loss])

    assert bool(judged(9.6)) is counts
    assert judged(10.6)


def test_an_answer_that_was_lost_has_no_effect_behind_the_acceptance() -> None:
    write_ = operation("lost", 5.0, kind="write", args={"value": 3}, result=3)
    asked = [write_, operation("read", 11.0, result=0), operation("again", 12.0, result=3)]
    outcomes = [stored("read"), stored("again", reply=3)]
    assert found("linearizable", operations=asked, outcomes=outcomes, losses=[JOURNAL])
    assert not found("linearizable", operations=asked[:2], outcomes=outcomes, losses=[JOURNAL])
