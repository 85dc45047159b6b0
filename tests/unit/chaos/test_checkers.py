"""Each checker finds a history that is wrong in exactly its way, and lets a right one pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.chaos.checkers import CHECKERS, check_all
from bench.chaos.checkers.recovery import recovery_s_max
from bench.chaos.history import (
    Accepted,
    Fault,
    Gate,
    History,
    Loss,
    Operation,
    OutcomeEntry,
    Pause,
    Status,
    first_of_each,
    nested,
    read,
    write,
)
from tests.unit.chaos.support import Story


def found_by(history: History) -> set[str]:
    """The checkers that find a violation."""
    return {violation.checker for violation in check_all(history)}


# --- sets: nothing lost, nothing doubled, definite answers ---------------------------------------
def a_set(workload: str = "set", kind: str = "add") -> Story:
    story = Story(workload=workload, service="sets")
    for position, element in enumerate("abc"):
        story.do(kind, element=element, result=position)
    return story


def test_a_right_set_passes() -> None:
    story = a_set()
    story.final(["a", "b", "c"])
    assert found_by(story.history()) == set()


def test_an_unknown_operation_may_have_taken_effect_or_not() -> None:
    """Unknown is neither success nor failure."""
    for taken in (False, True):
        story = a_set()
        doubtful = story.ask("add", element="d", status=Status.UNKNOWN)
        if taken:
            story.store(doubtful, reply=3)
        story.final(["a", "b", "c", *(["d"] if taken else [])])
        assert found_by(story.history()) == set()


def test_an_acknowledged_element_that_is_gone_is_lost() -> None:
    """G1: what the list says was added must be in its last reading."""
    story = a_set()
    story.final(["a", "c"])
    assert found_by(story.history()) == {"kept"}


def test_an_acknowledged_operation_without_an_outcome_is_lost() -> None:
    """G1: what a client was told must stand in the journal."""
    story = a_set()
    story.ask("look", result=3)
    story.final(["a", "b", "c"])
    assert found_by(story.history()) == {"kept"}


def test_an_accepted_request_that_never_ended_is_lost() -> None:
    """G1: also when nobody waits for it any more."""
    story = a_set()
    story.final(["a", "b", "c"])
    story.accepted = [Accepted(seq=9, service="sets", resource="r", op="p9.1")]
    assert found_by(story.history()) == {"kept"}


def test_a_reply_that_is_not_the_stored_one_is_found() -> None:
    """G2: the stored outcome is the only one there is."""
    story = a_set()
    story.store(story.ask("look", result=4), reply=3)
    story.final(["a", "b", "c"])
    assert found_by(story.history()) == {"kept"}


def test_an_acknowledged_resource_without_a_final_value_is_found() -> None:
    assert found_by(a_set().history()) == {"kept"}


def test_a_second_outcome_is_found() -> None:
    """G2: two entries for one request, whatever they say."""
    story = a_set()
    story.store(story.operations[0], outcome="cancelled", epoch=0)
    story.final(["a", "b", "c"])
    assert found_by(story.history()) == {"once"}


def test_an_element_twice_is_found() -> None:
    """G3: one request, two effects."""
    story = a_set()
    story.final(["a", "b", "b", "c"])
    assert found_by(story.history()) == {"once"}


def test_an_effect_without_an_outcome_is_found() -> None:
    """G3: the state has what no outcome brought."""
    story = a_set()
    story.ask("add", element="d", status=Status.UNKNOWN)
    story.final(["a", "b", "c", "d"])
    assert found_by(story.history()) == {"once"}


def test_an_effect_after_a_cancel_is_found() -> None:
    """G4: the caller was told that there is none."""
    story = a_set("deadlines", "work")
    late = story.ask("work", element="d", status=Status.FAIL, error="Cancelled")
    story.store(late, reply=3)
    story.final(["a", "b", "c", "d"])
    assert found_by(story.history()) == {"definite"}


def test_a_cancel_without_effect_passes() -> None:
    """G4: the answer and the state agree."""
    story = a_set("deadlines", "work")
    late = story.ask("work", element="d", status=Status.FAIL, error="Cancelled")
    story.store(late, outcome="cancelled", epoch=0)
    story.final(["a", "b", "c"])
    assert found_by(story.history()) == set()


def test_an_outcome_that_changes_without_executing_is_found() -> None:
    """G4: only what was executed may change the state."""
    story = a_set("deadlines", "work")
    late = story.ask("work", element="d", status=Status.FAIL, error="Expired")
    story.store(late, outcome="expired", changed=True)
    story.final(["a", "b", "c"])
    assert found_by(story.history()) == {"definite"}


# --- epochs --------------------------------------------------------------------------------------
def test_an_older_epoch_behind_a_newer_one_is_found() -> None:
    """G5: an instance that was replaced has stored something."""
    story = Story(workload="register", service="registers")
    story.store(story.ask("write", value=1, result=1), epoch=2)
    story.store(story.ask("write", value=2, result=2), epoch=1)
    assert found_by(story.history()) == {"epochs"}


def test_epochs_that_rise_pass_whoever_gives_up_in_between() -> None:
    story = Story(workload="register", service="registers")
    story.store(story.ask("write", value=1, result=1), epoch=1)
    story.store(
        story.ask("write", value=4, status=Status.FAIL, error="Cancelled"),
        outcome="cancelled",
        epoch=0,
    )
    story.store(story.ask("write", value=2, result=2), epoch=3)
    assert found_by(story.history()) == set()


# --- order ---------------------------------------------------------------------------------------
def a_list(elements: str = "abcd", stored: str = "abcd") -> tuple[Story, list[Operation]]:
    """Asked in one order, answered as if stored in the other."""
    story = Story(workload="list", service="lists")
    return story, [
        story.ask("append", element=element, result=stored.index(element)) for element in elements
    ]


def test_a_list_in_the_journals_order_passes() -> None:
    story, asked = a_list()
    for operation in asked:
        story.store(operation)
    story.final(list("abcd"))
    assert found_by(story.history()) == set()


def test_a_list_that_differs_from_its_journal_is_found() -> None:
    """G7: the state's order must be the order of the outcomes."""
    story, asked = a_list()
    for operation in asked:
        story.store(operation)
    story.final(list("abdc"))
    assert found_by(story.history()) == {"order"}


