"""The decisions of a writer and of a caller, as transcripts: transcripts/*.txt, in the language of transcript.py, and
transcripts/calls/*.txt, in that of calls.py.

After a change that is meant: `AEGIS_REWRITE=1 uv run pytest tests/unit/sdk/turns`, and read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.sdk.turns.calls import CallPlayer
from tests.unit.sdk.turns.transcript import Player, Plays, played

FOLDER = Path(__file__).parent / "transcripts"


def compared(path: Path, make: Callable[[], Plays]) -> None:
    text = path.read_text()
    now = played(text, make)
    if "AEGIS_REWRITE" in os.environ:
        path.write_text(now)
    assert now == text


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_a_writer_does_what_its_transcript_says(path: Path) -> None:
    """G2 to G7, decision by decision."""
    compared(path, Player)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("calls/*.txt")), ids=lambda path: path.stem)
def test_a_caller_does_what_its_transcript_says(path: Path) -> None:
    """G1, G4, G8: what is in doubt is stored, and a doubt is about the owner."""
    compared(path, CallPlayer)
