"""Typed values as JSON and back: what a request, a reply and a resource's state may hold.

Theory of operation. `Codec.encode` writes a value by its declared type, reads the bytes as the other side
will, and compares. What does not come back the same is refused here, by the name of its field, while
nothing is stored: a NaN that JSON has no word for, a model that was changed until it breaks its own rules,
a subclass whose own fields its base doesn't write. So whoever reads later, in another process, gets the
value that was given. JSON carries field names, never aliases, and no computed fields: readers compute
these again.

*The same* means equal and of the same type, all the way down. One exception: a whole number in the place of
a float or Decimal of equal value, and a number of another library in the place of Python's, as type checkers
see it. `Codec.canonical` is the weaker sense, for idempotency keys: all that a reader takes for equal.
"""

from __future__ import annotations

import dataclasses
import numbers
import pickle
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from math import isfinite, isnan
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from aegis_sdk.errors import ContractError, InvalidPayload
from aegis_sdk.words import said, said_of

T = TypeVar("T")

Difference = tuple[tuple[str, ...], str]
"""Where, from the outside in, and what."""

_PLAIN: Final = frozenset({str, int, bool, float, bytes, type(None), date, timedelta, UUID})
"""Types of which equal values are the same value."""
_ITEMS: Final = (list, tuple, deque)
_CHANGED: Final[Difference] = ((), "would come back changed")
_ABSENT: Final = object()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SHOWN_MAX: Final = 8
"""Names of a path that an error shows."""
DEPTH_MAX: Final = 260
"""Pydantic writes and reads less than this."""


