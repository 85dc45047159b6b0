"""Typed values as JSON and back: what a request, a reply and a resource's state may hold.

Theory of operation. `Codec.encode` writes a value by its declared type, reads the bytes as the other side
will, and compares. What does not come back the same is refused here, by the name of its field, while
nothing is stored: a NaN that JSON has no word for, a model that was changed until it breaks its own rules,
a subclass whose own fields its base doesn't write. So whoever reads later, in another process, gets the
value that was given. Where the type is of plain parts alone, a look at the value tells the same for a third of the
time (plain.py). JSON carries field names, never aliases, and no computed fields: readers compute
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from math import isfinite, isnan
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from aegis_sdk.contract.plain import look_at
from aegis_sdk.errors import ContractError, InvalidPayload
from aegis_sdk.words import said, said_of, shown

T = TypeVar("T")

Difference = tuple[tuple[str, ...], str]
"""Where, from the outside in, and what."""

_PLAIN: Final = frozenset({str, int, bool, float, bytes, type(None), date, timedelta, UUID})
"""Types of which equal values are the same value."""
_ITEMS: Final = (list, tuple, deque)
_NOT_GONE_THROUGH: Final = (str, bytes, bytearray, IPv4Network, IPv6Network, BaseModel)
_COUNTED: Final = (*_ITEMS, set, frozenset)
_ABSENT: Final = object()
_NOT_IN_THE_TYPE: Final = ("extra_forbidden", "unexpected_keyword_argument")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SHOWN_MAX: Final = 8
"""Names of a path that an error shows."""
DEPTH_MAX: Final = 260
"""Pydantic writes and reads less than this."""
NODES_MAX: Final = 5_000_000
"""Values within one: far more than any message holds. One that is held many times is written as often."""


def field_errors(error: ValidationError) -> list[str]:
    """One line a field, as a user would say it: "quantity: Input should be greater than 0"."""
    return [
        f"{'.'.join(map(str, item['loc'])) or 'payload'}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


class Codec(Generic[T]):
    """JSON bytes to a typed value and back, checked both ways by pydantic. One for each declared type; it is made once, and
    kept.

    It writes by field names and without computed fields, and reads the same: what a type's aliases say is for others. `what`
    begins each error, as "request of accounts.book". Raises: ContractError, when pydantic can't check the type.
    """

    __slots__ = ("_adapter", "_deeper", "_kinds", "_schema", "_what", "type")

    def __init__(self, type_: Any, what: str) -> None:
        self.type = type_
        self._what = what
        self._schema: dict[str, Any] | None = None
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(type_)
        except Exception as error:  # a type's own hooks run here
            raise self._undeclarable(_reason(error)) from error
        look = look_at(self._adapter.core_schema)
        self._kinds = look.kinds if look else frozenset[type]()
        """Types of a value that a look may be enough for, with `_deeper`."""
        self._deeper = look.deeper if look else None

    def declared(self) -> Codec[T]:
        """This codec, once all is refused that can be without a value: when the contract is imported, not when a request comes.

        Raises: ContractError, when the type has no JSON form or writes less than it needs to be read.
        """
        try:
            self._schema = self._adapter.json_schema(by_alias=False)
            written = self._adapter.json_schema(by_alias=False, mode="serialization")
            to_json(self._schema)
        except Exception as error:
            raise self._undeclarable(_reason(error)) from error
        core = self._adapter.core_schema
        lost = [*_never_written(self._schema, written), *_masked(core), *_lazy(core)]
        if lost:
            names = ", ".join(dict.fromkeys(lost))
            raise self._undeclarable(f"{names} can't be read back from what is written")
        return self

    def encode(self, value: T) -> bytes:
        """What `decode` makes the same value of. Raises: InvalidPayload, with one line a field.

        Three ways, the quicker ones first: a look at the value is enough; it is written, read back and compared; it is not
        of the type, and pydantic converts it first. Whatever goes wrong in the first two, the third one finds out what to
        say.
        """
        try:
            if type(value) in self._kinds and (self._deeper is None or self._deeper(value)):
                return self._write(value)
            if unfit(value) is None:
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

    def decode_whole(self, data: bytes) -> T:
        """`decode` of what the type knows every field of; it takes no longer. Raises: Exception, for all else.

        So a state is tried by this first, and only one with something unknown, or amiss, goes on to the slower ways
        (contract/unknown.py).
        """
        whole: T = self._adapter.validator.validate_json(
            data, extra="forbid", by_alias=False, by_name=True
        )
        return whole

    def decode_partly(self, data: bytes) -> tuple[T, bytes]:
        """`decode`; with it, what the type writes of the value. Raises: InvalidPayload."""
        value = self.decode(data)
        return value, self._write(value)

    def unknown_places(self, data: bytes) -> tuple[list[tuple[str | int, ...]], bool]:
        """Where pydantic finds fields that the type does not have, and whether it finds nothing else amiss.

        A place is a path of names and list indexes, in which pydantic also names the members of a union. With something else
        amiss the places are not all: pydantic stops looking within what it refuses.
        """
        try:
            self.decode_whole(data)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            places = [item["loc"] for item in found if item["type"] in _NOT_IN_THE_TYPE]
            return places, len(places) == len(found)
        except Exception:  # of a validator's own
            return [], False
        return [], True

    def canonical(self, data: bytes) -> bytes:
        """The same bytes for all that is read as the same value. Raises: InvalidPayload.

        For fingerprints of keyed requests (G2): sets and dicts in any order, 5 and 5.00, a newer caller's field that has its
        default. It is never stored and never read back.
        """
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
            if (found := unfit(value, converts=True)) is not None:
                raise self._different(found)
            converted = self._converted(value)
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

    def _converted(self, given: Any) -> T:
        """`given` as the type has it. Raises: ValidationError; InvalidPayload for a key that the type doesn't know,
        wherever it stands.

        Pydantic knows all aliases, so it is asked to forbid such keys. If there are any, it is asked to keep all of them:
        a type that does so by itself has the same size then, and has dropped none.
        """
        converted = self._adapter.validate_python(given)
        try:
            return self._adapter.validate_python(given, extra="forbid")
        except ValidationError as error:
            all_kept = self._adapter.validate_python(given, extra="allow")
            found = _first_unknown(error, but_models=_size(all_kept) == _size(converted))
        if found is not None:
            raise self._different(found)
        return converted

    def _write_or_say(self, value: T) -> bytes:
        """Pydantic's own error names no field: it is looked for. Raises: InvalidPayload."""
        try:
            return self._write(value)
        except Exception as error:
            found = _unwritable(value) or ((), f"has no JSON form: {_reason(error)}")
            raise self._different(found) from error

    def _read_or_say(self, value: T, data: bytes) -> T:
        """A NaN is written as null, and reading refuses the null: the error has to name what was given.

        Raises: InvalidPayload, ValidationError.
        """
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
    """The first place where `back` is not the same as what was given; None when there is none. O(all values in it).

    Types are compared at every level, since equal is not the same: True == 1, 1.0 == 1, and a subclass may compare as its base.
    """
    kind: Any = type(back)
    if type(given) is not kind:
        if _is_number_for(given, back):
            return None
        return changed(given, back)
    if kind in _PLAIN:
        same = given == back or (kind is float and isnan(given) and isnan(back))
        return None if same else changed(given, back)
    return _comparer(kind)(given, back)  # type: ignore[arg-type] # mypy: a class has no hash


