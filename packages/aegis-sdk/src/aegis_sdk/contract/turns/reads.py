"""What passes between whoever reads a resource's state and the instance that answers, over core NATS.

A read is sent to `<prefix>.read.<service>.active.<resource>` or `….standby.<resource>`, with a request's own headers and
`aegis-read: wait=0.08 least=5f0c@1234 lag=0.5`: for how many seconds whoever has it may wait with it, the position that the
answer must have at least, and how many seconds of the log it may lack. The answer is an outcome, which nothing stores, with its
`aegis-position`; or `aegis-answer` says in a word why there is none, and the body says more.

A position is `<log identity>@<sequence>`: one sequence means nothing in another log. Calls are answered with it, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aegis_sdk.contract.envelope import OUTCOME, Outcome
from aegis_sdk.contract.turns.sent import ANSWER, POSITION

READ: Final = "aegis-read"
_POSITION: Final = re.compile(r"([!-?A-~]{0,64})@([0-9]{1,20})")


class Refusal(StrEnum):
    """Why a read is not answered by whoever says this."""

    BEHIND = "behind"
    """It has not read so much of the log, or can't tell in time."""
    UNSURE = "unsure"
    """An active that could not learn in time whether it still is the active."""
    OTHER_LOG = "other-log"
    """The position is one of another log."""


def position_text(log_id: str, seq: int) -> str:
    return f"{log_id}@{seq}"


def read_position(text: str) -> tuple[str, int]:
    """(log identity, sequence). Raises: ValueError."""
    found = _POSITION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!r} is no position")
    return found[1], int(found[2])


@dataclass(slots=True)
class Wanted:
    """What a read asks of its answer."""

    wait_s: float
    at_least: str = ""
    """A position; empty when any will do."""
    lag_s_max: float | None = None

    def header(self) -> str:
        words = f"wait={self.wait_s:.3f}"
        if self.at_least:
            words += f" least={self.at_least}"
        if self.lag_s_max is not None:
            words += f" lag={self.lag_s_max:.6f}"
        return words

    @classmethod
    def parse(cls, header: str) -> Wanted:
        """Raises: ValueError, KeyError."""
        known = dict([word.split("=", 1) for word in header.split(" ")])
        least, lag = known.get("least", ""), known.get("lag")
        if least:
            read_position(least)
        return cls(_seconds(known["wait"]), least, None if lag is None else _seconds(lag))


def _seconds(text: str) -> float:
    seconds = float(text)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{text!r} are no seconds")
    return seconds


@dataclass(slots=True)
class Answered:
    """What came back: an outcome, or why there is none."""

    outcome: Outcome | None
    position: str = ""
    refusal: Refusal | None = None
    said: str = ""

    @classmethod
    def parse(cls, headers: Mapping[str, str], body: bytes) -> Answered:
        """Raises: ValueError, KeyError."""
        if (word := headers.get(ANSWER)) is not None:
            return cls(None, refusal=Refusal(word), said=body.decode(errors="replace"))
        return cls(Outcome.told(headers[OUTCOME], body, b""), headers.get(POSITION, ""))
