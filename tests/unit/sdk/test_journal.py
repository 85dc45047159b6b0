"""The fold: a resource's state is what the journal's entries make of it, in their order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.checkpoint import Checkpoint
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind
from aegis_sdk.domain.journal import Entry, EntryKind, FenceMark, ResourceJournal
from hypothesis import given
from hypothesis import strategies as st


def _entry(seq: int, kind: EntryKind, payload: bytes, name: str = "", **headers: str) -> Entry:
    return Entry(seq, "A", kind, name, headers, payload)


def _outcome(seq: int, request_seq: int, change: Change, request_id: str = "c.1") -> Entry:
    outcome = Outcome(OutcomeKind.EXECUTED, b"1", change.encode() if change else b"", request_seq)
    return Entry(seq, "A", EntryKind.OUTCOME, request_id, outcome.headers(), outcome.payload())


def _fence(
    seq: int, epoch: int, owner: str = "i-1", incarnation: str = "x", *, start_seq: int = 1
) -> Entry:
    fence = Fence(epoch=epoch, owner=owner, incarnation=incarnation, grant="g", start_seq=start_seq)
    return _entry(seq, EntryKind.FENCE, fence.model_dump_json().encode())


def _checkpoint(seq: int, checkpoint: Checkpoint) -> Entry:
    return _entry(seq, EntryKind.CHECKPOINT, checkpoint.encode())


def _folded(*entries: Entry) -> ResourceJournal:
    journal = ResourceJournal("A")
    for entry in entries:
        journal.apply(entry)
    return journal


def test_changes_are_applied_in_order() -> None:
    """G6: the state is the fold of the outcomes, in the journal's order."""
    journal = _folded(
        _outcome(3, 1, Change({"a": 1, "b": 2})),
        _outcome(5, 2, Change({"a": 10}, ("b", "never there"))),
        _outcome(9, 3, Change()),
    )
    assert journal.values == {"a": 10}
    assert (journal.position, journal.last_request_seq, journal.changes) == (9, 3, 2)


def test_an_entry_that_was_folded_before_is_skipped() -> None:
    """G3: the reader goes back behind a gap, and reads again."""
    journal = _folded(_outcome(3, 1, Change({"a": 1})), _outcome(5, 2, Change({"a": 2})))
    journal.apply(_outcome(3, 1, Change({"a": 1})))
    journal.apply(_outcome(5, 2, Change({"a": 99})))
    assert journal.values == {"a": 2}
    assert journal.changes == 2


def test_what_the_active_took_over_at_its_commit_is_not_undone_when_it_is_read() -> None:
    """G3: the answer to a commit may come without a position, and its entry later."""
    journal = ResourceJournal("A")
    for n in range(1, 4):
        entry = _outcome(n, n, Change({"a": n}), f"c.{n}")
        journal.apply_outcome(entry.name, Outcome.parse(entry.headers, entry.payload))
    journal.apply(_outcome(1, 1, Change({"a": 1}), "c.1"))
    assert journal.values == {"a": 3}
    journal.apply(_checkpoint(2, Checkpoint(1, 2, b'{"a":2}')))
    assert journal.values == {"a": 3}
    assert (journal.last_request_seq, journal.covered_request_seq) == (3, 2)
    assert journal.changes == 0
    journal.apply(_checkpoint(5, Checkpoint(4, 3, b'{"a":3,"b":0}')))
    assert journal.values == {"a": 3, "b": 0}


def test_an_outcome_without_request_seq_does_not_lower_what_was_served() -> None:
    """A caller's `cancelled` does not know its request's sequence."""
    journal = _folded(_outcome(3, 7, Change({"a": 1})), _outcome(4, 0, Change(), "c.2"))
    assert journal.last_request_seq == 7


def test_a_fence_tells_what_was_done_where_the_outcomes_are_lost() -> None:
    """G3: an earlier one, or one that starts early, takes nothing of it back."""
    journal = _folded(_fence(2, 1, start_seq=8))
    assert journal.last_request_seq == 7
    journal.apply(_fence(4, 2, start_seq=3))
    assert journal.last_request_seq == 7


def test_a_fence_is_marked_with_its_own_sequence() -> None:
    journal = _folded(_fence(4, 1), _fence(8, 2, "i-2", "y"))
    assert isinstance(journal.fence, FenceMark)
    assert (journal.fence.seq, journal.fence.fence.epoch) == (8, 2)
    assert journal.fence.is_for("i-2", "y")
    assert not journal.fence.is_for("i-2", "x")
    assert not journal.fence.is_for("i-1", "y")


def test_attempts_are_known_until_the_request_has_its_outcome() -> None:
    journal = _folded(
        _entry(1, EntryKind.ATTEMPT, b"1", "c.1"),
        _entry(2, EntryKind.ATTEMPT, b"2", "c.1"),
        _entry(3, EntryKind.ATTEMPT, b"1", "c.2"),
    )
    assert journal.attempts == {"c.1": 2, "c.2": 1}
    journal.apply(_outcome(4, 1, Change(), "c.1"))
    assert journal.attempts == {"c.2": 1}


def test_a_checkpoint_comes_back_from_the_wire() -> None:
    checkpoint = Checkpoint(7, 3, b'{"a":"x\\ny"}', 2, 5)
    assert Checkpoint.decode(checkpoint.encode()) == checkpoint