def changed(given: Any, back: Any) -> Difference:
    """In words: both, and their types where these differ or nothing else that is shown does."""
    one, other = shown(given), shown(back)
    if type(given) is not type(back) or one == other:
        one, other = f"{one} ({_name(type(given))})", f"{other} ({_name(type(back))})"
    return (), f"{one} would come back changed, as {other}"


@lru_cache(maxsize=4096)
def _comparer(kind: type) -> Callable[[Any, Any], Difference | None]:
    """Cached, since the question whether a class is a model takes longer than to compare two of them."""
    for kinds, compare in _COMPARERS:
        if issubclass(kind, kinds):
            return compare
    return _between_dataclasses if dataclasses.is_dataclass(kind) else _between_others


def _between_models(given: BaseModel, back: BaseModel) -> Difference | None:
    """By fields, then by extras and private attributes, which pydantic keeps apart. First a quick look: dicts of plain
    values.
    """
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
        factories = shown(given.default_factory), shown(back.default_factory)
        return (), "its default_factory {} would come back changed, as {}".format(*factories)
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
    """Members have no order; each is compared with the equal one, which may be of another type."""
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
        return changed(given, back)
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
    return None if given.as_tuple() == back.as_tuple() else changed(given, back)


def _between_dataclasses(given: Any, back: Any) -> Difference | None:
    names = [field.name for field in dataclasses.fields(back)]
    return _between_pairs(
        (name, getattr(given, name, _ABSENT), getattr(back, name, _ABSENT)) for name in names
    )


def _between_others(given: Any, back: Any) -> Difference | None:
    """By their own `==`, or by all that they hold, for types that have none or one of their own kind (arrays).

    `is True`, since an array's `==` is an array. A type whose `==` raises can't be compared, and is refused.
    """
    try:
        if given is back or (given == back) is True:
            return None
        return None if pickle.dumps(given) == pickle.dumps(back) else changed(given, back)
    except Exception:
        return (), f"{shown(given)} can't be compared with what would come back: its type has no =="


_COMPARERS: Final[list[tuple[Any, Callable[[Any, Any], Difference | None]]]] = [
    (BaseModel, _between_models),
    (dict, _between_dicts),
    (_ITEMS, _between_items),
    ((set, frozenset), _between_sets),
    ((datetime, time), _between_times),
    (Decimal, _between_decimals),
]


