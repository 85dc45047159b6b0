"""Any bytes in a journal: what the state does not need is skipped, and a state is never told without what it needs."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from aegis_sdk.application.outcomes import result_of
from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.checkpoint import Checkpoint
from aegis_sdk.contract.control import (
    Ack,
    Command,
    Heartbeat,
    InstanceRecord,
    LeaseRecord,
    Registration,
    RegistrationReply,
    ServiceRecord,
)
from aegis_sdk.contract.envelope import OUTCOME, Change, Outcome, OutcomeKind
from aegis_sdk.contract.metrics import Snapshot
from aegis_sdk.domain.journal import Entry, EntryKind, EntryUnreadable, ResourceJournal
from aegis_sdk.errors import AegisError, OutcomeUnreadable
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.sdk.support import ADD

EXECUTED = {OUTCOME: "executed seq=4"}
CHANGED = b'1\n{"set":{"a":2},"delete":[]}'
FENCE = Fence(epoch=1, owner="i", incarnation="x", grant="g", start_seq=1).model_dump_json()
CHECKPOINT = Checkpoint(3, 3, b'{"a":1}').encode()


def entry(seq: int, kind: EntryKind, payload: bytes, name: str = "c.1", **headers: str) -> Entry:
    return Entry(seq, "A", kind, name, headers, payload)


def outcome(seq: int, header: str | None, payload: bytes = CHANGED) -> Entry:
    headers = {} if header is None else {OUTCOME: header}
    return Entry(seq, "A", EntryKind.OUTCOME, "c.1", headers, payload)


def begun(*, whole: bool = True) -> ResourceJournal:
    journal = ResourceJournal("A", whole=whole)
    if whole:
        assert not journal.apply(outcome(2, "executed seq=3", b'1\n{"set":{"a":1},"delete":[]}'))
    return journal


UNREADABLE = {
    "a kind of a newer version": outcome(3, "deferred seq=4"),
    "a place that is no number": outcome(3, "executed seq=four"),
    "a change that is no JSON": outcome(3, "executed seq=4", b"1\n{"),
    "a change of another form": outcome(3, "executed seq=4", b'1\n{"ops": []}'),
    "a change that is a list": outcome(3, "executed seq=4", b"1\n[]"),
}


@pytest.mark.parametrize("odd", UNREADABLE.values(), ids=UNREADABLE)
def test_a_state_is_not_told_without_an_outcome_that_can_not_be_read(odd: Entry) -> None:
    """G6: it may hold a change."""
    journal = begun()
    with pytest.raises(EntryUnreadable, match=r"out c\.1 at 3"):
        journal.apply(odd)
    assert journal.values == {"a": 1}
    assert journal.last_request_seq == 3


SKIPPED = {
    "no outcome at all": outcome(3, None, b"\xff"),
    "a fence": entry(3, EntryKind.FENCE, b'{"epoch": "many"}', ""),
    "a part": entry(3, EntryKind.PART, b"", "7.many"),
    "an attempt": entry(3, EntryKind.ATTEMPT, b"often"),
    "a checkpoint of what was read": entry(3, EntryKind.CHECKPOINT, b"\xff", ""),
}


@pytest.mark.parametrize("odd", SKIPPED.values(), ids=SKIPPED)
def test_a_stray_that_holds_no_state_is_skipped_and_named(odd: Entry) -> None:
    journal = begun()
    assert " at 3: " in journal.apply(odd)
    assert not journal.apply(outcome(4, "executed seq=4"))
    assert journal.values == {"a": 2}


def test_a_fence_that_can_not_be_read_is_nobodys() -> None:
    """G5: no instance takes it for its own."""
    journal = begun()
    assert not journal.apply(entry(3, EntryKind.FENCE, FENCE.encode(), ""))
    assert journal.apply(entry(4, EntryKind.FENCE, b"\x00", ""))
    assert journal.fence is not None
    assert journal.fence.seq == 4
    assert not journal.fence.is_for("i", "x")


def test_a_checkpoint_with_one_field_more_is_read() -> None:
    head, _, values = CHECKPOINT.partition(b"\n")
    newer = json.dumps({**json.loads(head), "newer": True}).encode() + b"\n" + values
    journal = begun(whole=False)
    assert not journal.apply(entry(3, EntryKind.CHECKPOINT, newer, ""))
    assert (journal.values, journal.whole) == ({"a": 1}, True)


ODD_CHECKPOINTS = {
    "no JSON": b"\xff",
    "no position": b'{"last_request_seq":3,"parts":0,"first_seq":0}\n{}',
    "a position in words": CHECKPOINT.replace(b'"position":3', b'"position":"3"'),
    "a position below zero": CHECKPOINT.replace(b'"position":3', b'"position":-3'),
    "no values": CHECKPOINT.partition(b"\n")[0],
    "values in a list": CHECKPOINT.replace(b'{"a":1}', b"[1]"),
    "parts that are gone": Checkpoint(3, 3, b"", 2, 1).encode(),
}


@pytest.mark.parametrize("odd", ODD_CHECKPOINTS.values(), ids=ODD_CHECKPOINTS)
def test_a_state_is_not_told_without_the_checkpoint_that_it_begins_with(odd: bytes) -> None:
    """G6: never a wrong state."""
    journal = begun(whole=False)
    with pytest.raises(EntryUnreadable):
        journal.apply(entry(3, EntryKind.CHECKPOINT, odd, ""))
    assert not journal.whole


HEADERS = st.dictionaries(
    st.sampled_from([OUTCOME, "x"]),
    st.text(max_size=20)
    | st.sampled_from(["executed", "executed seq=4 epoch=x", "cancelled", "rejected a=b=c"]),
    max_size=2,
)
PAYLOADS = st.binary(max_size=30) | st.sampled_from([CHANGED, CHECKPOINT, FENCE.encode(), b"7"])


@given(
    odd=st.lists(
        st.tuples(st.sampled_from(EntryKind), HEADERS, PAYLOADS, st.text(max_size=8)), max_size=6
    ),
    whole=st.booleans(),
)
def test_whatever_is_in_a_journal_the_fold_says_what_it_could_not_read(
    odd: list[tuple[EntryKind, dict[str, str], bytes, str]], whole: bool
) -> None:
    journal = begun(whole=whole)
    for seq, (kind, headers, payload, name) in enumerate(odd, 3):
        with contextlib.suppress(EntryUnreadable):
            journal.apply(Entry(seq, "A", kind, name, headers, payload))
    assert isinstance(journal.values, dict)


@given(headers=HEADERS, payload=PAYLOADS)
def test_whatever_stands_where_an_outcome_belongs_the_caller_is_told_one_end(
    headers: dict[str, str], payload: bytes
) -> None:
    """G4: an entry that can't be read has an error of its own."""
    found = Outcome.found(headers, payload)
    if found.kind is OutcomeKind.UNREADABLE:
        with pytest.raises(OutcomeUnreadable, match=r"ledger\.add: c\.7 has ended") as raised:
            result_of(found, ADD, "c.7")
        assert raised.value.request_id == "c.7"
    elif found.kind is not OutcomeKind.EXECUTED:
        with pytest.raises(AegisError):
            result_of(found, ADD, "c.7")


WIRE: dict[str, Any] = {
    kind.__name__: kind.model_validate_json
    for kind in (Ack, Command, Heartbeat, Registration, RegistrationReply, Snapshot, Fence)
} | {
    kind.__name__: lambda data, kind=kind: kind.read("accounts.R1", data)
    for kind in (ServiceRecord, InstanceRecord, LeaseRecord)
}
WIRE |= {"Checkpoint": Checkpoint.decode, "Change": Change.decode}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["service", "kind", "n", "epoch", "set", "delete", "position", "numbers"])
        | st.text(max_size=5),
        inner,
        max_size=6,
    ),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("parse", WIRE.values(), ids=WIRE)
@given(data=st.binary(max_size=60) | JSON_VALUES)
def test_what_can_not_be_read_is_refused_with_one_kind_of_error(parse: Any, data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse(data)
