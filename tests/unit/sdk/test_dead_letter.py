"""A dead letter as stored, and the request that sends it again."""

from __future__ import annotations

import pytest
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import MSG_ID, Request
from aegis_sdk.contract.ids import (
    check_request_id,
    child_id,
    children_of,
    is_keyed,
    keyed_id,
    parent_of,
    redriven_id,
)
from aegis_sdk.errors import InvalidName

REQUEST = Request("K.1", "accounts", "book", "ACC 1/é.x", b"{}", deadline_s=7.5, attempt=3)


@pytest.mark.parametrize("resource", ["ACC 1/é.x", None, "-"])
def test_it_comes_back_as_it_was_stored(resource: str | None) -> None:
    request = Request("K.1", "accounts", "book", resource, b"{}", deadline_s=7.5, attempt=3)
    letter = DeadLetter(request, "gave_up", "begun 3 times")
    assert DeadLetter.parse(letter.headers(), b"{}") == letter
    assert letter.headers()[MSG_ID] == "dlq.K.1"


def test_an_error_of_several_lines_stays_one_header() -> None:
    headers = DeadLetter(REQUEST, "gave_up", "first\r\nNats-Rollup: all\n  last").headers()
    assert headers["aegis-error"] == "first Nats-Rollup: all last"


@pytest.mark.parametrize("headers", [{}, {"aegis-service": "a"}])
def test_what_is_none_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        DeadLetter.parse(headers, b"")


def test_redriven_it_is_a_new_request_that_may_have_been_sent_before() -> None:
    """G3: the same id at every call."""
    again = DeadLetter(REQUEST, "gave_up", "").redriven("trace")
    assert again.request_id == "K.1+1"
    assert (again.deadline_s, again.attempt, again.traceparent) == (None, 2, "trace")
    assert (again.method, again.resource, again.payload) == ("book", "ACC 1/é.x", b"{}")


def test_ids_of_redrives_count_and_meet_no_other_id() -> None:
    assert redriven_id(redriven_id("K.1")) == "K.1+2"
    assert redriven_id("K~1.2") == "K~1.2+1"
    mine = redriven_id(keyed_id("accounts", "a"))
    assert is_keyed(mine)
    assert mine != keyed_id("accounts", "a+1")


def test_children_and_parents_are_told_from_ids() -> None:
    assert child_id("K.17", "2").startswith(children_of("K.17") + ".")
    assert parent_of(child_id("K.17", "2")) == "K.17"
    assert parent_of(child_id(child_id("K.17", "2"), "1")) == "K~17.2"
    assert parent_of(child_id("K.17+1", "2")) == "K.17+1"
    assert parent_of("K.17") is None


@pytest.mark.parametrize(
    "text", ["", "K", "K.", ".1", "K.1.2", "K.*", ">.1", "K.1 2", "K.\n", "K.\x1b[2J", "K.é"]
)
def test_what_a_person_gives_must_name_one_request(text: str) -> None:
    with pytest.raises(InvalidName):
        check_request_id(text)
