"""Checkpoints: written and read back, and what of sessions is in them."""

from __future__ import annotations

import pytest
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.domain.turns.entries import Gate, Own, Saved, Settled, Turn
from aegis_sdk.domain.turns.states import HeldState
from aegis_sdk.domain.turns.work import Work
from aegis_sdk.domain.turns.writer import Writer
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.sdk.turns.transcript import added, outcome_of

COUNTS = st.integers(0, 2**40)
IDS = st.from_regex(r"[a-zA-Z0-9~]{1,12}\.[a-z0-9]{1,6}", fullmatch=True)
SESSIONS = st.tuples(st.text(max_size=8), COUNTS, COUNTS.map("{:x}".format), st.floats(0, 1e10))
SENDS = st.lists(st.fixed_dictionaries({"id": IDS, "to": st.none() | st.text(max_size=5)}))


@given(
    st.builds(
        Checkpoint,
        writer=st.text(max_size=8),
        resource=st.text(max_size=8),
        log=st.text(max_size=8),
        read=COUNTS,
        number=COUNTS,
        epoch=COUNTS,
        own=COUNTS,
        sessions=st.lists(SESSIONS, max_size=3),
        ended=st.dictionaries(IDS, st.floats(0, 1e10), max_size=3),
        unsent=st.lists(st.tuples(COUNTS, SENDS.map(tuple)), max_size=3),
        values=st.sampled_from([b"{}", b'{"n":7}', '{"\u00e4":"\\n"}'.encode()]),
    )
)
def test_a_checkpoint_is_read_as_it_was_written(made: Checkpoint) -> None:
    assert Checkpoint.decode(made.encode()) == made


@given(st.binary(max_size=80), st.data())
def test_what_is_no_checkpoint_is_refused_and_nothing_else_happens(
    noise: bytes, data: st.DataObject
) -> None:
    """A stranger's bytes, one that was cut, one with a byte changed: read, or ValueError."""
    whole = Checkpoint("w1", "acc", sessions=[("c", 1, "1", 1.0)], ended={"c.1": 1.0}).encode()
    at = data.draw(st.integers(0, len(whole)))
    for bad in (noise, whole[:at], whole[:at] + noise + whole[at + 1 :]):
        try:
            Checkpoint.decode(bad)
        except ValueError:
            continue


def writer(*, kept_s: float = 600.0) -> Writer:
    made = Writer("w1", added, ends_kept_s=600.0, outcomes_kept_s=kept_s)
    made.restore("acc")
    return made


def turn(seq: int, request_id: str, number: int, at_s: float) -> Turn:
    settled = [Settled(request_id, "acc", outcome_of(number, number=number))]
    return Turn(seq, "w2", seq, settled, stored_s=at_s)


def read_two_callers(made: Writer) -> None:
    made.read(Own(1, 1, {"acc": "w2"}))
    made.read(turn(2, "old.1", 1, 1000.0))
    made.read(turn(3, "new.1", 2, 5000.0))


def saved_of(made: Writer, now_s: float) -> Checkpoint:
    made.tick(now_s)
    made.compose(now_s)
    (save,) = made.take_output().save
    return save.checkpoint


def test_a_caller_that_was_silent_is_forgotten_by_the_logs_time() -> None:
    """G3: this process's clock, which may be years ahead, forgets nobody."""
    made = writer()
    read_two_callers(made)
    for entry in (Own(4, 2, {"acc": "w1"}), Gate(5, "w2"), Gate(6, "w1")):
        made.read(entry)
    made.take_output()
    assert [row[0] for row in saved_of(made, now_s=9e9).sessions] == ["new"]


def test_whoever_follows_forgets_when_the_owner_does() -> None:
    made = writer()
    read_two_callers(made)
    assert len(made.held["acc"].sessions) == 2
    made.read(Saved(4, Checkpoint("w2", "acc", read=3, number=2), stored_s=5001.0))
    assert len(made.held["acc"].sessions) == 1


@pytest.mark.parametrize(
    ("request_id", "asks"), [("c.7", True), ("c.5000", True), ("c.5001", False)]
)
def test_what_a_checkpoint_knows_of_callers_is_asked_for_and_never_guessed(
    request_id: str, *, asks: bool
) -> None:
    """G3: a number below the window, and one that is done, are looked up in the log; a new one runs."""
    begun = Writer("w1", added, ends_kept_s=600.0)
    checkpoint = Checkpoint("w9", "acc", read=5, epoch=1, own=1, sessions=[("c", 5000, "1", 90.0)])
    begun.restore("acc", Checkpoint.decode(checkpoint.encode()))
    for entry in (Own(6, 2, {"acc": "w1"}), Gate(7, "w9"), Gate(8, "w1")):
        begun.read(entry)
    assert begun.held["acc"].state is HeldState.SERVING
    work = Work(Request(request_id, "s", "add", "acc", b"1"), sent_s=100.0, pure=True)
    begun.accept(work)
    begun.compose(100.0)
    out = begun.take_output()
    assert (out.look_up == [work], bool(out.store)) == (asks, not asks)
