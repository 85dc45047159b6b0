"""The writer's decisions, as transcripts: transcripts/*.txt, in the language of transcript.py.

After a change that is meant: `AEGIS_REWRITE=1 uv run pytest tests/unit/sdk/turns`, and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.sdk.turns.transcript import played

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_writer_does_what_its_transcript_says(path: Path) -> None:
    """G2 to G7 in the second form, decision by decision."""
    text = path.read_text()
    now = played(text)
    if "AEGIS_REWRITE" in os.environ:
        path.write_text(now)
    assert now == text
