"""Reads the times that order files hold, as seconds.

A clock (`9:30`, `09:30:00.125+01:00`) counts from midnight, a moment from 1970: ISO 8601 and its
relatives (`2026-03-02T09:30:00.123456789Z`, `2026.03.02 09:30`, `20260302-09:30:00`), also with the
zone's name (`… Europe/Zurich`), or seconds to nanoseconds since 1970. Without a zone it is UTC.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

FORMS: Final = "HH:MM:SS nor an ISO date and time nor an epoch"
_ZONE_NAME: Final = re.compile(r"(.+?)(?:\s+([A-Za-z][\w+/-]*)|\[([A-Za-z][\w+/-]*)\])")
_CLOCK: Final = re.compile(r"[0-9]{1,2}:")
_EPOCH: Final = re.compile(r"([0-9]{10}|[0-9]{13}|[0-9]{16}|[0-9]{19})(\.[0-9]+)?")
_REWRITES: Final = (
    (re.compile(r"^([0-9]{4})[./]([0-9]{2})[./]([0-9]{2})"), r"\1-\2-\3"),
    (re.compile(r"^([0-9]{8})-(?=[0-9]{1,2}:)"), r"\1T"),
    (re.compile(r"(^|[T +-])([0-9]:)"), r"\g<1>0\2"),
    (re.compile(r"\s+([+-][0-9])"), r"\1"),
)
"""To ISO 8601: dates with points and strokes, FIX's date, hours of one digit, a space before the offset."""
_DATE: Final = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}.*")
_START: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UTC_NAMES: Final = ("UTC", "GMT", "Z")
"""Known also where the machine has no database of zones."""


@dataclass(frozen=True, slots=True)
class Moment:
    """`dated` False: `at_s` counts from midnight, otherwise from 1970."""

    at_s: float
    dated: bool


def read_time(text: str) -> Moment:
    """Raises: ValueError, which says what is wrong with it."""
    try:
        if epoch := _EPOCH.fullmatch(text):
            return Moment(_epoch(epoch), dated=True)
        body, zone = _zone_of(text)
        for pattern, instead in _REWRITES:
            body = pattern.sub(instead, body)
        if _CLOCK.match(body):
            return Moment(_clock(body, zone), dated=False)
        return Moment(_moment(body, zone), dated=True)
    except _Refused as refused:
        raise ValueError(str(refused)) from refused
    except (ValueError, OverflowError) as error:
        raise ValueError(f"is neither {FORMS}") from error


class _Refused(Exception):
    """Its form is right; the message says what is not."""


def _epoch(found: re.Match[str]) -> float:
    return round(float(found[0]) / 10.0 ** (len(found[1]) - 10), 6)


def _zone_of(text: str) -> tuple[str, dt.tzinfo | None]:
    """The text without the zone's name, and the zone."""
    named = _ZONE_NAME.fullmatch(text)
    if named is None:
        return text, None
    name = named[2] or named[3]
    if name.upper() in _UTC_NAMES:
        return named[1], dt.UTC
    try:
        return named[1], ZoneInfo(name)
    except (ValueError, KeyError, OSError) as error:
        raise _Refused(f"has an unknown time zone {name!r}") from error


def _clock(text: str, zone: dt.tzinfo | None) -> float:
    clock = dt.time.fromisoformat(text)
    offset = (clock if clock.tzinfo or zone is None else clock.replace(tzinfo=zone)).utcoffset()
    if offset is None and zone is not None:
        raise _Refused(f"needs a date, because {zone} has no fixed offset")
    since_midnight = dt.timedelta(
        hours=clock.hour,
        minutes=clock.minute,
        seconds=clock.second,
        microseconds=clock.microsecond,
    )
    return (since_midnight - (offset or dt.timedelta())).total_seconds()


def _moment(text: str, zone: dt.tzinfo | None) -> float:
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone or dt.UTC)
    return round((moment - _START).total_seconds(), 6)
