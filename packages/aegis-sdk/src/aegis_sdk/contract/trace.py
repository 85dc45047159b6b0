"""W3C trace context: one trace id for a request's whole life, a new span id for each hop."""

from __future__ import annotations

import random
from typing import Final

from aegis_sdk.contract.envelope import TRACEPARENT_FORM

_SAMPLED: Final = "01"


def new_traceparent(parent: str = "") -> str:
    """A traceparent for the next hop: the trace id and flags of `parent`, and a new span id.

    Without a parent, a new trace that whoever records traces may record. Ids need to be distinct, not
    secret: `random` seeded by the system is enough and fast.
    """
    known = TRACEPARENT_FORM.fullmatch(parent) if parent else None
    trace = known[1] if known else f"{random.getrandbits(128) or 1:032x}"
    flags = known[3] if known else _SAMPLED
    return f"00-{trace}-{random.getrandbits(64) or 1:016x}-{flags}"


def parse_traceparent(traceparent: str) -> tuple[int, int, int] | None:
    """(trace id, span id, flags), or None when it isn't a traceparent."""
    known = TRACEPARENT_FORM.fullmatch(traceparent)
    return None if known is None else (int(known[1], 16), int(known[2], 16), int(known[3], 16))


def trace_id(traceparent: str) -> str:
    """The 32 hex digits, or empty when it isn't a traceparent."""
    return traceparent[3:35] if len(traceparent) == 55 else ""


def span_id(traceparent: str) -> str:
    return traceparent[36:52] if len(traceparent) == 55 else ""
