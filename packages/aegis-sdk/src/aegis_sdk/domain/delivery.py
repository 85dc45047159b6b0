"""Whether a request is run, and how carefully, after it may have been begun before. Also when to try again.

A request that keeps killing its process is given up after `ATTEMPTS_MAX` begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

ATTEMPTS_MAX: Final = 3
"""Begins of one request, each ended by the death of its process, before it is given up."""


@dataclass(slots=True)  # not frozen: see contract.envelope
class Arrival:
    """What the broker says of a delivery."""

    stream_seq: int
    delivered: int
    """1 at the first delivery by this consumer."""
    suspect: bool
    """An earlier reader may have begun it: stored before this reader's consumer was made."""


class Verdict(Enum):
    RUN = auto()
    RUN_NOTED = auto()
    """Note the attempt in the journal, then run."""
    RUN_ALONE = auto()
    """Note the attempt, then run while nothing else does: a second death shows who is to blame."""
    GIVE_UP = auto()


def could_be_second(arrival: Arrival) -> bool:
    """Whether a process may have died while it ran this request."""
    return arrival.suspect or arrival.delivered > 1


def judge(*, second: bool, noted: int) -> Verdict:
    """`noted`: begins noted in the journal so far (the first begin is never noted)."""
    if not second and not noted:
        return Verdict.RUN
    begins = noted + 1
    if begins >= ATTEMPTS_MAX:
        return Verdict.GIVE_UP
    return Verdict.RUN_NOTED if begins == 1 else Verdict.RUN_ALONE


def backoff_s(n: int, *, first_s: float, max_s: float) -> float:
    """The `n`-th wait (from 1) of a doubling series."""
    return float(min(max_s, first_s * 2 ** (min(n, 32) - 1)))
