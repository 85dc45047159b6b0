"""Any bytes in a journal: what the state does not need is skipped, and a state is never told without what it needs."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from aegis_sdk.application.outcomes import result_of
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
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import EntryUnreadable, Moves
from aegis_sdk.domain.turns.parsing import parse_entry
from aegis_sdk.errors import AegisError, OutcomeUnreadable
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.sdk.support import ADD

CHANGED = b'1\n{"set":{"a":2},"delete":[]}'
CHECKPOINT = Checkpoint("w", "A", read=3, epoch=1, number=2, own=1, values=b'{"a":1}').encode()


def test_a_checkpoint_with_one_field_more_is_read() -> None:
    head, _, values = CHECKPOINT.partition(b"\n")
    newer = json.dumps({**json.loads(head), "newer": True}).encode() + b"\n" + values
    assert Checkpoint.decode(newer) == Checkpoint.decode(CHECKPOINT)


ODD_CHECKPOINTS = {
    "no JSON": b"\xff",
    "no resource": CHECKPOINT.replace(b'"resource":"A",', b""),
    "a position in words": CHECKPOINT.replace(b'"read":3', b'"read":"3"'),
    "a position below zero": CHECKPOINT.replace(b'"read":3', b'"read":-3'),
    "no values": CHECKPOINT.partition(b"\n")[0],
    "values in a list": CHECKPOINT.replace(b'{"a":1}', b"[1]"),
}


@pytest.mark.parametrize("odd", ODD_CHECKPOINTS.values(), ids=ODD_CHECKPOINTS)
def test_a_state_is_not_told_without_the_checkpoint_that_it_begins_with(odd: bytes) -> None:
    """G6: never a wrong state."""
    with pytest.raises(ValueError, match=r"."):
        Checkpoint.decode(odd)


WORDS = st.lists(
    st.sampled_from(
        ["turn", "own", "gate", "claim", "end", "at", "any", "try", "state", "w", "c", "1"]
    )
    | st.text(max_size=5),
    min_size=1,
    max_size=5,
)


@given(words=WORDS, header=st.text(max_size=10), data=st.binary(max_size=40))
def test_whatever_is_in_a_log_the_fold_says_what_it_could_not_read(
    words: list[str], header: str, data: bytes
) -> None:
    with contextlib.suppress(EntryUnreadable):
        parse_entry(words, header, data, 3, 0.0)


HEADERS = st.dictionaries(
    st.sampled_from([OUTCOME, "x"]),
    st.text(max_size=20)
    | st.sampled_from(["executed", "executed seq=4 epoch=x", "cancelled", "rejected a=b=c"]),
    max_size=2,
)
PAYLOADS = st.binary(max_size=30) | st.sampled_from([CHANGED, CHECKPOINT, b"7"])


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
    for kind in (Ack, Command, Heartbeat, Registration, RegistrationReply, Snapshot)
} | {
    kind.__name__: lambda data, kind=kind: kind.read("accounts.R1", data)
    for kind in (ServiceRecord, InstanceRecord, LeaseRecord)
}
WIRE |= {"Checkpoint": Checkpoint.decode, "Change": Change.decode, "Moves": Moves.decode}
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
