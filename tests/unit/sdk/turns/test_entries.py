"""How entries are written: what was written is read back, and nothing that is read crashes."""

from __future__ import annotations

import pytest
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import (
    PAYLOAD_KEPT_BYTES_MAX,
    EntryUnreadable,
    Moves,
    begun_of,
    decode_turn,
    encode_record,
    ids_of,
    marks_of,
    noted,
    turn_head,
    turn_header,
    writer_of,
)
from aegis_sdk.contract.turns.subjects import LogSubjects
from hypothesis import given
from hypothesis import strategies as st

NAMES = LogSubjects(Subjects("t"), "accounts")
HEAD = turn_head("w1", "log", "nonce")
RESOURCES = st.one_of(
    st.text(min_size=1, max_size=40), st.sampled_from(["-", "gate", "own", "turn", "at.x", "a b"])
).filter(lambda text: text.isprintable() and len(text.encode(errors="replace")) <= 60)
IDS = st.builds(lambda n, m: f"c{n}~{m}.{n}", st.integers(0, 10**9), st.integers(0, 9))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    return Request(
        draw(IDS), "accounts", "book", draw(st.none() | RESOURCES), draw(st.binary(max_size=80))
    )


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    change = draw(st.dictionaries(st.text(max_size=5), st.integers(), max_size=3))
    return Outcome(
        draw(st.sampled_from([k for k in OutcomeKind if k is not OutcomeKind.UNREADABLE])),
        draw(st.binary(max_size=80)),
        Change(change).encode() if change else b"",
        epoch=draw(st.integers(0, 2**40)),
        instance_id=draw(st.sampled_from(["", "accounts-1"])),
        traceparent=draw(st.sampled_from(["", f"00-{'a' * 32}-{'b' * 16}-01"])),
    )


@given(st.lists(st.tuples(requests(), outcomes()), min_size=1, max_size=6))
def test_a_turn_is_read_as_it_was_written(settled: list[tuple[Request, Outcome]]) -> None:
    """Whatever a payload holds, line feeds and headers of our own among it."""
    data = HEAD + b"".join(encode_record(request, outcome) for request, outcome in settled)
    read = decode_turn(data)
    assert [(r.request_id, r.resource, r.payload, r.outcome) for r in read] == [
        (request.request_id, request.resource, request.payload, outcome)
        for request, outcome in settled
    ]
    header = turn_header(request.request_id for request, _ in settled)
    assert ids_of(*header.values()) == [request.request_id for request, _ in settled]


@given(st.binary(max_size=200), st.data())
def test_what_is_no_turn_is_refused_and_nothing_else_happens(
    noise: bytes, data: st.DataObject
) -> None:
    """A stranger's bytes, a turn that was cut, one with a byte changed: read, or EntryUnreadable."""
    whole = HEAD + encode_record(
        Request("c.1", "accounts", "book", "ACC", b"{}"), Outcome(OutcomeKind.EXECUTED, b"1")
    )
    at = data.draw(st.integers(0, len(whole)))
    for bad in (noise, HEAD + noise, whole[:at], whole[:at] + noise + whole[at + 1 :]):
        try:
            decode_turn(bad)
        except EntryUnreadable:
            continue


def test_a_version_that_adds_a_word_is_read_and_one_that_changes_the_form_is_named() -> None:
    record = b"c.1 ACC book 2 1 0 executed epoch=3 later=yes\n{}7\n"
    (read,) = decode_turn(b"1 log=x nonce=y later=yes\n" + record)
    assert (read.resource, read.outcome.epoch, read.outcome.body) == ("ACC", 3, b"7")
    with pytest.raises(EntryUnreadable, match="version b'2'"):
        decode_turn(b"2 log=x\n" + record)
    with pytest.raises(EntryUnreadable, match="no known kind"):
        decode_turn(HEAD + b"c.1 ACC book 0 1 0 postponed\n7\n")


