"""How an operator's verb says no."""

from __future__ import annotations


class Refused(Exception):
    """Ends a verb with a code (not_found, refused, invalid) and a message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
