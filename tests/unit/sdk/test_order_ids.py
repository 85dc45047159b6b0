"""Order ids: the same for the same request and name wherever they are computed, and different for all else."""

from __future__ import annotations

import string
from typing import Any

import pytest
from aegis_sdk.contract.ids import call_token, child_id, generation_id, keyed_id, redriven_id
from aegis_sdk.contract.order_ids import ALPHABET, IDS_MIN, order_id
from aegis_sdk.errors import InvalidArgument
from hypothesis import given
from hypothesis import strategies as st

SHAPES = [
    (length, alphabet)
    for length in (18, 20, 32, 36)
    for alphabet in (string.digits, ALPHABET, string.ascii_letters + string.digits, "01234567")
    if len(alphabet) ** length >= IDS_MIN
]


def made(request_id: str, name: str = "", length: int = 20, alphabet: str = ALPHABET) -> str:
    return order_id(request_id, name, length=length, alphabet=alphabet)


def test_they_never_change_between_versions() -> None:
    """G3: a request that ran before an upgrade and after it is the same order at the venue."""
    assert made("Kq3v9x2m.17") == "WXZOZBS1OF78CEU7EH7O"
    assert made("Kq3v9x2m.17", "leg-1", 18, string.digits) == "050938285049271551"
    assert (
        made("key-orders.O-1", "ü", 36, string.ascii_letters)
        == "wEGUlNQRsAWUEjJABmSNXAqRefCnaJmKSHJQ"
    )


@pytest.mark.parametrize(("length", "alphabet"), SHAPES)
def test_they_have_the_length_and_the_characters_that_a_venue_takes(
    length: int, alphabet: str
) -> None:
    ids = {made(f"Kq3v9x2m.{n}", name, length, alphabet) for n in range(300) for name in ("", "b")}
    assert len(ids) == 600
    assert {len(each) for each in ids} == {length}
    assert set("".join(ids)) == set(alphabet)


@pytest.mark.parametrize(
    ("length", "alphabet", "refused"),
    [
        (17, string.digits, True),
        (18, string.digits, False),
        (11, ALPHABET, True),
        (12, ALPHABET, False),
        (58, "01", True),
        (59, "01", False),
        (64, "01", False),
    ],
)
def test_too_few_to_be_told_apart_are_refused(length: int, alphabet: str, refused: bool) -> None:
    """n² / 2N: a million ids are equal with a chance of one in a million at most."""
    assert (10**12 / (2 * len(alphabet) ** length) > 1e-6) == refused
    if not refused:
        assert len(made("a.1", "", length, alphabet)) == length
        return
    with pytest.raises(InvalidArgument, match="too few") as caught:
        made("a.1", "", length, alphabet)
    assert f"take {18 if alphabet == string.digits else 12 if alphabet == ALPHABET else 59}" in str(
        caught.value
    )


@pytest.mark.parametrize("alphabet", ["", "a", "aa", "0123456789 ", "0123456789ä", "01\n", None, 7])
def test_an_alphabet_that_can_not_be_is_refused(alphabet: Any) -> None:
    with pytest.raises(InvalidArgument, match="alphabet"):
        made("a.1", "", 36, alphabet)


@pytest.mark.parametrize("length", [0, -1, 65, 18.5, "18", None, True])
def test_a_length_that_can_not_be_is_refused(length: Any) -> None:
    with pytest.raises(InvalidArgument, match="length"):
        made("a.1", "", length)


REQUESTS = st.one_of(
    st.from_regex(r"[0-9a-f]{12}\.[0-9]{1,6}t?", fullmatch=True),
    st.builds(
        keyed_id, st.just("orders"), st.from_regex(r"[A-Za-z0-9_-]{1,12}(r[0-9])?", fullmatch=True)
    ),
)
CALLS = st.lists(
    st.builds(
        call_token,
        st.sampled_from(["book", "a-fr1", "r1"]),
        st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
        st.integers(1, 3),
    ),
    max_size=3,
)


@given(request=REQUESTS, calls=CALLS, data=st.data())
def test_what_stands_for_a_request_has_its_ids(
    request: str, calls: list[str], data: st.DataObject
) -> None:
    """Asked anew by a retry, or sent again by an operator, here or further up."""
    first = again = request
    for call in calls:
        if data.draw(st.booleans()):
            again = redriven_id(again)
        first, again = child_id(first, call), child_id(again, call)
        again = generation_id(again, data.draw(st.integers(0, 3)))
    if data.draw(st.booleans()):
        again = redriven_id(again)
    assert made(again) == made(first)


@given(one=REQUESTS, other=REQUESTS, calls=CALLS, more=CALLS, names=st.tuples(st.text(), st.text()))
def test_different_requests_and_names_have_different_ids(
    one: str, other: str, calls: list[str], more: list[str], names: tuple[str, str]
) -> None:
    for call in calls:
        one = child_id(one, call)
    for call in more:
        other = child_id(other, call)
    assert (made(one) == made(other)) == (one == other)
    if names[0] != names[1]:
        assert made(one, names[0]) != made(one, names[1])
