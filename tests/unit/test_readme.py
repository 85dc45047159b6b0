"""What the documents say and what the tree holds are the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def test_the_readmes_snippet_is_the_quickstart_example() -> None:
    """The examples' suite runs that file, so the README's first screen works."""
    readme = (REPOSITORY / "README.md").read_text()
    shown = re.search(
        r"<!-- snippet: examples/quickstart\.py -->\n```python\n(.*?)```\n<!-- end", readme, re.S
    )
    assert shown is not None
    assert shown[1] == (REPOSITORY / "examples" / "quickstart.py").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert missing == []
