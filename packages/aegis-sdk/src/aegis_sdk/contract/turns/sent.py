"""What is sent between a caller and an active over core NATS, beside the request's own headers.

A request carries `aegis-sent: <unix time>[ <seq>]`: when its caller sent it (rule R9), and the last place its caller stored
for the resource, which has to come first (G7). A caller that gives up asks for the request's end by `aegis-cancel: <id>`.
Whoever begins to serve resources tells that callers: `{"instance": "accounts-1", "resources": ["ACC-1", …]}`.
An answer is an outcome (`aegis-outcome`, or a turn that the server republishes), or says in `aegis-answer` why there is none. With the
outcome comes a position of the log that has it (contract/turns/reads.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from pydantic_core import from_json, to_json

SENT: Final = "aegis-sent"
CANCEL: Final = "aegis-cancel"
ANSWER: Final = "aegis-answer"
POSITION: Final = "aegis-position"


class Answer(StrEnum):
    """Nothing of the request was stored by whoever says this."""

    BUSY = "busy"
    """The queue is full: store it."""
    MOVED = "moved"
    """The resource is another's, or will be: send it again, or store it."""
    LATE = "late"
    """It was sent too long ago to be run."""
    NOBODY = "nobody"
    """Said by the server: nobody serves the resource now."""


def served_body(instance_id: str, resources: Sequence[str]) -> bytes:
    return to_json({"instance": instance_id, "resources": resources})


def read_served(body: bytes) -> tuple[str, frozenset[str]]:
    """(instance, resources). Raises: ValueError."""
    try:
        content = from_json(body)
        return str(content["instance"]), frozenset(map(str, content["resources"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"what an instance serves: {error!r}") from error


def sent_header(sent_s: float, after: int) -> str:
    return f"{sent_s:.3f} {after}" if after else f"{sent_s:.3f}"


def read_sent(header: str) -> tuple[float, int]:
    """(when, after); 0.0 for a header that is missing. Raises: ValueError."""
    sent_s, _, after = header.partition(" ")
    return float(sent_s or 0.0), int(after or 0)