def test_a_clients_own_sequence_turned_round_is_found() -> None:
    """G7: what it was answered first must take effect first."""
    story, asked = a_list(stored="acbd")
    for at in (0, 2, 1, 3):
        story.store(asked[at])
    story.final(list("acbd"))
    assert found_by(story.history()) == {"order"}


def test_operations_at_the_same_time_may_take_effect_either_way() -> None:
    story = Story(workload="list", service="lists")
    one = story.ask("append", element="a", at_s=1.0, took_s=1.0, result=1)
    other = story.ask("append", element="b", at_s=1.5, took_s=1.0, process="p2", result=0)
    story.store(other)
    story.store(one)
    story.final(["b", "a"])
    assert found_by(story.history()) == set()


# --- registers -----------------------------------------------------------------------------------
def a_register(*operations: tuple[object, ...]) -> History:
    """Operations as (kind, begin, end, result, args); an end of None is unknown."""
    story = Story(workload="register", service="registers")
    for kind, begin, end, result, args in operations:
        assert isinstance(begin, float)
        assert isinstance(args, dict)
        took = (end if isinstance(end, float) else begin) - begin
        status = Status.UNKNOWN if end is None else Status.OK
        story.ask(str(kind), at_s=begin, took_s=took, result=result, status=status, **args)
    return story.history()


def looks(*seen: tuple[str, float, int]) -> list[Operation]:
    """(kind, when, version) of one client."""
    story = Story(workload="register", service="registers")
    for kind, at_s, version in seen:
        story.ask(kind, at_s=at_s, result={"value": version, "version": version})
    return story.operations


