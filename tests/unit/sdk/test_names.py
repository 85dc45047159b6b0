"""Names, ids and subjects: every resource id a user may choose has one token and comes back from it."""

from __future__ import annotations

import re

import pytest
from aegis_sdk.contract.ids import (
    DEPTH_MAX,
    call_of,
    call_token,
    child_id,
    generation_id,
    is_keyed,
    keyed_id,
    split_id,
)
from aegis_sdk.contract.names import (
    RESOURCE_BYTES_MAX,
    check_instance,
    check_service,
    decode_token,
    encode_token,
)
from aegis_sdk.contract.subjects import Subjects, resource_token
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.errors import InvalidName
from hypothesis import example, given
from hypothesis import strategies as st

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=RESOURCE_BYTES_MAX
).filter(lambda text: len(text.encode()) <= RESOURCE_BYTES_MAX)


@given(TEXTS)
@example("-")
@example("=2D")
@example("=")
@example("=41")
@example("a.b*c>d e")
@example("\x00\n\r\t")
@example("Müller 株式 €")
def test_any_text_comes_back_from_its_token(text: str) -> None:
    assert decode_token(encode_token(text)) == text


@given(TEXTS)
@example("-")
def test_a_token_fits_a_subject_and_a_key(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_=-]{1,600}", encode_token(text))


@given(TEXTS, TEXTS)
@example("-", "=2D")
@example("=41", "A")
def test_two_texts_never_share_a_token(one: str, other: str) -> None:
    assert (encode_token(one) == encode_token(other)) is (one == other)


def test_a_resource_called_dash_is_not_the_group() -> None:
    assert resource_token(None) == "-"
    assert resource_token("-") == "=2D"
    assert resource_token("--") == "--"


@pytest.mark.parametrize("text", ["x" * 200, "€" * 66 + "xx", "\U0001f600" * 50])
def test_two_hundred_bytes_are_allowed(text: str) -> None:
    assert len(text.encode()) == RESOURCE_BYTES_MAX
    assert decode_token(encode_token(text)) == text


@pytest.mark.parametrize("text", ["", "x" * 201, "€" * 67, "\ud800", "a\udfffb"])
def test_empty_too_long_and_surrogates_are_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        encode_token(text)


@pytest.mark.parametrize("name", ["a", "orders", "a1-b_c", "x" * 63])
def test_a_service_name_is_lower_case_letters_digits_and_dashes(name: str) -> None:
    assert check_service(name) == name


@pytest.mark.parametrize(
    "name", ["", "1a", "-a", "A", "a.b", "a b", "ä", "x" * 64, "a\n", "a>", "a*"]
)
def test_other_service_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        check_service(name)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a\n", "x" * 65, "*", ">"])
def test_an_instance_id_is_one_token(name: str) -> None:
    assert check_instance("Orders-1_b") == "Orders-1_b"
    with pytest.raises(InvalidName):
        check_instance(name)


# --- ids ----------------------------------------------------------------------------------------------


def test_a_nested_request_is_named_by_what_it_asks() -> None:
    """G3: a handler that runs again asks with the same ids, in whatever order."""
    first, second = call_token("book", "9f", 1), call_token("book", "9f", 2)
    assert (first, second) == ("book-9f", "book-9fx2")
    assert child_id("caller.17", second) == "caller~17.book-9fx2"
    assert child_id(child_id("caller.17", second), first) == "caller~17~book-9fx2.book-9f"


def test_the_generations_of_a_nested_request_are_told_apart() -> None:
    """G3: what a retry asks anew is another request."""
    child = child_id("caller.17", call_token("book", "9f", 2))
    assert generation_id(child, 0) == child
    assert len({generation_id(child, n) for n in range(20)}) == 20
    assert {call_of(generation_id(child, n)) for n in range(20)} == {child}


CALLS = st.builds(
    call_token,
    st.sampled_from(["book", "book-r1", "x2", "a" * 63]),
    st.sampled_from(["9f", "a1"]),
    st.integers(1, 999),
)


