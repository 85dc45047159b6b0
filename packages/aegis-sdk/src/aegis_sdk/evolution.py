"""What a version of a service knows of the forms that its state had before: `Service.migrates`.

A migration is asked only for what the type does not read whole, and only if its old form has every field that is stored. So
neither a value of this version comes to it nor one of a later version, which has more fields.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from pydantic_core import from_json, to_json

from aegis_sdk.contract.unknown import Unknown, named, unknown_of
from aegis_sdk.contract.values import Codec
from aegis_sdk.errors import ContractError, InvalidPayload
from aegis_sdk.words import said_of, said_type

NOTHING: Final = object()
TOLD_MAX: Final = 1_000
"""Of a handler that makes up keys and types."""
_ANY_FORM: Final = {"": [None, {"": 0.5}]}
"""A type that reads this reads the forms of later versions, too."""


@lru_cache(maxsize=1024)
def _cached_codec(type_: Any) -> Codec[Any]:
    return Codec(type_, "state")


def codec_of(type_: Any) -> Codec[Any]:
    """Raises: ContractError."""
    try:
        return _cached_codec(type_)
    except TypeError:  # an annotation may hold what has no hash
        return Codec(type_, "state")


def parsed(data: bytes) -> Any:
    """The JSON value, read at the depth at which it stands in a change, since the parser bounds the depth.

    Raises: InvalidPayload.
    """
    try:
        return from_json(b"[[%b]]" % data)[0][0]
    except ValueError as error:
        raise InvalidPayload(f"state: payload: {error}", [f"payload: {error}"]) from error


@dataclass(frozen=True, slots=True)
class Reading:
    """A value as a type reads it, which may not know all of it: `known` is what the type writes."""

    value: Any
    codec: Codec[Any]
    known: Any = None
    unknown: Unknown | None = None

    def reads(self, data: bytes) -> bool:
        """Whether the type can read this, too."""
        try:
            self.codec.decode(data)
        except ContractError:
            return False
        return True


def read_partly(codec: Codec[Any], stored: Any, data: bytes) -> Reading:
    """Raises: InvalidPayload."""
    value, written = codec.decode_partly(data)
    known, (places, _) = parsed(written), codec.unknown_places(data)
    return Reading(value, codec, known, unknown_of(stored, known, places))


def unknown_names(codec: Codec[Any], stored: Any) -> list[str]:
    """Fields of `stored` that the type does not have; none, when `stored` is something else altogether."""
    data = to_json(stored)
    try:
        unknown = read_partly(codec, stored, data).unknown
    except ContractError:  # a type that forbids what it does not have says so, and nothing else
        places, is_all = codec.unknown_places(data)
        return [named(place) for place in places] if is_all else []
    return unknown.names() if unknown is not None else []


@dataclass(frozen=True, slots=True)
class Migration:
    """How a value of the form `old` becomes one of the type `new`."""

    old: Any
    new: Any
    function: Callable[[Any], Any]

    def __call__(self, old: Any) -> Any:
        """Raises: ContractError."""
        try:
            new = self.function(old)
            codec = codec_of(self.new)
            return codec.decode(codec.encode(new))
        except Exception as error:
            raise ContractError(f"{self} failed: {said_of(error)}") from error

    def __str__(self) -> str:
        return f"migration {getattr(self.function, '__qualname__', said_type(self.function))}"


@dataclass(slots=True)
class Evolution:
    """Of one service."""

    migrations: list[Migration] = field(default_factory=list)
    _told: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, migration: Migration) -> None:
        """Raises: ContractError."""
        old, new = codec_of(migration.old), codec_of(migration.new)
        if not callable(migration.function) or inspect.iscoroutinefunction(migration.function):
            raise ContractError(f"{migration}: register a plain function of the old value")
        if any((one.old, one.new) == (old.type, new.type) for one in self.migrations):
            raise ContractError(f"{migration}: there is one from {old.type!r} to {new.type!r}")
        if _whole(old, _ANY_FORM, to_json(_ANY_FORM)) is not NOTHING:
            raise ContractError(
                f"{migration}: {old.type!r} takes any form, also those of later versions: say the old form by a model"
            )
        self.migrations.append(migration)

    def migrate(self, type_: Any, stored: Any, data: bytes, passed: tuple[Any, ...] = ()) -> Any:
        """The value as a `type_` if it has an old form, also by many steps; else NOTHING. Raises: ContractError."""
        for migration in self.migrations:
            if migration.new != type_ or migration.old in passed:
                continue
            old = _whole(codec_of(migration.old), stored, data)
            if old is NOTHING:
                old = self.migrate(migration.old, stored, data, (*passed, type_))
            if old is not NOTHING:
                return migration(old)
        return NOTHING

    def is_news(self, *what: str) -> bool:
        """Whether this process has not told so before."""
        if what in self._told or len(self._told) >= TOLD_MAX:
            return False
        self._told.add(what)
        return True


def _whole(codec: Codec[Any], stored: Any, data: bytes) -> Any:
    """The value, if the type knows all of it; else NOTHING."""
    try:
        return codec.decode_whole(data)
    except Exception:  # of a validator's own, too
        pass
    try:
        reading = read_partly(codec, stored, data)
    except ContractError:
        return NOTHING
    return reading.value if reading.unknown is None else NOTHING
