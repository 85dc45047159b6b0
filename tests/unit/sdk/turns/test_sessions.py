"""Duplicates by session: what is known is told, what is not known is never guessed (G3)."""

from __future__ import annotations

import json

from aegis_sdk.domain.turns.sessions import WINDOW, Seen, Sessions, split
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = st.lists(st.integers(1, 4 * WINDOW), max_size=60)


@given(NUMBERS, st.integers(1, 4 * WINDOW))
def test_a_session_tells_what_a_set_would_or_says_that_it_does_not_know(
    done: list[int], asked: int
) -> None:
    sessions = Sessions()
    for number in done:
        sessions.add(*split(f"c.{number}"), 0.0)
    highest = max(done, default=0)
    if done and asked <= highest - WINDOW:
        expected = Seen.UNKNOWN
    else:
        expected = Seen.DONE if asked in done else Seen.NEW
    assert sessions.seen(*split(f"c.{asked}")) is expected


@given(NUMBERS, st.integers(1, 4 * WINDOW))
def test_a_checkpoint_keeps_sessions_as_they_are(done: list[int], asked: int) -> None:
    sessions = Sessions()
    for number in done:
        sessions.add(*split(f"c.{number}"), float(number))
    again = Sessions.load([tuple(row) for row in json.loads(json.dumps(sessions.dump()))])
    assert again.seen(*split(f"c.{asked}")) is sessions.seen(*split(f"c.{asked}"))
    assert again.dump() == sessions.dump()


def test_ids_that_no_client_counted_are_not_known() -> None:
    """A key, a child, a redriven request: their outcomes are singles."""
    sessions = Sessions()
    for request_id in ("key-s.k", "c~1.2", "c.1+1", "c.x", "c.²"):
        sessions.add(*split(request_id), 0.0)
        assert split(request_id)[1] == 0
        assert sessions.seen(*split(request_id)) is Seen.UNKNOWN
    assert len(sessions) == 0


def test_callers_that_are_gone_are_forgotten() -> None:
    sessions = Sessions()
    sessions.add(*split("old.1"), 10.0)
    sessions.add(*split("new.1"), 20.0)
    sessions.drop_unused(15.0)
    assert sessions.seen(*split("old.1")) is Seen.NEW
    assert sessions.seen(*split("new.1")) is Seen.DONE
