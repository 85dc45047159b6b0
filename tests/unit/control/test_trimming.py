"""What the trim of a log may take, and which resources of nobody are saved for it."""

from __future__ import annotations

import pytest
from aegis_control.domain.leading import trimming
from aegis_control.domain.leading.owning import Owned, StoredGate, StoredMoves
from aegis_sdk.contract.envelope import Outcome, OutcomeKind
from aegis_sdk.contract.turns.checkpoint import Checkpoint, SavedUpTo
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.domain.turns.entries import End, Own, Settled, Turn
from aegis_sdk.domain.turns.keeping import Keeping
from aegis_sdk.domain.turns.ownership import MissingOwnership


def saved(read: int, *, own: int = 1, writer: str = "w1") -> SavedUpTo:
    return SavedUpTo(read, 0, 1, own, writer)


def own(seq: int, number: int, **moves: str) -> StoredMoves:
    return StoredMoves(seq, number, Moves(moves))


def test_the_oldest_checkpoint_and_the_retention_are_the_limit() -> None:
    heads = {"A": saved(90), "B": saved(50)}
    assert trimming.limit(heads, {}, old=70) == trimming.Limit(50, "B")
    assert trimming.limit(heads, {}, old=40) == trimming.Limit(40)


def test_what_has_no_checkpoint_keeps_all_from_the_entry_that_named_it_first() -> None:
    assert trimming.limit({"A": saved(90)}, {"A": 3, "B": 60}, old=80) == trimming.Limit(59, "B")


def test_gates_go_but_of_writers_of_newest_checkpoints() -> None:
    """A gate that stays while its entries go is taken by a sleeper for one of its own."""
    gates = {"w1": 10, "w2": 20, "w3": 99}
    assert trimming.gates_to_go({"A": saved(90)}, gates, upto=50) == ["w2"]


@pytest.mark.parametrize(
    ("newest", "kept"),
    [
        (None, {"A": True}),
        (saved(10), {"A": True}),
        (saved(10, own=7, writer=""), {"A": False}),
        (saved(10, own=6, writer=""), {"A": True}),  # somebody had it in between
        (saved(80, own=7, writer=""), {}),
    ],
)
def test_what_is_nobodys_is_saved_when_it_is_in_the_way(
    newest: SavedUpTo | None, kept: dict[str, bool]
) -> None:
    heads = {} if newest is None else {"A": newest}
    assert trimming.to_keep(heads, {"A": 7}, old=50) == kept


def test_only_what_is_nobodys_and_whose_writers_are_shut_out_is_vacant() -> None:
    """R4: a turn of one that is not may still come behind the checkpoint."""
    owned = Owned()
    owned.read(own(1, 1, A="w1", B="w1"))
    owned.read(own(2, 2, A=""))
    assert owned.vacant() == {}
    owned.read(StoredGate(3, "w1"))
    assert owned.vacant() == {"A": 2}


def test_a_leader_of_a_trimmed_log_knows_owners_by_their_checkpoints() -> None:
    """One that was saved before a later entry is told by that; the entries before the first one left are not missed."""
    owned = Owned({"A": saved(90, own=5, writer="w1"), "B": saved(70, own=4, writer="w2")})
    owned.read(own(72, 5, A="w1"))
    owned.read(own(95, 6, B="w3"))
    owners = {name: owned.ownership.owner(name) for name in ("A", "B")}
    assert owners == {"A": "w1", "B": "w3"}
    assert owned.ownership.unshut(["B"]) == {"w2"}
    assert owned.next_number(6) == 7


def test_a_log_that_was_trimmed_while_it_was_read_is_read_again() -> None:
    owned = Owned({"A": saved(90, own=5)})
    with pytest.raises(MissingOwnership):
        owned.read(own(120, 8, B="w1"))


def outcome(number: int, value: bytes) -> Outcome:
    return Outcome(
        OutcomeKind.EXECUTED, b"", change=b'{"set":{"n":%s},"delete":[]}' % value, number=number
    )


def test_what_stands_behind_a_checkpoint_is_in_the_next_one() -> None:
    """G2, G6: outcomes, ends, and what was handed in."""
    first = Checkpoint("w1", "A", read=10, number=1, epoch=1, own=1, values=b'{"n":1}')
    keeping = Keeping({"A": first}, own=2, log="L")
    assert keeping.begins_after == 10
    keeping.read(Turn(11, "w1", 4, [Settled("c.2", "A", outcome(2, b"2"))], stored_s=100.0))
    keeping.read(Own(12, 2, {"A": ""}))
    keeping.read(End(13, "A", "c.3", stored_s=101.0))
    made = keeping.checkpoint("A", read=20, epoch=2, kept_s=600.0)
    assert (made.writer, made.read, made.number, made.epoch, made.own) == ("", 20, 2, 2, 2)
    assert made.values == b'{"n":2}'
    assert made.ended == {"c.3": 101.0}
    assert list(made.sessions) == [("c", 3, "3", 101.0)]


def test_one_that_somebody_got_meanwhile_is_left_alone() -> None:
    keeping = Keeping({"A": None}, own=2, log="L")
    with pytest.raises(MissingOwnership):
        keeping.read(Own(12, 3, {"A": "w2"}))
