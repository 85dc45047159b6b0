"""The stored body that pydantic reads: an error's. Apart from envelope.py, which is compiled."""

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