def test_a_client_that_reads_less_than_before_is_found() -> None:
    """Whoever answers: an active, then a standby."""
    fine = looks(("look", 1.0, 3), ("peek", 2.0, 3), ("peek", 3.0, 4))
    assert CHECKERS["stale"](History(looks=fine)) == []
    stale = looks(("look", 1.0, 3), ("peek", 2.0, 2))
    assert len(CHECKERS["stale"](read(write(History(looks=stale))))) == 1


def test_a_look_at_the_active_has_to_fit_the_order() -> None:
    written = a_register(("write", 0.0, 1.0, None, {"value": 3}))
    assert linearizable(replace(written, looks=looks(("look", 2.0, 3), ("peek", 3.0, 0))))
    assert not linearizable(replace(written, looks=looks(("look", 2.0, 0))))


def linearizable(history: History) -> bool:
    return not CHECKERS["linearizable"](history)


RIGHT: dict[str, list[tuple[object, ...]]] = {
    "one after the other": [
        ("write", 0.0, 1.0, None, {"value": 1}),
        ("read", 2.0, 3.0, 1, {}),
        ("cas", 4.0, 5.0, True, {"old": 1, "new": 2}),
        ("cas", 6.0, 7.0, False, {"old": 1, "new": 3}),
        ("read", 8.0, 9.0, 2, {}),
    ],
    "a read beside a write sees the old or the new": [
        ("write", 0.0, 1.0, None, {"value": 1}),
        ("write", 2.0, 9.0, None, {"value": 2}),
        ("read", 3.0, 4.0, 1, {}),
        ("read", 5.0, 6.0, 2, {}),
    ],
    "an unknown write shows later": [
        ("write", 0.0, 1.0, None, {"value": 1}),
        ("write", 2.0, None, None, {"value": 2}),
        ("read", 3.0, 4.0, 1, {}),
        ("read", 5.0, 6.0, 2, {}),
    ],
    "an unknown write never shows": [
        ("write", 0.0, 1.0, None, {"value": 1}),
        ("cas", 2.0, None, None, {"old": 1, "new": 2}),
        ("read", 5.0, 6.0, 1, {}),
    ],
    "never written is 0": [("read", 0.0, 1.0, 0, {})],
}
WRONG: dict[str, list[tuple[object, ...]]] = {
    "a stale read": [
        ("write", 0.0, 1.0, None, {"value": 1}),
        ("write", 2.0, 3.0, None, {"value": 2}),
        ("read", 4.0, 5.0, 1, {}),
    ],
    "a read goes back": [
        ("write", 0.0, 1.0, None, {"value": 1}),
        ("write", 2.0, 9.0, None, {"value": 2}),
        ("read", 3.0, 4.0, 2, {}),
        ("read", 5.0, 6.0, 1, {}),
    ],
    "two winners of one compare-and-set": [
        ("write", 0.0, 1.0, None, {"value": 1}),
        ("cas", 2.0, 4.0, True, {"old": 1, "new": 2}),
        ("cas", 3.0, 5.0, True, {"old": 1, "new": 3}),
    ],
    "a value that nobody wrote": [("read", 0.0, 1.0, 7, {})],
    "an unknown write shows and goes away": [
        ("write", 0.0, 1.0, None, {"value": 1}),
        ("write", 2.0, None, None, {"value": 2}),
        ("read", 3.0, 4.0, 2, {}),
        ("read", 5.0, 6.0, 1, {}),
    ],
    "an unknown write shows before it was asked": [
        ("read", 0.0, 1.0, 2, {}),
        ("write", 2.0, None, None, {"value": 2}),
    ],
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_linearizable_register_passes(name: str) -> None:
    assert linearizable(a_register(*RIGHT[name]))


@pytest.mark.parametrize("name", WRONG)
def test_a_register_that_no_order_explains_is_found(name: str) -> None:
    assert not linearizable(a_register(*WRONG[name]))


def simulated(seed: int, *, clients: int, operations: int) -> list[tuple[object, ...]]:
    """A true register under concurrent clients: each operation takes effect within its time."""
    source = random.Random(seed)
    value: object = 0
    free_at = [0.0] * clients
    effects = []
    for n in range(operations):
        client = source.randrange(clients)
        begin = free_at[client] + source.random()
        effect = begin + source.random()
        end = effect + source.random()
        free_at[client] = end
        kind = source.choice(["write", "read", "cas"])
        effects.append((effect, begin, end, kind, n, source.random() < 0.02))
    told: list[tuple[object, ...]] = []
    for _, begin, end, kind, n, lost in sorted(effects):
        result: object = None
        args: dict[str, object] = {}
        if kind == "write":
            args, value = {"value": n}, n
        elif kind == "read":
            result = value
        else:
            args = {"old": value if n % 2 else -1, "new": n}
            result = args["old"] == value
            value = n if result else value
        told.append((kind, begin, None if lost else end, result, args))
    return sorted(told, key=lambda one: float(str(one[1])))


@pytest.mark.parametrize("seed", range(20))
def test_a_true_register_under_concurrent_clients_passes(seed: int) -> None:
    assert linearizable(a_register(*simulated(seed, clients=6, operations=400)))


@pytest.mark.parametrize("seed", range(20))
def test_one_wrong_read_among_many_is_found(seed: int) -> None:
    story = simulated(seed, clients=6, operations=200)
    at = next(n for n in range(100, 200) if story[n][0] == "read" and story[n][2] is not None)
    story[at] = (*story[at][:3], -7, story[at][4])
    assert not linearizable(a_register(*story))


# --- transfers -----------------------------------------------------------------------------------
def transfers(*, credited: bool = True, debited: bool = True) -> Story:
    story = Story(workload="transfers", service="accounts")
    story.do("open", amount=100, resource="A", result=100)
    story.do("open", amount=100, resource="B", result=100)
    transfer = story.ask("transfer", amount=30, to="B", resource="A", result=70)
    if credited:
        story.store(transfer, op=nested(transfer.op), resource="B", reply=130)
    if debited:
        story.store(transfer)
    story.final(70 if debited else 100, resource="A")
    story.final(130 if credited else 100, resource="B")
    return story


def totals(story: Story) -> list[str]:
    return [str(violation) for violation in CHECKERS["totals"](story.history())]


def test_a_complete_transfer_passes() -> None:
    assert found_by(transfers().history()) == set()


def test_a_debit_without_its_credit_is_found() -> None:
    """G3: nested requests are a part of the effect."""
    assert any("not credited" in violation for violation in totals(transfers(credited=False)))


def test_a_credit_without_its_debit_is_found() -> None:
    """G3: one half of a transfer alone is half an effect."""
    assert any("not debited" in violation for violation in totals(transfers(debited=False)))


def test_a_total_that_changed_is_found() -> None:
    story = transfers()
    story.finals[1] = replace(story.finals[1], value=129)
    assert any("sum up to 199" in violation for violation in totals(story))


def test_balances_that_the_journal_does_not_make_are_found() -> None:
    """The total alone would not tell."""
    story = transfers()
    story.finals = [replace(story.finals[0], value=100), replace(story.finals[1], value=100)]
    assert any("its journal makes" in violation for violation in totals(story))


def test_an_overdrawn_account_is_found() -> None:
    story = Story(workload="transfers", service="accounts")
    story.do("open", amount=-5, resource="A")
    story.final(-5, resource="A")
    assert any("overdrawn" in violation for violation in totals(story))


# --- replies and the fold --------------------------------------------------------------------------
def replay(story: Story) -> list[str]:
    return [str(violation) for violation in CHECKERS["fold"](story.history())]


def test_a_reply_from_a_state_that_lost_a_change_is_found() -> None:
    """G6: a later failover may fold it right again; the reply stays wrong."""
    story = Story(workload="set", service="sets")
    story.do("add", element="a", result=0)
    story.do("add", element="b", result=1)
    story.do("add", element="c", result=1)
    story.do("add", element="d", result=3)
    [violation] = replay(story)
    assert "was answered 1" in violation
    assert "makes 2" in violation


def test_a_reply_from_a_state_that_doubled_a_change_is_found() -> None:
    """G3: the reply gives away what the state was."""
    story = transfers()
    story.store(
        story.ask("transfer", amount=10, to="B", resource="A", result=30), outcome="executed"
    )
    assert any("makes 60" in violation for violation in replay(story))


def test_a_compare_and_set_that_met_another_value_is_found() -> None:
    """G3: it was executed on a state that the history doesn't have."""
    story = Story(workload="register", service="registers")
    story.do("write", value=1, result=1)
    story.do("cas", old=1, new=2, result=True)
    story.do("cas", old=1, new=3, result=True)
    story.do("read", result=2)
    assert len(replay(story)) == 1


def test_only_the_first_wrong_replies_of_a_place_are_told() -> None:
    story = Story(workload="set", service="sets")
    for _ in range(20):
        story.do("add", element="a", result=7)
    assert len(replay(story)) == 3


def test_a_loss_that_two_accidents_had_accepted_counts_from_the_first() -> None:
    def loss(at_s: float, last_seq: int) -> Loss:
        return Loss(service="s", stream="J", what="is gone", accepted_s=at_s, last_seq=last_seq)

    given = [loss(3.0, 7), loss(2.0, 7), loss(5.0, 9), loss(6.0, 0), loss(7.0, 0)]
    assert [each.accepted_s for each in first_of_each(given)] == [2.0, 5.0, 6.0, 7.0]


# --- recovery ------------------------------------------------------------------------------------
def steady(ends: dict[float, float | None]) -> Story:
    """Requests by when they were asked and answered."""
    story = Story(workload="list", service="lists")
    for begin, end in ends.items():
        story.ask(
            "append",
            element=begin,
            at_s=begin,
            took_s=0.1 if end is None else end - begin,
            status=Status.UNKNOWN if end is None else Status.OK,
        )
    return story


def recovery(story: Story, limit_s: float = 2.0) -> list[str]:
    history = story.history(recovery_limit_s=limit_s)
    return [str(violation) for violation in CHECKERS["recovery"](history)]


def test_an_answer_within_the_limit_is_a_recovery() -> None:
    """G8: a caller noticed time, and not too much of it."""
    story = steady({1.0: 1.1, 2.5: 3.0, 4.0: 4.1})
    story.fault(2.0, 2.2)
    assert recovery(story) == []
    assert recovery_s_max(story.history()) == pytest.approx(0.5)


def test_the_time_in_which_nobody_asked_is_no_recovery() -> None:
    story = steady({1.0: 1.1, 6.0: 6.5})
    story.fault(2.0, 2.2)
    assert recovery(story) == []
    assert recovery_s_max(story.history()) == pytest.approx(0.5)


def test_a_late_answer_is_found() -> None:
    """G8: a caller waited longer than a failover may take."""
    story = steady({1.0: 1.1, 2.5: 9.0})
    story.fault(2.0, 2.2)
    assert len(recovery(story)) == 1


def test_a_place_that_never_answers_again_is_found() -> None:
    story = steady({1.0: 1.1, 2.5: None, 3.5: None})
    story.fault(2.0, 2.2)
    assert "never answered again" in recovery(story)[0]
    assert recovery_s_max(story.history()) == float("inf")


def test_a_fault_before_the_recovery_from_another_starts_the_time_again() -> None:
    story = steady({1.0: 1.1, 2.5: None, 4.5: 5.0})
    story.fault(2.0, 2.2)
    story.fault(3.5, 4.0)
    assert recovery(story) == []
    assert recovery_s_max(story.history()) == pytest.approx(0.5)


def test_a_request_asked_before_the_fault_says_nothing_about_the_recovery() -> None:
    story = steady({1.0: 2.3, 2.5: None})
    story.fault(2.0, 2.2)
    assert len(recovery(story)) == 1


# --- enough --------------------------------------------------------------------------------------
def some(ok: int, unknown: int, workload: str = "list") -> History:
    story = Story(workload=workload, service="s")
    for n in range(ok):
        story.ask("append", element=n)
    for n in range(unknown):
        story.ask("append", element=-n, status=Status.UNKNOWN)
    return story.history(ok_per_workload_min=10)


@pytest.mark.parametrize("error", ["LogLost", "Overloaded", "Paused"])
def test_what_is_refused_at_once_and_rightly_takes_nothing_from_the_share(error: str) -> None:
    refused = replace(some(1, 0).operations[0], status=Status.FAIL, error=error)
    history = some(20, 0)
    many = [replace(refused, op=f"x{n}") for n in range(100)]
    assert CHECKERS["enough"](replace(history, operations=[*history.operations, *many])) == []
    others = [replace(each, error="Cancelled") for each in many]
    assert CHECKERS["enough"](replace(history, operations=[*history.operations, *others]))


@pytest.mark.parametrize(
    ("history", "passes"),
    [
        (some(20, 0), True),
        (some(20, 15), True),
        (some(5, 0), False),
        (some(20, 30), False),
        (some(20, 30, "deadlines"), True),
        (History(), False),
    ],
)
def test_too_little_success_fails_a_run(history: History, passes: bool) -> None:
    assert (not CHECKERS["enough"](history)) == passes


def test_a_handlers_refusal_is_an_answer() -> None:
    story = Story(workload="transfers", service="accounts")
    for _ in range(10):
        story.ask("transfer", status=Status.FAIL, error="Rejected")
    assert CHECKERS["enough"](story.history(ok_per_workload_min=10)) == []


@pytest.mark.parametrize("checker", CHECKERS.values(), ids=CHECKERS.keys())
def test_every_checker_can_judge_an_empty_history(checker: Callable[[History], object]) -> None:
    assert isinstance(checker(History()), list)


# --- gates ---------------------------------------------------------------------------------------
def past_a_gate(*, gate: int, stored_under: int, entry: int = 20, **more: object) -> list[str]:
    """An outcome at `entry` of a writer whose gate the suite stored at `gate`."""
    told = Gate(service="sets", writer="w~1", seq=gate, stored_s=5.0)
    stored = OutcomeEntry(
        seq=entry,
        service="sets",
        resource="S",
        op="p.1",
        outcome="executed",
        writer="w~1",
        gate=stored_under,
    )
    history = read(write(History(gates=[told], outcomes=[stored], **more)))  # type: ignore[arg-type]
    return [str(each) for each in check_all(history, [CHECKERS["gates"]])]


def test_what_slips_past_a_gate_of_its_writer_is_found() -> None:
    """G5: the server has to refuse it."""
    assert past_a_gate(gate=15, stored_under=10)
    assert not past_a_gate(gate=15, stored_under=15)
    assert not past_a_gate(gate=15, stored_under=10, entry=12)


def test_a_gate_of_a_log_that_lost_something_later_tells_nothing() -> None:
    """Another entry may stand there."""
    loss = Loss(service="sets", stream="AEGIS_JOURNAL_sets", what="is gone", accepted_s=6.0)
    copy = Fault(kind="put_back", target="nats", began_s=4.0, healed_s=7.0)
    assert not past_a_gate(gate=15, stored_under=10, losses=[loss])
    assert past_a_gate(gate=15, stored_under=10, losses=[replace(loss, accepted_s=4.0)])
    assert not past_a_gate(gate=15, stored_under=10, faults=[copy])


# --- pauses --------------------------------------------------------------------------------------
def in_a_pause(*, seq: int, outcome: str = "executed", **more: object) -> list[str]:
    """An outcome at `seq`, of a resource that was paused between 10 and 20."""
    told = Pause(service="sets", resource="S", from_seq=10, to_seq=20, began_s=5.0)
    stored = OutcomeEntry(seq=seq, service="sets", resource="S", op="p.1", outcome=outcome)
    history = read(write(History(pauses=[told], outcomes=[stored], **more)))  # type: ignore[arg-type]
    return [str(each) for each in check_all(history, [CHECKERS["paused"]])]


def test_what_is_executed_in_a_pause_is_found() -> None:
    assert in_a_pause(seq=11)
    assert in_a_pause(seq=20)
    assert not in_a_pause(seq=10)
    assert not in_a_pause(seq=21)
    assert not in_a_pause(seq=11, outcome="cancelled")
    loss = Loss(service="sets", stream="AEGIS_JOURNAL_sets", what="is gone", accepted_s=6.0)
    assert not in_a_pause(seq=11, losses=[loss])


# --- group requests ------------------------------------------------------------------------------
def dealt(*, outcome: str = "executed", appended: bool = True, reply: int = 0) -> Story:
    """One group request, whose handler appends `x` to the list `G` by a nested request."""
    story = Story(workload="group", service="group", resource="")
    status = Status.OK if outcome == "executed" else Status.FAIL
    deal = story.ask("deal", element="x", to="G", status=status, result=reply)
    deal = replace(deal, resource="")
    story.operations[-1] = deal
    if appended:
        story.store(deal, op=nested(deal.op), resource="G", reply=0)
    story.store(deal, outcome=outcome, epoch=0, reply=reply, resource="")
    return story


def of_group(story: Story) -> list[str]:
    return [str(found) for found in check_all(story.history(), [CHECKERS["group"]])]


def test_a_group_request_with_one_effect_passes() -> None:
    story = dealt()
    story.final(["x"], resource="G")
    assert found_by(story.history()) == set()


def test_a_cancelled_group_request_may_have_its_nested_effect_or_not() -> None:
    for appended in (False, True):
        story = dealt(outcome="cancelled", appended=appended)
        story.final(["x"] if appended else [], resource="G")
        assert of_group(story) == []


def test_a_group_request_with_two_effects_is_found() -> None:
    """G3: two members ran it, and both appended."""
    for outcome in ("executed", "cancelled"):
        story = dealt(outcome=outcome)
        story.final(["x", "x"], resource="G")
        assert any("took effect 2 times" in found for found in of_group(story))


def test_a_group_request_whose_effect_is_gone_or_elsewhere_is_found() -> None:
    """G3: its effect is its reply and its child's, at one instance."""
    story = dealt()
    story.final([], resource="G")
    story.final(["x"], resource="H")
    found = of_group(story)
    assert any("does not have it" in each for each in found)
    assert any("nobody asked" in each for each in found)


def test_a_group_request_that_was_told_another_position_is_found() -> None:
    story = dealt(reply=1)
    story.final(["x"], resource="G")
    assert any("is number 0" in found for found in of_group(story))


def test_a_group_request_answered_without_its_nested_request_is_found() -> None:
    story = dealt(appended=False)
    story.final(["x"], resource="G")
    assert any("nested request was not" in found for found in of_group(story))


def test_a_list_of_group_requests_that_can_not_be_read_is_found() -> None:
    assert any("could not be read" in found for found in of_group(dealt()))


def test_group_requests_have_no_order() -> None:
    story = Story(workload="group", service="group", resource="")
    deals = [
        replace(story.ask("deal", element=name, to="G", result=at), resource="")
        for at, name in enumerate("xy")
    ]
    for deal in reversed(deals):
        story.store(deal, epoch=0, resource="")
    assert check_all(story.history(), [CHECKERS["order"]]) == []


def numbered(*numbers: int) -> History:
    outcomes = [
        OutcomeEntry(
            seq=n, service="s", resource="R", op=f"o{n}", outcome="executed", number=number
        )
        for n, number in enumerate(numbers, start=1)
    ]
    return History(outcomes=outcomes)


@pytest.mark.parametrize(
    ("numbers", "wrong"), [((1, 2, 3), 0), ((1, 0, 2), 0), ((1, 1, 2), 1), ((1, 3), 1), ((2,), 1)]
)
def test_a_number_that_comes_twice_or_is_missing_is_told(
    numbers: tuple[int, ...], wrong: int
) -> None:
    """G2, G5: some writer was not shut out."""
    assert len(CHECKERS["numbers"](numbered(*numbers))) == wrong
