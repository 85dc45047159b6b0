"""What a value says of itself, whatever it is: users' exceptions and values reach outcomes and logs by it.

An exception whose `str()` raises, or says a hundred megabytes, must neither stop what reports it nor
keep its request without an outcome.
"""

from __future__ import annotations

import reprlib
from typing import Final

CHARS_MAX: Final = 8_000
"""Of one text in an outcome: far below the smallest max_payload in use."""
SHOWN_CHARS_MAX: Final = 60
"""Of a value in an error: enough to know it again."""
WHOLE: Final = 2**31
"""For a text that is shortened only where it turns out to be too large."""


def said(value: object, *, chars_max: int = CHARS_MAX) -> str:
    """`str(value)` as valid UTF-8, shortened to `chars_max`; it never raises."""
    try:
        text = str(value)
        if len(text) > chars_max:
            text = f"{text[:chars_max]}… ({len(text)} characters in all)"
        return text.encode("utf-8", "backslashreplace").decode()
    except BaseException as error:
        return f"<{said_type(value)} without a text: its str() raised {said_type(error)}>"


class _Shown(reprlib.Repr):
    """Shortens long values, and long ones in them, before they are written out whole."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = SHOWN_CHARS_MAX


_shown: Final = _Shown()


def shown(value: object) -> str:
    """The value as Python writes it, shortened; secrets as their types hide them. It never raises."""
    try:
        return said(_shown.repr(value), chars_max=2 * SHOWN_CHARS_MAX)
    except BaseException:
        return f"<{said_type(value)}>"


def said_of(error: BaseException) -> str:
    """The exception's type and its text; it never raises."""
    text = said(error)
    return f"{said_type(error)}: {text}" if text else said_type(error)


def said_type(value: object) -> str:
    """The name of its class; it never raises."""
    try:
        return str(type(value).__name__)
    except BaseException:  # of a metaclass
        return "object"
