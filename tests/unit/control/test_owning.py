"""Ownership by a service's log, as values: what is written, and which leases follow from it."""

from __future__ import annotations

import pytest
from aegis_control.domain.leading.lease import Owner
from aegis_control.domain.leading.owning import (
    LOSS_ACCEPTED,
    LogBehind,
    Owned,
    StoredGate,
    StoredMoves,
    moves,
    parts,
    to_nobody,
)
from aegis_sdk.contract.control import LeaseState
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.contract.turns.writers import run_of, writer_name
from aegis_sdk.domain.turns.ownership import NOBODY
from hypothesis import given
from hypothesis import strategies as st

A, B = Owner("a", "run1"), Owner("b", "run1")
RUNS = {"a": A, "b": B}
NAMES = st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable() or "\n" in text)


def own(number: int, **to: str) -> StoredMoves:
    return StoredMoves(10 * number, number, Moves(to, f"why {number}"), 100.0 + number)


def read(*entries: StoredMoves | StoredGate) -> Owned:
    owned = Owned()
    for entry in entries:
        owned.read(entry)
    return owned


def test_ten_thousand_resources_are_one_entry() -> None:
    many = {f"ACC-{n:05}": "instance-1~run1" for n in range(10_000)}
    assert list(parts(many, bytes_max=1 << 20)) == [many]


@given(
    st.dictionaries(NAMES, st.sampled_from(["a~1", "b~2", "a-very-long-instance-id~run"])),
    st.integers(4_500, 9_000),
)
def test_what_does_not_fit_is_split_and_nothing_is_left_out(
    many: dict[str, str], bytes_max: int
) -> None:
    split = list(parts(many, bytes_max=bytes_max))
    assert {name: writer for part in split for name, writer in part.items()} == many
    assert sum(map(len, split)) == len(many)
    assert all(len(Moves(part).encode()) <= bytes_max for part in split)


@given(st.dictionaries(st.text(min_size=1), st.sampled_from(["", "a~1", "b~2"])))
def test_an_entry_is_read_as_it_was_written(to: dict[str, str]) -> None:
    assert Moves.decode(Moves(to, "why", "log-1").encode()) == Moves(to, "why", "log-1")


def test_a_writer_names_its_run() -> None:
    assert run_of(writer_name("a-1_b", "run-2")) == ("a-1_b", "run-2")


def test_only_what_changes_hands_is_written() -> None:
    owned = read(own(1, R1="a~run1", R2="b~run1"))
    plan = {"b": ["R1", "R2"], "gone": ["R3"]}
    assert moves(owned, plan, RUNS) == {"R1": "b~run1"}
    assert to_nobody(owned, ["R1", "R9"]) == {"R1": ""}


def test_a_new_run_of_the_same_instance_is_another_owner() -> None:
    owned = read(own(1, R1="a~run0"))
    assert moves(owned, {"a": ["R1"]}, RUNS) == {"R1": "a~run1"}


def test_a_lease_follows_the_log_and_keeps_what_only_control_knows() -> None:
    """G5: owner and epoch are the log's; whether a lost owner is waited for is not."""
    owned = read(own(1, R1="a~run1", R2="b~run1"), own(2, R1="b~run1"))
    lease = owned.record("accounts", "R1", None)
    assert (lease.owner, lease.incarnation, lease.epoch) == ("b", "run1", 2)
    assert (lease.state, lease.reason, lease.since) == (LeaseState.HELD, "why 2", 102.0)
    assert owned.says(lease.model_copy(update={"state": LeaseState.WAITING}))
    assert not owned.says(lease.model_copy(update={"epoch": 1}))
    assert not owned.says(lease.model_copy(update={"incarnation": "run2"}))
    assert not owned.says(lease.model_copy(update={"state": LeaseState.VACANT}))
    assert owned.record("accounts", "R2", None).epoch == 1


def test_what_is_nobodys_is_vacant_and_people_see_whose_it_was() -> None:
    owned = read(own(1, R1="a~run1"))
    before = owned.record("accounts", "R1", None)
    owned.read(own(2, R1=""))
    lease = owned.record("accounts", "R1", before)
    assert (lease.state, lease.owner, lease.epoch) == (LeaseState.VACANT, "a", 2)
    assert owned.says(lease)


def test_numbers_go_on_behind_every_epoch_that_was_ever_told() -> None:
    """G5: a service that had epochs before its log existed, and an older copy of a log."""
    assert Owned().next_number(7) == 8
    assert read(own(8, R1="a~run1")).next_number(8) == 9
    older = read(own(8, R1="a~run1"))
    with pytest.raises(LogBehind, match="ends at ownership entry 8, and a lease names 11"):
        older.next_number(11)
    assert list(older.missing(11)) == [9, 10, 11]


def test_what_a_log_has_of_a_resource_may_stand_before_the_entry_by_which_it_began_again() -> None:
    """Entries that named the resource first may be among what was lost."""
    owned = Owned()
    owned.read(StoredMoves(40, 1, Moves({"R": NOBODY}, LOSS_ACCEPTED)))
    owned.read(StoredMoves(41, 2, Moves({"R": "w", "NEW": "w"})))
    assert owned.begins(["R"]) == 0
    assert owned.begins(["NEW"]) == 40


def test_a_writer_that_lost_something_needs_a_gate_behind_that() -> None:
    """R4."""
    owned = read(own(1, R1="a~run1"), StoredGate(11, "a~run1"), own(2, R1="b~run1"))
    assert owned.ownership.unshut(["R1"]) == {"a~run1"}
    owned.read(StoredGate(21, "a~run1"))
    assert owned.ownership.unshut(["R1"]) == set()


WRITERS = ["a~1", "b~1", "c~1"]


@given(
    st.lists(
        st.one_of(
            st.sampled_from(WRITERS),
            st.dictionaries(st.sampled_from(["R1", "R2", "R3"]), st.sampled_from(["", *WRITERS])),
        )
    ),
    st.integers(0, 20),
)
def test_the_leases_do_not_depend_on_when_the_log_was_read(
    told: list[str | dict[str, str]], cut: int
) -> None:
    """Two control replicas that have read the log in different portions say the same."""
    entries: list[StoredMoves | StoredGate] = []
    number = 0
    for seq, each in enumerate(told, 1):
        if isinstance(each, str):
            entries.append(StoredGate(seq, each))
        else:
            number += 1
            entries.append(StoredMoves(seq, number, Moves(each)))
    whole, again = read(*entries), read(*entries[:cut])
    again.read(*entries[:1]) if entries else None  # what was read before says nothing new
    for entry in entries[cut:]:
        again.read(entry)
    names = ["R1", "R2", "R3"]
    leases = [whole.record("accounts", name, None) for name in names]
    assert leases == [again.record("accounts", name, None) for name in names]
    assert whole.ownership.unshut(names) == again.ownership.unshut(names)
    last = {name: each[name] for each in told if isinstance(each, dict) for name in each}
    assert {n: whole.ownership.owner(n) for n in last} == last
