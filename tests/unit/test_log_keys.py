"""Every key that the packages' log lines have is in the table of docs/observability.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def documented() -> set[str]:
    page = (ROOT / "docs" / "observability.md").read_text()
    section = page.partition("### Keys")[2].partition("###")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def written() -> Iterator[tuple[str, str]]:
    """Each key that a line is given by name, and where."""
    for path in ROOT.glob("packages/*/src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and is_log_line(node):
                for keyword in node.keywords:
                    if keyword.arg is not None:
                        yield keyword.arg, f"{path.name}:{node.lineno}"


def is_log_line(call: ast.Call) -> bool:
    event = call.args[0] if call.args else None
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in LEVELS
        and isinstance(event, ast.Constant)
        and re.fullmatch(r"[a-z]+(_[a-z]+)+", str(event.value)) is not None
    )


def test_each_key_of_a_log_line_is_on_the_page() -> None:
    known = documented() | {"exc_info"}
    found = list(written())
    assert len(found) > 100
    assert [(key, where) for key, where in found if key not in known] == []
