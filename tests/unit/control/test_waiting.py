"""`explain` of a request that was submitted for later, and has left its stream."""

from __future__ import annotations

from aegis_control.domain.operators.story import Ended, Facts, Word, tell
from aegis_sdk.application.outcomes import until_its_time
from aegis_sdk.contract.envelope import Request


def told(timers: int) -> list[str]:
    request = Request("K.1t", "desks", "close", "D-1", b"1", not_before_s=1793739600.0)
    waits = Ended(until_its_time(request, timers), 7, 100.0, "D-1", request.until_its_time())
    story = tell(Facts("K.1t", 200.0, "desks", waits=waits))
    assert (story.resource, story.method) == ("D-1", "close")
    [step] = story.steps
    assert step.word is Word.WAITS
    return [story.standing, step.text]


def test_it_says_when_its_time_comes() -> None:
    due = "due 2026-11-03 21:00:00+00:00"
    assert told(0) == [f"waits for its time as a timer of D-1, {due}", f"of D-1, {due}"]


def test_it_says_that_there_was_no_room() -> None:
    assert "has 20000 timers" in told(20_000)[0]
