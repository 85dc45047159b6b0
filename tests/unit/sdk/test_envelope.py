"""Stored messages come back from headers and body as they were."""

from __future__ import annotations

from typing import Any

import pytest
from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request, fingerprint
from aegis_sdk.contract.trace import new_traceparent, parse_traceparent, span_id, trace_id
from hypothesis import given
from hypothesis import strategies as st

HEADER = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=8,
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)

REQUESTS = st.builds(
    Request,
    request_id=st.sampled_from(["c.1", "c~1.2", "key-svc.a=20b"]),
    service=st.just("svc"),
    method=st.just("book"),
    resource=st.none() | st.just("ACC 1"),
    payload=st.binary(max_size=50),
    deadline_s=st.none() | st.integers(0, 2**40).map(lambda ms: ms / 1000),
    attempt=st.integers(1, 9),
    fingerprint=st.just("") | st.just("0123456789abcdef"),
    chain=st.lists(st.sampled_from(["svc/A", "svc/=2D", "b/-"]), max_size=3).map(tuple),
    traceparent=st.just("") | st.just(new_traceparent()),
    tracestate=HEADER,
)


@given(REQUESTS)
def test_a_request_comes_back_from_the_wire(request: Request) -> None:
    parsed = Request.parse(
        request.headers(), request.payload, service="svc", resource=request.resource
    )
    assert parsed == request


@given(st.floats(1.7e9, 2.5e9))
def test_a_deadline_comes_to_nobody_as_a_later_one(deadline_s: float) -> None:
    """Else what had passed for its caller could be run half a millisecond later."""
    headers = Request("c.1", "svc", "book", None, b"{}", deadline_s=deadline_s).headers()
    parsed = Request.parse(headers, b"{}", service="svc", resource=None)
    assert parsed.deadline_s is not None
    assert deadline_s - 0.001 < parsed.deadline_s <= deadline_s + 2e-6


@pytest.mark.parametrize("missing", ["Nats-Msg-Id", "aegis-method"])
def test_a_message_of_another_writer_is_not_taken_for_a_request(missing: str) -> None:
    headers = Request("c.1", "svc", "book", None, b"{}").headers()
    del headers[missing]
    with pytest.raises(KeyError):
        Request.parse(headers, b"{}", service="svc", resource=None)


@given(st.builds(Change, st.dictionaries(KEYS, JSON, max_size=4), st.lists(KEYS).map(tuple)))
def test_a_change_comes_back_and_is_one_line(change: Change) -> None:
    """The line feed ends the reply in an outcome's body: neither line may hold one."""
    assert Change.decode(change.encode()) == change
    assert b"\n" not in change.encode()


def test_no_change_is_falsy() -> None:
    assert not Change()
    assert Change({"a": None})
    assert Change(delete=("a",))
    assert Change.decode(b"") == Change()


@given(
    st.sampled_from(OutcomeKind),
    JSON,
    st.booleans(),
    st.integers(0, 2**60),
    st.integers(0, 2**60),
    st.sampled_from(["", "svc-1"]),
)
def test_an_outcome_comes_back_with_its_change(
    kind: OutcomeKind, message: Any, changes: bool, number: int, epoch: int, instance_id: str
) -> None:
    """G3: reply and change are one message."""
    outcome = Outcome.error(
        kind,
        "some_code",
        "two\nlines",
        details={"value": message},
        change=Change({"a\nb": message}).encode() if changes else b"",
        epoch=epoch,
        instance_id=instance_id,
        fingerprint="0123456789abcdef",
        traceparent=new_traceparent(),
    )
    outcome.number = number
    assert Outcome.parse(outcome.headers(), outcome.payload()) == outcome
    assert ErrorBody.model_validate_json(outcome.body).details == {"value": message}


def test_an_outcome_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="later"):
        Outcome.parse({"aegis-outcome": "later"}, b"")
    with pytest.raises(KeyError):
        Outcome.parse({}, b"")


def test_a_fingerprint_tells_method_resource_and_payload_apart() -> None:
    prints = {
        fingerprint("book", "A", b"1"),
        fingerprint("book", None, b"1"),
        fingerprint("book", "", b"1"),
        fingerprint("boo", "A", b"k1"),
        fingerprint("book", "B", b"1"),
        fingerprint("book", "A", b"2"),
        fingerprint("bookA", None, b"1"),
    }
    assert len(prints) == 7
    assert fingerprint("book", "A", b"1") in prints


# --- trace --------------------------------------------------------------------------------------------


def test_every_hop_keeps_the_trace_and_gets_its_own_span() -> None:
    first = new_traceparent()
    second = new_traceparent(first)
    assert trace_id(first) == trace_id(second)
    assert len(trace_id(first)) == 32
    assert span_id(first) != span_id(second)
    assert len(span_id(first)) == 16


@pytest.mark.parametrize("parent", ["", "rubbish", "00-xyz-abc-01", "ff-" + "0" * 52])
def test_a_parent_that_is_none_begins_a_new_trace(parent: str) -> None:
    assert len(trace_id(new_traceparent(parent))) == 32


def test_what_is_no_traceparent_has_no_ids() -> None:
    assert trace_id("") == trace_id("00-abc") == span_id("") == span_id("x") == ""


def test_a_trace_that_is_not_sampled_stays_so() -> None:
    assert new_traceparent(f"00-{'a' * 32}-{'b' * 16}-00").endswith("-00")
    assert new_traceparent().endswith("-01")


def test_a_traceparents_parts_are_numbers() -> None:
    assert parse_traceparent(f"00-{'0' * 31}a-{'0' * 15}b-01") == (10, 11, 1)
    assert parse_traceparent("") is None
