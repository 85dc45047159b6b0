"""The timers of a service, folded from checkpoints and from the outcomes behind them."""

from __future__ import annotations

from aegis_control.domain.operators.past import LogEntry
from aegis_control.domain.operators.schedule import Schedule
from aegis_sdk.contract.envelope import Change, Outcome, OutcomeKind, Request
from aegis_sdk.contract.turns.checkpoint import Checkpoint
from aegis_sdk.contract.turns.entries import Record
from aegis_sdk.contract.turns.timers import Timer


def timer(name: str, due_s: float, parent: str) -> Timer:
    request_id = f"{parent.replace('.', '~')}.@{name}"
    return Timer.made(name, due_s, Request(request_id, "desks", "close", "D-1", b"null"))


def entry(
    seq: int, request_id: str, number: int, change: Change, resource: str = "D-1"
) -> LogEntry:
    outcome = Outcome(OutcomeKind.EXECUTED, b"1", change.encode(), number=number)
    return LogEntry(seq, float(seq), [Record(request_id, resource, "set", b"", outcome)])


def saved(resource: str, read: int, number: int, *timers: Timer) -> Checkpoint:
    return Checkpoint("w", resource, read=read, number=number, timers=[t.content for t in timers])


def test_what_is_in_the_checkpoint_is_not_done_twice_and_what_is_behind_it_is() -> None:
    a, b, c = timer("a", 5.0, "c.1"), timer("b", 3.0, "c.2"), timer("c", 9.0, "c.3")
    made = Schedule({"D-1": saved("D-1", 10, 2, a), "D-2": saved("D-2", 40, 0)})
    assert made.begins_after == 10
    made.add(
        entry(20, "c.2", 2, Change(later=(b.content,)))
    )  # in the checkpoint, and dropped by then
    made.add(entry(30, "c.3", 3, Change(later=(c.content,))))
    made.add(entry(31, "c.1", 1, Change(later=(timer("x", 1.0, "c.1").content,)), "D-3"))
    assert [(line.resource, line.name, line.set_by) for line in made.lines()] == [
        ("D-3", "x", "c.1"),
        ("D-1", "a", "c.1"),
        ("D-1", "c", "c.3"),
    ]
    made.add(entry(50, a.id, 4, Change()))
    assert [line.name for line in made.lines("D-1")] == ["c"]
    assert made.lines("D-9") == []


def test_an_entry_that_can_not_be_read_is_told() -> None:
    made = Schedule({})
    made.add(LogEntry(7, 1.0, (), ("c.1",), "of another version"))
    made.add(entry(8, "c.2", 1, Change(later=({"name": 1},))))
    assert [each.position for each in made.unread] == [7, 8]
