"""How callers that nobody answers come to know (R6): the steps, and what each of them needs."""

from __future__ import annotations

import pytest
from aegis_sdk.contract.envelope import Outcome, OutcomeKind
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.domain.turns.entries import Own
from aegis_sdk.domain.turns.giveup import GivingUp, may_write
from aegis_sdk.domain.turns.states import GiveUpState, ImpossibleStep

DONE = Outcome(OutcomeKind.EXECUTED, b"7")


def test_ends_come_first_then_who_may_write_then_their_gates_then_the_log_up_to_the_last_of_them() -> (
    None
):
    """G4: what has no outcome there can never take effect."""
    doubt = GivingUp({"c.1": "acc", "c.2": "bcc"})
    assert (doubt.state, doubt.ends) == (GiveUpState.ENDING, {"c.1": "acc", "c.2": "bcc"})
    doubt.ended([11, 12], {})
    assert (doubt.state, doubt.last_end) == (GiveUpState.FINDING, 12)
    doubt.found(["w1", "w2"], {"w1": 5})
    assert (doubt.state, doubt.writers) == (GiveUpState.SHUTTING, ["w1", "w2"])
    doubt.shut([13, 15])
    assert (doubt.state, doubt.last_gate) == (GiveUpState.LOOKING, 15)
    doubt.looked({"c.1": DONE})
    assert (doubt.state, doubt.outcomes) == (GiveUpState.KNOWN, {"c.1": DONE})


def test_a_gate_that_somebody_stored_behind_the_ends_will_do() -> None:
    """Thousands that give up together do not shut a writer out thousands of times."""
    doubt = GivingUp({"c.1": "acc"})
    doubt.ended([11], {})
    doubt.found(["w1", "w2"], {"w1": 14, "w2": 11})
    assert doubt.writers == ["w2"]
    doubt.shut([13])
    assert doubt.last_gate == 14


def test_of_a_resource_that_nobody_may_write_the_log_is_read_up_to_its_end() -> None:
    doubt = GivingUp({"c.1": "acc"})
    doubt.ended([11], {})
    doubt.found([], {})
    doubt.shut([])
    assert (doubt.writers, doubt.last_gate) == ([], 11)


def test_what_has_a_name_of_its_own_needs_no_end_and_no_gate() -> None:
    doubt = GivingUp({"c~1.x": "acc"}, named=["c~1.x"])
    assert (doubt.ends, doubt.cancels) == ({}, ["c~1.x"])
    doubt.ended([], {"c~1.x": DONE})
    assert (doubt.state, doubt.outcomes) == (GiveUpState.KNOWN, {"c~1.x": DONE})


def test_no_step_is_skipped() -> None:
    with pytest.raises(ImpossibleStep):
        GivingUp({"c.1": "acc"}).looked({})


def test_everybody_named_since_the_newest_checkpoint_may_write() -> None:
    """R4, R6: an owner that never came to serve does not hide the one before it."""
    owns = [Own(3, 1, {"acc": "w1"}), Own(7, 2, {"acc": "w2", "bcc": "w2"}), Own(9, 3, {"acc": ""})]
    assert may_write("acc", None, owns) == {"w1", "w2"}
    assert may_write("acc", Checkpoint("w1", "acc", read=5, own=1), owns) == {"w1", "w2"}
    assert may_write("acc", Checkpoint("w2", "acc", read=8, own=2), owns) == {"w2"}
    assert may_write("ccc", None, owns) == set()