@given(st.lists(CALLS, min_size=1, max_size=DEPTH_MAX), st.data())
def test_different_nested_requests_have_different_ids(path: list[str], data: st.DataObject) -> None:
    other = data.draw(st.lists(CALLS, min_size=1, max_size=DEPTH_MAX))

    def nested(calls: list[str]) -> str:
        request_id = "caller.1"
        for call in calls:
            request_id = child_id(request_id, call)
        return request_id

    assert (nested(path) == nested(other)) is (path == other)
    assert split_id(nested(path))


def test_endless_nesting_is_refused() -> None:
    request_id = "caller.1"
    for _ in range(DEPTH_MAX):
        request_id = child_id(request_id, "book-9f")
    with pytest.raises(InvalidName, match="nested"):
        child_id(request_id, "book-9f")


def test_what_is_handed_in_may_hand_in_the_next_for_ever() -> None:
    """Nobody waits for it; each has an id of its own, however far down."""
    seen = {request_id := "caller.1"}
    for _ in range(10 * DEPTH_MAX):
        seen.add(request_id := child_id(request_id, "book-9f", waits=False))
        assert split_id(request_id)
    assert len(seen) == 10 * DEPTH_MAX + 1


@given(TEXTS)
def test_any_text_can_be_an_idempotency_key(key: str) -> None:
    caller, number = split_id(keyed_id("svc", key))
    assert caller == "key-svc"
    assert decode_token(number) == key
    assert is_keyed(keyed_id("svc", key))


def test_the_ids_of_clients_are_not_keys() -> None:
    assert not is_keyed("keyring.1")
    assert not is_keyed("key~17.1")


@pytest.mark.parametrize("text", ["", "a", "a.", ".1", "a.b.c", "a b.1"])
def test_other_texts_are_no_request_ids(text: str) -> None:
    with pytest.raises(InvalidName):
        split_id(text)


# --- subjects -----------------------------------------------------------------------------------------


def _matches(pattern: str, subject: str) -> bool:
    """As a NATS server matches."""
    tokens, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        return len(tokens) >= len(wanted) and _all_match(wanted[:-1], tokens)
    return len(tokens) == len(wanted) and _all_match(wanted, tokens)


def _all_match(wanted: list[str], tokens: list[str]) -> bool:
    return all(
        want in ("*", token) for want, token in zip(wanted, tokens, strict=False) if want != ">"
    )


@given(TEXTS)
def test_every_entry_lies_in_the_log_of_its_service(resource: str) -> None:
    subjects = Subjects()
    names = LogSubjects(subjects, "svc")
    for subject in (
        names.single(resource, "caller~1.2"),
        names.single(None, "caller.2"),
        names.end(resource, "caller.2"),
        names.checkpoint(resource),
        names.part(resource, "12-3", 0),
        names.own(1),
    ):
        assert _matches(subjects.journal("svc"), subject)


def test_requests_of_the_group_and_of_resources_are_apart() -> None:
    names = Subjects()
    assert names.request("svc", None) == "aegis.req.svc.any"
    assert names.request("svc", "any") == "aegis.req.svc.at.any"
    assert names.request("svc", "A B") == "aegis.req.svc.at.A=20B"
    assert _matches(names.requests("svc"), names.request("svc", "any"))


def test_environments_share_no_stream_bucket_or_subject() -> None:
    def all_names(names: Subjects) -> set[str]:
        return {
            names.request_stream("svc"),
            names.journal_stream("svc"),
            names.dlq_stream,
            names.registry_bucket,
            names.leases_bucket,
            names.control_bucket,
            names.request("svc", None),
            LogSubjects(names, "svc").single(None, "c.1"),
            names.reply("c.1"),
            names.dead_letter("svc", "c.1"),
            names.register,
            names.leave,
            names.heartbeat("svc", "i"),
            names.command("i"),
            names.admin("list"),
            names.event("failover"),
            names.client_name("svc", "i", "main"),
        }

    assert not all_names(Subjects("prod")) & all_names(Subjects("test"))
    assert len(all_names(Subjects())) == 17


def test_a_prefix_that_subjects_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidName):
        Subjects("Prod.1")