def test_a_payload_that_would_not_fit_is_left_out() -> None:
    request = Request("c.1", "accounts", "book", "ACC", b"x" * (PAYLOAD_KEPT_BYTES_MAX + 1))
    (read,) = decode_turn(HEAD + encode_record(request, Outcome(OutcomeKind.EXECUTED, b"7")))
    assert (read.payload, read.outcome.body) == (b"", b"7")


@given(st.dictionaries(RESOURCES, st.sampled_from(["w1", "w2", ""]), max_size=8))
def test_an_ownership_entry_is_read_as_it_was_written(moves: dict[str, str]) -> None:
    read = Moves.decode(Moves(moves, "drained", "log").encode())
    assert (dict(read.moves), read.why, read.log_id) == (moves, "drained", "log")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b'{"to":1}',
        b'{"to":{"w":"x"}}',
        b'{"to":{"w":[1]}}',
        b'{"to":{},"why":1}',
        b"\xff",
    ],
)
def test_what_is_no_ownership_entry_is_refused(data: bytes) -> None:
    with pytest.raises(EntryUnreadable):
        Moves.decode(data)


@given(RESOURCES)
def test_no_resource_is_taken_for_a_kind_of_entry(resource: str) -> None:
    """Whatever it is called: its entries are below a kind of their own, its requests lead back to it."""
    assert NAMES.words(NAMES.single(resource, "c.1"))[0] == "at"
    assert NAMES.words(NAMES.end(resource, "c.1"))[0] == "end"
    assert NAMES.sent_to(NAMES.sent(resource)) == resource


def test_what_is_republished_has_seven_tokens_and_nothing_else_has() -> None:
    """A stream has one rule for it: `t.jrn.*.*.*.*.*.*`."""
    republished = [
        NAMES.turn_of_one("w", 3, "c.1"),
        NAMES.single("ACC", "c.1"),
        NAMES.single(None, "c.1"),
    ]
    others = [
        NAMES.gate("w"), NAMES.claim("w", "n"), NAMES.own(3), NAMES.turn("w", 3), NAMES.end("ACC", "c.1"),
    ]  # fmt: skip
    assert {len(subject.split(".")) for subject in republished} == {8}
    assert 8 not in {len(subject.split(".")) for subject in others}
    assert all(subject.endswith(".c.1") for subject in republished)


@given(
    st.dictionaries(RESOURCES, st.integers(0, 2**40), max_size=5),
    st.lists(st.tuples(RESOURCES, IDS | st.just("a:b.c:d"), st.integers(1, 9)), max_size=5),
)
def test_marks_and_notes_are_read_as_they_were_written(
    sent: dict[str, int], begun: list[tuple[str, str, int]]
) -> None:
    """Of any resource; and who wrote the turn is read beside them."""
    data = noted(HEAD, sent, begun) + encode_record(
        Request("c.1", "accounts", "book", "ACC", b""), Outcome(OutcomeKind.EXECUTED, b"7")
    )
    assert marks_of(data) == sent
    assert begun_of(data) == begun
    assert writer_of(data) == "w1"
    assert len(decode_turn(data)) == 1


def test_a_turn_of_marks_alone_lists_no_requests() -> None:
    """No server keeps a header without a value, and no reader takes one for no turn."""
    assert ids_of(*turn_header([]).values()) == []


@pytest.mark.parametrize("marks", ["ACC", "ACC:x", "ACC:1,", ":", "ACC:1:2"])
def test_marks_that_cannot_be_read_are_refused(marks: str) -> None:
    with pytest.raises(EntryUnreadable):
        marks_of(f"1 writer=w1 log=x sent={marks}\n".encode())


@pytest.mark.parametrize("notes", ["1", "1:ACC", "x:ACC:c.1", "::", "1:ACC:c.1,"])
def test_notes_that_cannot_be_read_are_refused(notes: str) -> None:
    with pytest.raises(EntryUnreadable):
        begun_of(f"1 writer=w1 log=x begun={notes}\n".encode())