def field_errors(error: ValidationError) -> list[str]:
    """One line a field, as a user would say it: "quantity: Input should be greater than 0"."""
    return [
        f"{'.'.join(map(str, item['loc'])) or 'payload'}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


class Codec(Generic[T]):
    """JSON bytes to a typed value and back, checked both ways by pydantic.

    Raises: ContractError, when pydantic can't check the type.
    """

    __slots__ = ("_adapter", "_schema", "_what", "type")

    def __init__(self, type_: Any, what: str) -> None:
        self.type = type_
        self._what = what
        self._schema: dict[str, Any] | None = None
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(type_)
        except Exception as error:  # a type's own hooks run here
            raise self._undeclarable(_reason(error)) from error

    def declared(self) -> Codec[T]:
        """This codec, once all is refused that can be without a value.

        Raises: ContractError, when the type has no JSON form or writes less than it needs to be read.
        """
        try:
            self._schema = self._adapter.json_schema(by_alias=False)
            written = self._adapter.json_schema(by_alias=False, mode="serialization")
            to_json(self._schema)
        except Exception as error:
            raise self._undeclarable(_reason(error)) from error
        lost = [*_never_written(self._schema, written), *_masked(self._adapter.core_schema)]
        if lost:
            names = ", ".join(dict.fromkeys(lost))
            raise self._undeclarable(f"{names} can't be read back from what is written")
        return self

    def encode(self, value: T) -> bytes:
        """What `decode` makes the same value of. Raises: InvalidPayload, with one line a field."""
        try:
            data = self._write(value)
            if difference(value, self._read(data)) is None:
                return data
        except Exception:
            pass
        return self._encode_converted(value)

    def decode(self, data: bytes) -> T:
        """Raises: InvalidPayload, with one line a field."""
        try:
            return self._read(data)
        except ValidationError as error:
            raise self._invalid(field_errors(error)) from error
        except Exception as error:  # of a validator's own
            raise self._invalid([f"payload: {_reason(error)}"]) from error

    def canonical(self, data: bytes) -> bytes:
        """The same bytes for all that is read as the same value. Raises: InvalidPayload."""
        return to_json(_canonical(self.decode(data)), inf_nan_mode="strings")

    def schema(self) -> dict[str, Any]:
        """The JSON schema, for the registry; of a declared codec."""
        assert self._schema is not None
        return self._schema

    # Past TypeAdapter's own methods, whose many options cost more than the work itself (1.4 of 1.8 µs).
    def _write(self, value: T) -> bytes:
        return self._adapter.serializer.to_json(
            value, by_alias=False, round_trip=True, warnings=False
        )

    def _read(self, data: bytes) -> T:
        back: T = self._adapter.validator.validate_json(data, by_alias=False, by_name=True)
        return back

    def _encode_converted(self, value: T) -> bytes:
        """`value` as pydantic converts it to the type: a dict to its model, "5" to an int."""
        try:
            if (once := _read_once(value)) is not None:
                raise self._different(once)
            converted = self._adapter.validate_python(value)
            if (dropped := _dropped(value, converted)) is not None:
                raise self._different(dropped)
            data = self._write_or_say(converted)
            if (found := difference(converted, self._read_or_say(converted, data))) is not None:
                raise self._different(found)
        except ContractError:
            raise
        except ValidationError as error:
            raise self._invalid(field_errors(error)) from error
        except Exception as error:
            raise self._invalid([f"payload: {_reason(error)}"]) from error
        return data

    def _write_or_say(self, value: T) -> bytes:
        try:
            return self._write(value)
        except Exception as error:
            found = _unwritable(value) or ((), f"has no JSON form: {_reason(error)}")
            raise self._different(found) from error

    def _read_or_say(self, value: T, data: bytes) -> T:
        try:
            return self._read(data)
        except ValidationError as error:
            if (found := _unwritable(value)) is None:
                raise
            raise self._different(found) from error

    def _different(self, found: Difference) -> InvalidPayload:
        path, what = found
        if len(path) > SHOWN_MAX:
            path = (*path[:SHOWN_MAX], "…")
        return self._invalid([f"{'.'.join(path) or 'payload'}: {what}"])

    def _invalid(self, fields: list[str]) -> InvalidPayload:
        return InvalidPayload(f"{self._what}: {'; '.join(fields)}", fields)

    def _undeclarable(self, why: str) -> ContractError:
        return ContractError(f"{self._what}: {_name(self.type)} can't be stored: {why}")


# --- the same -------------------------------------------------------------------------------------
def difference(given: Any, back: Any) -> Difference | None:
    """The first place where `back` is not the same as what was given; None when there is none."""
    kind: Any = type(back)
    if type(given) is not kind:
        if _is_number_for(given, back):
            return None
        return (), f"{_name(type(given))} would come back as {_name(kind)}"
    if kind in _PLAIN:
        return (
            None if given == back or (kind is float and isnan(given) and isnan(back)) else _CHANGED
        )
    return _comparer(kind)(given, back)  # type: ignore[arg-type] # mypy: a class has no hash


@lru_cache(maxsize=4096)
def _comparer(kind: type) -> Callable[[Any, Any], Difference | None]:
    """Cached, since the question whether a class is a model takes longer than to compare two of them."""
    for kinds, compare in _COMPARERS:
        if issubclass(kind, kinds):
            return compare
    return _between_dataclasses if dataclasses.is_dataclass(kind) else _between_others


def _between_models(given: BaseModel, back: BaseModel) -> Difference | None:
    ours, theirs = given.__dict__, back.__dict__
    if not (_are_plain(ours.values(), theirs.values()) and ours == theirs):
        for name in type(back).__pydantic_fields__:
            found = difference(ours.get(name, _ABSENT), theirs.get(name, _ABSENT))
            if found is not None:
                return (name, *found[0]), found[1]
    more = given.__pydantic_extra__, back.__pydantic_extra__
    own = given.__pydantic_private__, back.__pydantic_private__
    for one, other in (more, own):
        if (one or other) and (found := _between_dicts(one or {}, other or {})) is not None:
            return found
    return None


def _between_dicts(given: Any, back: Any) -> Difference | None:
    """JSON keeps the order of keys, so the n-th is compared with the n-th."""
    if isinstance(back, defaultdict) and given.default_factory != back.default_factory:
        return (), "its default_factory would come back changed"
    if _are_plain(given, back) and _are_plain(given.values(), back.values()) and given == back:
        return None
    for key, other in zip(given, back, strict=False):
        if (found := difference(key, other)) is not None:
            return (_shown(key),), f"its key: {found[1]}"
    if len(given) != len(back):
        return (), f"{len(given)} keys would come back as {len(back)}"
    return _between_pairs((_shown(key), given[key], back[key]) for key in back)


def _between_items(given: Any, back: Any) -> Difference | None:
    if isinstance(back, deque) and given.maxlen != back.maxlen:
        return (), f"maxlen={given.maxlen} would come back as {back.maxlen}"
    if _are_plain(given, back) and given == back:
        return None
    if len(given) != len(back):
        return (), f"{len(given)} items would come back as {len(back)}"
    return _between_pairs(
        (str(n), one, other) for n, (one, other) in enumerate(zip(given, back, strict=True))
    )


def _between_sets(given: Any, back: Any) -> Difference | None:
    if len(given) != len(back):
        return (), f"{len(given)} members would come back as {len(back)}"
    ours = {member: member for member in given}
    return _between_pairs(("member", ours.get(other, _ABSENT), other) for other in back)


def _between_pairs(pairs: Iterable[tuple[str, Any, Any]]) -> Difference | None:
    for name, one, other in pairs:
        if (found := difference(one, other)) is not None:
            return (name, *found[0]), found[1]
    return None


def _between_times(given: Any, back: Any) -> Difference | None:
    """A zone with summer time would come back as the offset of one moment."""
    if given != back or (given.tzinfo is None) != (back.tzinfo is None):
        return _CHANGED
    if given.tzinfo is None:
        return None if given.fold == back.fold else ((), "fold=1 would come back as 0")
    if given.tzinfo.utcoffset(None) != back.tzinfo.utcoffset(None):
        return (), f"the time zone {given.tzinfo} would come back as an offset: give it in UTC"
    return None


def _are_plain(given: Iterable[Any], back: Iterable[Any]) -> bool:
    """Whether the n-th of both are of the same type, and equal ones are the same."""
    kinds = list(map(type, back))
    return _PLAIN.issuperset(kinds) and kinds == list(map(type, given))


def _is_number_for(given: Any, back: Any) -> bool:
    """Whether `given` may stand where its type says `back`: see the head of this module."""
    if isinstance(given, bool | Enum):
        return False
    wanted = {int: numbers.Integral, Decimal: numbers.Integral, float: numbers.Real}.get(type(back))
    return wanted is not None and isinstance(given, wanted) and bool(given == back)


def _between_decimals(given: Decimal, back: Decimal) -> Difference | None:
    """1.0 and 1.00 are not the same."""
    return None if given.as_tuple() == back.as_tuple() else _CHANGED


def _between_dataclasses(given: Any, back: Any) -> Difference | None:
    names = [field.name for field in dataclasses.fields(back)]
    return _between_pairs(
        (name, getattr(given, name, _ABSENT), getattr(back, name, _ABSENT)) for name in names
    )


def _between_others(given: Any, back: Any) -> Difference | None:
    """By their own `==`, or by all that they hold, for types that have none or one of their own kind (arrays)."""
    try:
        if given is back or (given == back) is True:
            return None
        return None if pickle.dumps(given) == pickle.dumps(back) else _CHANGED
    except Exception:
        return (), "can't be compared with what would come back: its type has no =="


_COMPARERS: Final[list[tuple[Any, Callable[[Any, Any], Difference | None]]]] = [
    (BaseModel, _between_models),
    (dict, _between_dicts),
    (_ITEMS, _between_items),
    ((set, frozenset), _between_sets),
    ((datetime, time), _between_times),
    (Decimal, _between_decimals),
]


# --- what would be lost ---------------------------------------------------------------------------
def _dropped(given: Any, taken: Any) -> Difference | None:
    """The first key that a conversion left out since the type doesn't know it."""
    if isinstance(given, dict):
        if isinstance(taken, dict):
            return _first_unknown(given, taken, len(taken)) or _first_dropped(
                zip(map(_shown, given), given.values(), taken.values(), strict=True)
            )
        if isinstance(taken, BaseModel):
            known = taken.model_fields_set
            return _first_unknown(given, known, len(known)) or _first_dropped_field(given, taken)
        if dataclasses.is_dataclass(taken):
            known = {f.name for f in dataclasses.fields(taken)}
            return _first_unknown(given, known, 0) or _first_dropped_field(given, taken)
    if isinstance(given, _ITEMS) and isinstance(taken, _ITEMS):
        return _first_dropped(
            (str(n), one, other) for n, (one, other) in enumerate(zip(given, taken, strict=True))
        )
    return None


def _first_dropped_field(given: Mapping[Any, Any], taken: Any) -> Difference | None:
    """Below a model or dataclass; what is given by another name is not looked into."""
    return _first_dropped(
        (_shown(key), part, getattr(taken, key))
        for key, part in given.items()
        if isinstance(key, str) and hasattr(taken, key)
    )


def _first_unknown(
    given: Mapping[Any, Any], known: Container[Any], count: int
) -> Difference | None:
    """Up to `count` keys may be known by another name: an alias, or "1" for 1."""
    unknown = [key for key in given if key not in known]
    if not unknown or len(given) <= count:
        return None
    return (_shown(unknown[0]),), "is not in the type and would be dropped"


def _first_dropped(pairs: Iterable[tuple[str, Any, Any]]) -> Difference | None:
    for name, one, other in pairs:
        if (found := _dropped(one, other)) is not None:
            return (name, *found[0]), found[1]
    return None


def _read_once(value: Any) -> Difference | None:
    """The first generator or the like in what pydantic would convert: writing it first has emptied it."""
    if isinstance(value, Iterator):
        return (), f"{_name(type(value))} can be read only once: give a list"
    if isinstance(value, dict | list | tuple):
        for name, part in _parts(value):
            if (found := _read_once(part)) is not None:
                return (name, *found[0]), found[1]
    return None


def _unwritable(value: Any, depth: int = 0) -> Difference | None:
    """The first place in `value` that has no JSON form, unless its type has one of its own for it."""
    if depth > DEPTH_MAX:
        return (), "is nested too deep, or holds itself"
    parts = list(_parts(value))
    for name, part in parts:
        if (found := _unwritable(part, depth + 1)) is not None:
            return (name, *found[0]), found[1]
    if parts:
        return None
    if isinstance(value, float | Decimal) and not isfinite(value):
        return (), f"{value} has no JSON form"
    try:
        to_json(value)
    except ValueError as error:
        return (), f"{_name(type(value))} has no JSON form: {_reason(error)}"
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        yield from value.__dict__.items()
        yield from (value.__pydantic_extra__ or {}).items()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value))
    elif isinstance(value, dict):
        yield from ((_shown(key), part) for key, part in value.items())
        yield from (("key", key) for key in value)
    elif isinstance(value, (*_ITEMS, set, frozenset)):
        yield from ((str(n), part) for n, part in enumerate(value))


