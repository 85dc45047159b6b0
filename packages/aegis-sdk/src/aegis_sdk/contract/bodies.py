"""Stored bodies that pydantic reads: an error's and a fence's. Apart from envelope.py, which is compiled."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

Count = Annotated[int, Field(ge=0, le=2**53)]
"""An epoch or a place in a stream; above it, JSON's readers differ."""
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,256}$")]
"""What becomes a part of a subject: anything else would be another subject, or break the connection."""


class ErrorBody(BaseModel):
    """The first line of an outcome that is not `executed`."""

    code: str
    message: str = ""
    details: dict[str, Any] = {}
    by: str = ""
    """BY_HANDLER when `code` is the handler's own word, whatever else it means."""


class Fence(BaseModel):
    """The journal entry that begins an epoch; its own sequence is what commits are checked against."""

    epoch: Count
    owner: str
    """Instance id of the new active."""
    incarnation: str
    """Which run of that instance id: a restarted process does not take an old run's fence for its own."""
    session: str = ""
    """Which connection of that run: two copies of one process never share one, as the server names it."""
    log: str = ""
    """The identity of the journal it is in."""
    grant: Token
    """The name of the request consumer that the active makes and reads; one a grant."""
    grant_size: Count = 0
    """How many resources the grant has, so that the active makes its consumer once; 0: not told."""
    start_seq: Count
    """Request stream sequence from which the resource is served: all of it before have their outcomes. The consumer
    starts at the earliest of the grant."""
    reason: str = ""
    """Why the epoch begins: `stalled` when the active before was replaced since its event loop did not run."""
