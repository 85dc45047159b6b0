"""What the demo says when it can't begin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aegis_demo.command import run_demo
from aegis_demo.options import DemoOptions


def test_an_unusable_input_ends_with_2_one_line_and_nothing_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo(DemoOptions(input=tmp_path / "absent.csv")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "absent.csv: can't be read: no such file" in said.err


def test_with_json_also_a_failure_is_one_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_demo(DemoOptions(input=tmp_path, json_output=True)) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["reconciled"] is False
    assert "is a directory" in result["error"]