def _never_written(read: dict[str, Any], written: dict[str, Any]) -> Iterator[str]:
    """Fields that readers need and writers leave out."""
    for name, schema in [("", read), *read.get("$defs", {}).items()]:
        other = written.get("$defs", {}).get(name) if name else written
        if "properties" in schema and "properties" in (other or {}):
            lost = set(schema.get("required", ())) - set(other["properties"])
            yield from (f"{name}.{field}".lstrip(".") for field in sorted(lost))


def _masked(schema: Any, name: str = "") -> Iterator[str]:
    """Fields of a secret type that nothing but asterisks are written of."""
    if isinstance(schema, list):
        for part in schema:
            yield from _masked(part, name)
    elif isinstance(schema, dict):
        if schema.get("type") in ("dataclass-field", "computed-field"):
            name = f"{name}.{schema.get('name', '')}".strip(".")
        if (function := schema.get("serialization", {}).get("function")) is not None:
            if getattr(function, "__name__", "").startswith("_serialize_secret"):
                yield name or "its value"
            return  # a serializer of the user's own may write all
        for key, part in schema.items():
            if key == "fields" and isinstance(part, dict):
                for field, of in part.items():
                    yield from _masked(of, f"{name}.{field}".lstrip("."))
            elif key != "metadata":
                yield from _masked(part, name)


