"""A history survives its file, and what is no history is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.chaos.check import main
from bench.chaos.history import BadHistory, Status, invoke_line, read, write
from tests.unit.chaos.support import Story


def told() -> Story:
    story = Story(workload="set", service="sets")
    story.do("add", element="a", result=0)
    story.ask("add", element="b", status=Status.UNKNOWN, error="OutcomeUnknown")
    story.ask("add", element="c", status=Status.FAIL, error="NoRoute")
    story.fault(0.5, 0.6)
    story.final(["a"])
    return story


def test_written_and_read_again_it_is_the_same() -> None:
    history = told().history(seed=7)
    again = read(write(history))
    assert list(write(again)) == list(write(history))
    assert again.run.seed == 7
    assert again.operations == history.operations


def test_an_invoke_without_an_end_is_unknown() -> None:
    """A client that was killed told nobody how its operation ended."""
    operation = told().operations[0]
    [left] = read([invoke_line(operation)]).operations
    assert left.status is Status.UNKNOWN
    assert left.completed_s is None


@pytest.mark.parametrize(
    "lines",
    [
        ["no json"],
        ['{"type":"gossip"}'],
        ['{"type":"ok","op":"p1.1","completed_s":1.0}'],
        ['{"type":"final","workload":"set"}'],
    ],
)
def test_what_is_no_history_is_refused_with_its_line(lines: list[str]) -> None:
    with pytest.raises(BadHistory, match="line 1"):
        read(lines)


def test_an_operation_cannot_be_invoked_twice() -> None:
    line = invoke_line(told().operations[0])
    with pytest.raises(BadHistory, match="twice"):
        read([line, line])


def test_a_kept_history_is_judged_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "history.jsonl"
    kept.write_text("\n".join(write(told().history(ok_ratio_min=0.3))))
    assert main([str(kept), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["ok"], result["fail"], result["unknown"]) == (1, 1, 1)
    assert result["violations"] == []


def test_a_wrong_history_fails_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = told()
    story.final([], resource="r")
    kept = tmp_path / "history.jsonl"
    kept.write_text("\n".join(write(story.history())))
    assert main([str(kept), "--only", "kept"]) == 1
    assert "G1" in capsys.readouterr().out
    assert main([str(tmp_path / "missing")]) == 3
