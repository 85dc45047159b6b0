"""What an instance keeps of its log for resources that are to come."""

from __future__ import annotations

from typing import Any, cast

from aegis_sdk.application.turns.further import Kept
from aegis_sdk.application.turns.host import TurnHost
from aegis_sdk.domain.turns.entries import Gate


class Host:
    """It has read up to 10."""

    def __init__(self) -> None:
        self.writer = self
        self.position = 10
        self.taps: list[Any] = []


def kept_of(count: int) -> Kept:
    kept = Kept(cast(TurnHost, Host()), most=5)
    for seq in range(11, 11 + count):
        kept.folded(Gate(seq, "w"))
    return kept


def test_it_knows_all_behind_where_it_began_and_nothing_before() -> None:
    kept = kept_of(3)
    found = kept.behind(11)
    assert found is not None
    assert [entry.seq for entry in found] == [12, 13]
    assert kept.behind(20) == []
    assert len(kept.behind(10) or ()) == 3
    assert kept.behind(9) is None


def test_what_could_not_be_read_is_not_left_out_in_silence() -> None:
    kept = kept_of(3)
    kept.not_folded(14, "no form", ["at", "A"])
    kept.folded(Gate(15, "w"))
    assert kept.behind(10) is None


def test_it_keeps_no_more_than_it_may() -> None:
    assert len(kept_of(5).behind(10) or ()) == 5
    kept = kept_of(6)
    assert kept.behind(10) is None
    kept.folded(Gate(99, "w"))
    assert kept.behind(98) is None