def test_a_follower_may_begin_at_a_checkpoint() -> None:
    """G6: the same state as from the beginning."""
    entries = [_outcome(1, 1, Change({"a": 1, "b": 1})), _outcome(2, 2, Change({"a": 2}, ("b",)))]
    whole = _folded(*entries)
    checkpoint = _checkpoint(3, whole.checkpoint())
    after = _outcome(4, 3, Change({"c": 3}))
    late, early = _folded(checkpoint, after), _folded(*entries, checkpoint, after)
    assert late.values == early.values == {"a": 2, "c": 3}
    assert late.last_request_seq == early.last_request_seq == 3
    assert late.position == early.position == 4
    assert late.covered_request_seq == early.covered_request_seq == 2


def _parts(values: dict[str, Any], *, position: int, size: int, seq: int) -> list[Entry]:
    data = json.dumps(values).encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    entries = [
        _entry(seq + n, EntryKind.PART, chunk, f"{position}.{n}") for n, chunk in enumerate(chunks)
    ]
    head = Checkpoint(position, 5, b"", len(chunks), seq)
    return [*entries, _checkpoint(seq + len(chunks), head)]


def test_a_checkpoint_of_parts_is_put_together() -> None:
    values = {"key": "v" * 100, "other": 1}
    *parts, head = _parts(values, position=7, size=10, seq=10)
    assert len(parts) > 10
    assert _folded(*parts, head).values == values


def test_parts_count_by_their_number_not_by_their_order() -> None:
    values = {"key": "v" * 30}
    *parts, head = _parts(values, position=7, size=10, seq=10)
    turned = [
        Entry(10 + n, "A", EntryKind.PART, part.name, {}, part.payload)
        for n, part in enumerate(reversed(parts))
    ]
    assert _folded(*turned, head).values == values


def test_a_checkpoint_whose_parts_were_not_all_read_changes_nothing() -> None:
    """Read from its middle on: what it covers was folded entry by entry."""
    _, *rest = _parts({"key": "v" * 30}, position=7, size=10, seq=10)
    journal = _folded(_outcome(5, 4, Change({"key": "known"})), *rest)
    assert journal.values == {"key": "known"}
    assert journal.covered_request_seq == 0


def test_parts_of_a_checkpoint_that_was_never_finished_do_not_mix_with_the_next() -> None:
    """The active died between two parts; its successor wrote its own."""
    *left, _ = _parts({"key": "o" * 30}, position=7, size=10, seq=10)
    whole = _parts({"key": "n" * 30}, position=20, size=10, seq=30)
    journal = _folded(*left[:2], *whole)
    assert journal.values == {"key": "n" * 30}
    assert journal.parts_of == 20


STEPS = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(), max_size=3).flatmap(
        lambda set_: st.lists(st.sampled_from("abc"), max_size=2).map(
            lambda gone: Change(
                {key: value for key, value in set_.items() if key not in gone}, tuple(gone)
            )
        )
    ),
    max_size=12,
)


@given(STEPS, st.data())
def test_every_follower_comes_to_the_same_state(changes: list[Change], data: st.DataObject) -> None:
    """G6: from the start, or from any checkpoint, with entries read twice."""
    entries: list[Entry] = []
    seq = 0
    active = ResourceJournal("A")
    for n, change in enumerate(changes, start=1):
        seq += 1
        entries.append(_outcome(seq, n, change, f"c.{n}"))
        active.apply(entries[-1])
        if data.draw(st.booleans(), label="checkpoint"):
            seq += 1
            entries.append(_checkpoint(seq, active.checkpoint()))
            active.apply(entries[-1])
    starts = [0] + [n for n, entry in enumerate(entries) if entry.kind is EntryKind.CHECKPOINT]
    follower = _folded(*entries[data.draw(st.sampled_from(starts), label="start") :])
    for entry in data.draw(st.lists(st.sampled_from(entries)) if entries else st.just([])):
        follower.apply(entry)
    assert follower.values == active.values
    assert follower.last_request_seq == active.last_request_seq


@pytest.mark.parametrize(
    ("changes", "change_bytes", "checkpoint_bytes", "due"),
    [
        (9, 1000, 0, False),
        (10, 1000, 0, True),
        (10, 99, 200, False),
        (10, 100, 200, True),
        # However large the state is, 8 MiB of changes are enough.
        (10, 2**23, 2**40, True),
        (10, 2**23 - 1, 2**40, False),
    ],
)
def test_a_large_state_is_not_written_for_small_changes(
    changes: int, change_bytes: int, checkpoint_bytes: int, due: bool
) -> None:
    journal = ResourceJournal(
        "A", changes=changes, change_bytes=change_bytes, checkpoint_bytes=checkpoint_bytes
    )
    assert journal.wants_checkpoint(every_changes=10) is due


def test_a_stored_checkpoint_starts_the_count_again() -> None:
    journal = _folded(_outcome(1, 1, Change({"a": 1})))
    assert not journal.is_covered
    journal.checkpointed(journal.checkpoint(), 500)
    assert (journal.changes, journal.change_bytes, journal.checkpoint_bytes) == (0, 0, 500)
    assert journal.is_covered
