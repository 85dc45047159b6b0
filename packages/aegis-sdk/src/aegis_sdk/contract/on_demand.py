"""Resources that come when they are asked for: which ones an instance takes, and how they match.

A pattern is a glob over the whole id, as `fnmatch` has them: `*` any text, `?` one character, `[0-9]` one of these. Capitals
count. An id that holds such characters itself is matched by `[*]`, `[?]`, `[[]`.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable
from typing import Final

from aegis_sdk.contract import arguments
from aegis_sdk.errors import InvalidArgument

STANDBYS_MAX: Final = 16
IDLE_S: Final = 600.0
PATTERNS_MAX: Final = 1_000
"""Each id that is asked for is held against all of them."""


class Resources:
    """What an instance takes on demand: `resources=Resources("ACC-*")`, or `Resources("*")` for all.

    A resource begins to exist with its first request. Control gives it to the least loaded instance that takes it, and
    lets `standbys` others follow it, in another zone where there is one. One that nobody asks for during `idle_s` seconds
    (None: never) is given up: its state stays in the log, and its next request brings it back.
    """

    __slots__ = ("idle_s", "patterns", "standbys")

    def __init__(self, *patterns: str, standbys: int = 1, idle_s: float | None = IDLE_S) -> None:
        """Raises: InvalidArgument."""
        if not patterns:
            raise InvalidArgument(
                'Resources() matches nothing: give a pattern, as Resources("ACC-*")'
            )
        if len(patterns) > PATTERNS_MAX:
            raise InvalidArgument(f"{len(patterns)} patterns are too many: at most {PATTERNS_MAX}")
        self.patterns = tuple(_pattern(each) for each in patterns)
        self.standbys = arguments.whole(standbys, "standbys", least=0, most=STANDBYS_MAX)
        self.idle_s = arguments.optional_duration_s(idle_s, "idle_s")
        if self.idle_s is not None and self.idle_s < 1.0:
            raise InvalidArgument(
                f"idle_s must be at least 1 second, and is {self.idle_s:g}: None keeps all"
            )

    def __repr__(self) -> str:
        return f"Resources({', '.join(map(repr, self.patterns))})"

    def __contains__(self, resource: object) -> bool:
        return isinstance(resource, str) and matches(self.patterns, resource)


def _pattern(value: object) -> str:
    pattern = arguments.text(value, "a pattern", error=InvalidArgument)
    if not pattern:
        raise InvalidArgument('a pattern is empty: "*" matches all')
    return pattern


def matches(patterns: Iterable[str], resource: str) -> bool:
    """Whether one of `patterns` matches."""
    return _compiled(tuple(patterns)).fullmatch(resource) is not None


@functools.lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")
