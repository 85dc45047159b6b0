"""The tables of states, and the diagrams that the documents show of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from aegis_sdk.domain.turns.states import (
    CALL,
    GIVE_UP,
    HELD,
    WORK,
    CallState,
    GiveUpState,
    HeldState,
    ImpossibleStep,
    WorkEvent,
    WorkState,
    mermaid,
    step,
)

PAGE = Path(__file__).parents[4] / "docs" / "protocol.md"
DIAGRAMS = {
    "work": mermaid(WORK, WorkState.WAITING),
    "held": mermaid(HELD, HeldState.FOLLOWING),
    "call": mermaid(CALL, CallState.SENT),
    "give_up": mermaid(GIVE_UP, GiveUpState.ENDING),
}


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_page_shows_the_diagram_of_the_table(name: str) -> None:
    """`AEGIS_REWRITE=1` writes it anew."""
    text = PAGE.read_text()
    shown = f"<!-- diagram: {name} -->\n```mermaid\n{DIAGRAMS[name]}```\n<!-- end of diagram -->"
    pattern = rf"<!-- diagram: {name} -->\n.*?<!-- end of diagram -->"
    if "AEGIS_REWRITE" in os.environ:
        PAGE.write_text(re.sub(pattern, lambda _: shown, text, flags=re.S))
    assert shown in PAGE.read_text()


def test_what_is_not_in_the_table_cannot_happen() -> None:
    with pytest.raises(ImpossibleStep, match="'stored' can't happen to one that is 'waiting'"):
        step(WORK, WorkState.WAITING, WorkEvent.STORED)


def test_what_is_done_or_dropped_stays_so() -> None:
    """G2: nothing follows the end."""
    ended = {WorkState.DONE, WorkState.DROPPED}
    assert not [before for before, _ in WORK if before in ended]


def test_every_state_can_be_left_by_losing_the_resource_or_by_what_the_log_says() -> None:
    lost = {before for (before, event) in WORK if event is WorkEvent.LOST}
    assert lost == set(WorkState) - {WorkState.STORING, WorkState.DONE, WorkState.DROPPED}