# --- what would be lost ---------------------------------------------------------------------------
def _first_unknown(error: ValidationError, *, but_models: bool) -> Difference | None:
    """A dataclass keeps nothing that it doesn't know; `but_models`: those do, or have dropped nothing."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    unknown = [item for item in found if item["type"] == "unexpected_keyword_argument"]
    if but_models and not unknown:
        return None
    unknown += [item for item in found if item["type"] == "extra_forbidden"] or found[:1]
    return tuple(map(str, unknown[0]["loc"])), "is not in the type and would be dropped"


def unfit(value: Any, *, converts: bool = False) -> Difference | None:
    """The first place in `value` that must not even be written: pydantic would never end, or has emptied it then.

    `converts`: pydantic is to make a value of the type from it, and goes through whatever can be gone through.
    """
    try:
        _Walk(converts=converts).size(value, 0)
    except _Unfit as error:
        return error.path, error.what
    return None


def _size(value: Any) -> int:
    return _Walk(converts=False).size(value, 0)


class _Unfit(Exception):
    """`path` is made on the way up, from the inside out: each level puts its own name in front."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.path: tuple[str, ...] = ()
        self.what = what


class _Walk:
    """Through all that a value holds, each once.

    Pydantic writes what is held in two places twice, and so on at every level: a value of a hundred lists can take 2^100. So
    sizes are counted as they will be written, from the bottom up, while the walk itself takes each object once.
    """

    def __init__(self, *, converts: bool) -> None:
        self._converts = converts
        self._sizes: dict[int, int] = {}
        """By id; 0 while it is gone through."""

    def size(self, value: Any, depth: int) -> int:
        """How many values are written of it. Raises: _Unfit."""
        kind = type(value)
        if kind in _PLAIN:
            return 1
        if isinstance(value, Iterator):
            raise _Unfit(f"{_name(kind)} can be read only once, or has no end: give a list")
        if depth > DEPTH_MAX or (known := self._sizes.get(id(value))) == 0:
            raise _Unfit("is nested too deep, or holds itself")
        if known is not None:
            return known
        self._sizes[id(value)] = 0
        self._sizes[id(value)] = total = self._of_parts(value, depth)
        if total > NODES_MAX:
            raise _Unfit(f"holds {total} values, and {NODES_MAX} are the most")
        return total

    def _of_parts(self, value: Any, depth: int) -> int:
        if isinstance(value, _COUNTED) and _PLAIN.issuperset(map(type, value)):
            return 1 + len(value)
        total = 1
        for name, part in _parts(value):
            if type(part) in _PLAIN:
                total += 1
                continue
            try:
                total += self.size(part, depth + 1)
            except _Unfit as error:
                error.path = (name, *error.path)
                raise
        if total == 1 and self._converts:
            _endless(value)
        return total


def _endless(value: Any) -> None:
    """What is no value, no container of a known kind, and can be gone through without telling how far.

    Only where pydantic converts: it makes a list of whatever can be gone through, and would do so for ever, or until the
    memory is full. Raises: _Unfit.
    """
    if not isinstance(value, Iterable) or isinstance(value, _NOT_GONE_THROUGH):
        return
    if not isinstance(value, Sized):
        raise _Unfit(f"{_name(type(value))} may have no end: give a list")
    if len(value) > NODES_MAX:
        raise _Unfit(f"holds {len(value)} values, and {NODES_MAX} are the most")


def _unwritable(value: Any, seen: set[int] | None = None) -> Difference | None:
    """The first place in `value`, which is not unfit, that has no JSON form, unless its type has one for it."""
    seen = set() if seen is None else seen
    parts = [] if id(value) in seen else list(_parts(value))
    if parts:
        seen.add(id(value))
    for name, part in parts:
        if (found := _unwritable(part, seen)) is not None:
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
    """What a value holds, each with its name for an error. A dict's keys are parts, too: they may be models or tuples."""
    if isinstance(value, BaseModel):
        yield from value.__dict__.items()
        yield from (value.__pydantic_extra__ or {}).items()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value))
    elif isinstance(value, dict):
        yield from ((_shown(key), part) for key, part in value.items())
        yield from (("key", key) for key in value)
    elif isinstance(value, _COUNTED):
        yield from ((str(n), part) for n, part in enumerate(value))


def _never_written(read: dict[str, Any], written: dict[str, Any]) -> Iterator[str]:
    """Fields that readers need and writers leave out."""
    for name, schema in [("", read), *read.get("$defs", {}).items()]:
        other = written.get("$defs", {}).get(name) if name else written
        if "properties" in schema and "properties" in (other or {}):
            lost = set(schema.get("required", ())) - set(other["properties"])
            yield from (f"{name}.{field}".lstrip(".") for field in sorted(lost))


def _lazy(schema: Any) -> Iterator[str]:
    """What is read back as an iterator, which can be read once."""
    if isinstance(schema, dict) and schema.get("type") == "generator":
        yield "an iterable (declare a list)"
    if isinstance(schema, dict | list):
        for part in schema.values() if isinstance(schema, dict) else schema:
            yield from _lazy(part)


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
