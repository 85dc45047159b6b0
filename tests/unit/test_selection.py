"""What `poe test` leaves out is left to `poe test-rest`, and no promise is."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMISES = {f"G{n}" for n in range(1, 9)}


def attacked(path: Path) -> set[str]:
    """The promises that the docstrings of a file's tests name."""
    tree = ast.parse(path.read_text())
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    said = [ast.get_docstring(test) or "" for test in tests if test.name.startswith("test_")]
    return {word for text in said for word in re.findall(r"\bG[1-8]\b", text)}


def test_each_promise_is_attacked_on_real_processes_by_the_readmes_command() -> None:
    core = [p for p in (ROOT / "tests/scenarios").glob("test_*.py") if "mark.core" in p.read_text()]
    assert set().union(*map(attacked, core)) == PROMISES


def test_the_two_verbs_share_no_test_and_leave_none_out() -> None:
    tasks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["poe"]["tasks"]
    one, other = tasks["test"]["cmd"], tasks["test-rest"]["cmd"]
    assert one.replace("'core and not slow'", "'not core and not slow'") == other
    script = (ROOT / ".ci" / "run").read_text()
    assert [script.count(f"poe {verb}\n") for verb in ("test", "test-rest")] == [1, 1]