# --- the same to a reader -------------------------------------------------------------------------
def _canonical(value: Any) -> Any:  # noqa: PLR0911 - a table
    """What has one JSON form for all that are equal: 5 and 5.0, 1.0 and 1.00, sets and dicts in any order."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _canonical(value.value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Decimal):
        return _canonical_decimal(value)
    if isinstance(value, BaseModel):
        return _canonical_fields({**value.__dict__, **(value.__pydantic_extra__ or {})})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _canonical_fields(
            {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        )
    if isinstance(value, dict):
        return _canonical_fields({_canonical_text(key): part for key, part in value.items()})
    if isinstance(value, set | frozenset):
        return sorted(_canonical_text(member) for member in value)
    if isinstance(value, _ITEMS):
        return [_canonical(part) for part in value]
    if isinstance(value, datetime) and value.tzinfo is not None:
        return ["since 1970", (value - _EPOCH) // timedelta(microseconds=1)]
    return _canonical_opaque(value)


def _canonical_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _canonical(fields[name]) for name in sorted(fields)}


def _canonical_text(value: Any) -> str:
    return to_json(_canonical(value), inf_nan_mode="strings").decode()


def _canonical_decimal(value: Decimal) -> Any:
    """Not `normalize`, which rounds."""
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits))
    if not isinstance(exponent, int):
        return ["decimal", sign, text, exponent]
    short = text.rstrip("0")
    return ["decimal", sign, short, exponent + len(text) - len(short)] if short else 0


def _canonical_opaque(value: Any) -> Any:
    try:
        return from_json(to_json(value))
    except ValueError:
        return repr(value)


# --- words ------------------------------------------------------------------------------------------
def _name(type_: Any) -> str:
    return type_.__qualname__ if isinstance(type_, type) else repr(type_)


def _shown(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)


def _reason(error: BaseException) -> str:
    """The first line of what `error` says."""
    if isinstance(error, RecursionError):
        return "is nested too deep, or holds itself"
    text = said(error) if isinstance(error, ValueError) else said_of(error)
    return text.partition("\n")[0]
