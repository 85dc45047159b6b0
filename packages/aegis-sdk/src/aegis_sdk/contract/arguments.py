"""What users give to the SDK's verbs: one check for each kind of argument, made where the value enters.

Type checkers know all of this, and not every program is checked. A value of another type must not get as far as a
subject, a header or a timer. There it is a raw error, or a call that never ends. Each check returns the value
that the SDK goes on with, or raises an error that names the argument, what was given and what to do. It never shows
a value that may be a secret.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from datetime import datetime
from math import isfinite
from typing import Any, Final, TypeVar

from aegis_sdk.errors import ContractError, InvalidArgument, InvalidName
from aegis_sdk.words import said, said_type

T = TypeVar("T")

DURATION_S_MAX: Final = 1e9
"""Thirty years: longer than anything is kept, and what every timer can count to."""
CAPACITY_MIN: Final = 0.001
CAPACITY_MAX: Final = 1_000.0
"""Of an instance. Machines do not differ by more, and quotients of these are exact enough."""


def text(value: object, what: str, *, error: type[ContractError] = InvalidName) -> str:
    """Plain text, of a StrEnum too the text alone. Raises: `error`."""
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    hint = "decode it" if isinstance(value, bytes | bytearray | memoryview) else "say str(...)"
    if value is None:
        hint = "give one"
    raise error(f"{what} must be text (str), and is a {said_type(value)}: {hint}")


def optional_text(
    value: object, what: str, *, error: type[ContractError] = InvalidName
) -> str | None:
    """Raises: `error`."""
    return None if value is None else text(value, what, error=error)


def duration_s(value: object, what: str) -> float:
    """A number of seconds from 0 to DURATION_S_MAX. Raises: InvalidArgument."""
    kind = type(value)
    if (kind is float or kind is int) and 0 <= value <= DURATION_S_MAX:  # type: ignore[operator]
        return value  # type: ignore[return-value]
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidArgument(
            f"{what} must be a number of seconds, and is a {said_type(value)}: give a float or an int"
        )
    seconds = _float(value)
    if not (isfinite(seconds) and 0 <= seconds <= DURATION_S_MAX):
        raise InvalidArgument(
            f"{what} must be from 0 to {DURATION_S_MAX:g} seconds; got {said(value, chars_max=40)}"
        )
    return seconds


def optional_duration_s(value: object, what: str) -> float | None:
    """Raises: InvalidArgument."""
    return None if value is None else duration_s(value, what)


def moment_s(value: object, what: str) -> float:
    """Unix time of a datetime that says its zone. Raises: InvalidArgument."""
    if not isinstance(value, datetime):
        raise InvalidArgument(
            f"{what} must be a datetime, and is a {said_type(value)}: for seconds from now there is an argument of its own"
        )
    if value.utcoffset() is None:
        raise InvalidArgument(
            f"{what} {value.isoformat()} names no zone: say which wall clock, as in"
            ' datetime(2026, 11, 2, 16, 0, tzinfo=ZoneInfo("America/New_York"))'
        )
    return value.timestamp()


def whole(value: object, what: str, *, least: int, most: int) -> int:
    """An integer in these bounds. Raises: InvalidArgument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidArgument(f"{what} must be a whole number (int), and is a {said_type(value)}")
    if not least <= int(value) <= most:
        raise InvalidArgument(
            f"{what} must be from {least} to {most}; got {said(value, chars_max=40)}"
        )
    return int(value)


def number(value: object, what: str, *, least: float, most: float) -> float:
    """A number in these bounds. Raises: InvalidArgument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidArgument(f"{what} must be a number, and is a {said_type(value)}")
    if not least <= _float(value) <= most:
        raise InvalidArgument(
            f"{what} must be from {least:g} to {most:g}; got {said(value, chars_max=40)}"
        )
    return _float(value)


def instance_of(value: object, kind: type, what: str) -> None:
    """Raises: InvalidArgument."""
    if not isinstance(value, kind):
        given = f"the class {value.__name__} itself" if value is kind else f"a {said_type(value)}"
        raise InvalidArgument(f"{what} must be a {kind.__name__}, and is {given}")


def function(value: object, what: str) -> None:
    """Raises: InvalidArgument."""
    if not callable(value):
        raise InvalidArgument(f"{what} must be a function, and is a {said_type(value)}")


def mapping(value: object, what: str, example: str) -> Mapping[Any, Any]:
    """Raises: InvalidArgument."""
    if isinstance(value, Mapping):
        return value
    raise InvalidArgument(f"{what} must be a dict as {example}, and is a {said_type(value)}")


def several(value: object, what: str, example: str) -> Iterable[Any]:
    """Anything to go through but a text, which would be taken for its letters. Raises: InvalidArgument."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray):
        return value
    raise InvalidArgument(f"{what} must be as {example}, and is a {said_type(value)}")


def several_of(value: object, kind: type[T], what: str, example: str) -> list[T]:
    """Raises: InvalidArgument."""
    found = list(several(value, what, example))
    for each in found:
        instance_of(each, kind, f"each of {what}")
    return found


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")
