"""Stored bodies that pydantic reads: an error's and a fence's. Apart from envelope.py, which is compiled."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ErrorBody(BaseModel):
    """The first line of an outcome that is not `executed`."""

    code: str
    message: str = ""
    details: dict[str, Any] = {}


class Fence(BaseModel):
    """The journal entry that begins an epoch; its own sequence is what commits are checked against."""

    epoch: int
    owner: str
    """Instance id of the new active."""
    incarnation: str
    """Which run of that instance id: a restarted process does not take an old run's fence for its own."""
    grant: str
    """The name of the request consumer that the active makes and reads; one a grant."""
    grant_size: int = 0
    """How many resources the grant has, so that the active makes its consumer once; 0: not told."""
    start_seq: int
    """Request stream sequence from which that consumer starts; early is harmless, late would lose."""
