"""Types of which a value that looks right is right, so that it needs not be read back before it is stored.

Theory of operation. What pydantic has made of a type is walked once, when the type is declared. `look_at` gives a
function of a value: True says that what is written of this value will be read as the same value. False says that
this can't be told by a look, never that the value is wrong: whoever asked writes it and reads it back. A type with
anything in it that this module doesn't know (a validator, a serializer, a pattern, a union) has no such function.

So an unknown kind of schema, key or setting must end in None here. A value of any other type than the declared one,
a subclass too, must end in False.

What the mistakes cost is not the same. A False too many costs the time of one reading. A True too many stores a value that
comes back as another one, and nobody notices until it does. So what is not certain is left to the slow way: a number
beyond 64 bits, a time zone that is not UTC, a type that holds itself, a model with any setting that is not listed. A new
version of pydantic may bring keys of its own, and these types then simply take the slow way.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import repeat
from math import isfinite
from typing import Any, Final, NamedTuple
from uuid import UUID

Deeper = Callable[[Any], bool]
JSON_NODES_MAX: Final = 10_000
"""Of a value of no declared type; a larger one takes the slow way."""
JSON_DEPTH_MAX: Final = 100
"""Of a value of no declared type; pydantic reads about twice as deep."""
_NONE: Final[type] = type(None)
_JSON: Final = frozenset({str, int, float, bool, _NONE, list, dict})
_TEXT: Final = frozenset({str})
_ABSENT: Final = object()


class Look(NamedTuple):
    """A value is plain when its type is one of `kinds` and `deeper`, if there is one, says so too."""

    kinds: frozenset[type]
    deeper: Deeper | None = None

    def __call__(self, value: Any) -> bool:
        return type(value) in self.kinds and (self.deeper is None or self.deeper(value))


def look_at(schema: Mapping[str, Any]) -> Look | None:
    """Of a type's core schema, once for each declared type; None: no value of it can be judged by a look.

    Whatever goes wrong in the walk ends in None: that costs time, and never a value.
    """
    try:
        return _Reader().look(schema)
    except Exception:  # whatever another version of pydantic makes of a type
        return None


class _Unknown(Exception):
    """The type holds something that has to be tried with each value."""


_NUMBERS: Final = range(-(2**63), 2**63)
"""Readers have a bound for the digits of a number; this is far from it."""
_COMPARED: Final = {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}
_ABOUT: Final = frozenset({"type", "metadata", "ref", "strict"})
"""Keys of any schema that change nothing about a value of the right type."""
_LEAVES: Final[dict[str, tuple[type, Deeper | None, frozenset[str]]]] = {
    "str": (str, None, frozenset()),
    "int": (int, _NUMBERS.__contains__, frozenset(_COMPARED)),
    "float": (float, isfinite, frozenset({*_COMPARED, "allow_inf_nan"})),
    "decimal": (Decimal, Decimal.is_finite, frozenset({*_COMPARED, "allow_inf_nan"})),
    "bool": (bool, None, frozenset()),
    "none": (_NONE, None, frozenset()),
    "date": (date, None, frozenset()),
    "datetime": (
        datetime,
        lambda at: at.tzinfo is UTC or (at.tzinfo is None and not at.fold),
        frozenset({"microseconds_precision"}),
    ),
    "uuid": (UUID, None, frozenset()),
}
"""Kind of schema: its type, what to look at, and the further keys that are understood."""
_SETTINGS: Final = frozenset(
    {
        "title",
        "strict",
        "extra_fields_behavior",
        "from_attributes",
        "loc_by_alias",
        "revalidate_instances",
        "validate_default",
        "hide_input_in_errors",
        "serialize_by_alias",
        "validate_by_alias",
        "validate_by_name",
    }
)
"""Of a model: what changes nothing about a value of the right type."""


class _Reader:
    """Walks one schema, once. A method for each kind that is understood, called after it; `_only` in each refuses keys that
    are not.

    `_named` are the parts that are referred to by name, `_within` those that are being walked: a part within itself is a type
    whose values may be nested to any depth, or hold themselves.
    """

    def __init__(self) -> None:
        self._named: dict[str, Mapping[str, Any]] = {}
        self._within: list[str] = []

    def look(self, schema: Mapping[str, Any]) -> Look:
        """Raises: _Unknown."""
        kind = schema["type"]
        if kind in _LEAVES:
            return _leaf(schema, *_LEAVES[kind])
        read = getattr(self, f"_{kind.replace('-', '_')}", None)
        if read is None:
            raise _Unknown
        found: Look = read(schema)
        return found

    def _definitions(self, schema: Mapping[str, Any]) -> Look:
        self._named |= {part["ref"]: part for part in schema["definitions"]}
        return self.look(schema["schema"])

    def _definition_ref(self, schema: Mapping[str, Any]) -> Look:
        """A part that is used in several places is walked at each, under its name."""
        name = schema["schema_ref"]
        _only(schema, "schema_ref")
        if name in self._within:  # it holds itself: how deep a value is can't be told by its type
            raise _Unknown
        self._within.append(name)
        found = self.look(self._named[name])
        self._within.pop()
        return found

    def _default(self, schema: Mapping[str, Any]) -> Look:
        more = ("default_factory", "default_factory_takes_data", "copy_default", "validate_default")
        _only(schema, "schema", "default", *more)
        return self.look(schema["schema"])

    def _nullable(self, schema: Mapping[str, Any]) -> Look:
        """The one union that is understood: None can't be taken for anything else when it is read."""
        _only(schema, "schema")
        kinds, deeper = self.look(schema["schema"])
        if deeper is None:
            return Look(kinds | {_NONE})
        return Look(kinds | {_NONE}, lambda value: value is None or deeper(value))

    def _any(self, schema: Mapping[str, Any]) -> Look:
        _only(schema)
        return Look(_JSON, lambda value: _is_json(value, [JSON_NODES_MAX], 0))

    def _literal(self, schema: Mapping[str, Any]) -> Look:
        _only(schema, "expected")
        if set(map(type, schema["expected"])) != {str}:
            raise _Unknown
        return Look(frozenset({str}), frozenset(schema["expected"]).__contains__)

    def _enum(self, schema: Mapping[str, Any]) -> Look:
        """Its members are all text, or all whole numbers: each is written as its value, and read back by it."""
        _only(schema, "cls", "members", "sub_type")
        if {type(member.value) for member in schema["members"]} not in ({str}, {int}):
            raise _Unknown
        kind: type = schema["cls"]
        return Look(frozenset({kind}))

    def _list(self, schema: Mapping[str, Any]) -> Look:
        _only(schema, "items_schema")
        return Look(frozenset({list}), _of_each(self.look(schema["items_schema"])))

    def _tuple(self, schema: Mapping[str, Any]) -> Look:
        """Of fixed parts, or of any number of one kind; a mixture of both is left to the slow way."""
        _only(schema, "items_schema", "variadic_item_index")
        items = [self.look(item) for item in schema["items_schema"]]
        if "variadic_item_index" not in schema:
            return Look(frozenset({tuple}), lambda given: _fit(items, given))
        if len(items) != 1:
            raise _Unknown
        return Look(frozenset({tuple}), _of_each(items[0]))

    def _dict(self, schema: Mapping[str, Any]) -> Look:
        """With keys of text: JSON has no others, so any other key is written as text and made again."""
        _only(schema, "keys_schema", "values_schema")
        of_keys = _of_each(self.look(schema["keys_schema"]))
        if schema["keys_schema"]["type"] != "str":
            raise _Unknown
        of_values = _of_each(self.look(schema["values_schema"]))
        return Look(frozenset({dict}), lambda given: of_keys(given) and of_values(given.values()))

    def _model(self, schema: Mapping[str, Any]) -> Look:
        """Its fields and nothing more: no extras, no validators, no `__init__` and no root type of its own.

        A model that was changed after it was made may break its own rules. So the fields' types and bounds are looked at in
        each value, also those that pydantic has checked once.
        """
        _only(
            schema,
            "cls",
            "schema",
            "config",
            "custom_init",
            "root_model",
            "frozen",
            "generic_origin",
        )
        settings, inner = schema.get("config", {}), schema["schema"]
        if (
            schema.get("custom_init")
            or schema.get("root_model")
            or inner["type"] != "model-fields"
            or not _SETTINGS.issuperset(settings)
            or settings.get("extra_fields_behavior") == "allow"
        ):
            raise _Unknown
        _only(inner, "fields", "computed_fields", "model_name")
        return Look(frozenset({schema["cls"]}), _of_fields(self._fields(inner["fields"])))

    def _fields(self, fields: Mapping[str, Any]) -> list[tuple[str, Look]]:
        for field in fields.values():
            _only(field, "schema", "validation_alias", "serialization_alias", "frozen")
        return [(name, self.look(field["schema"])) for name, field in fields.items()]


def _only(schema: Mapping[str, Any], *keys: str) -> None:
    """Raises: _Unknown, when the schema says more than these."""
    if not _ABOUT.issuperset(schema.keys() - set(keys)):
        raise _Unknown


def _leaf(
    schema: Mapping[str, Any], kind: type, deeper: Deeper | None, keys: frozenset[str]
) -> Look:
    """A value without parts: of exactly this type, within the schema's bounds. A length or a pattern is not understood."""
    _only(schema, *keys)
    bounds = [(_COMPARED[key], schema[key]) for key in _COMPARED if key in schema]
    if not bounds:
        return Look(frozenset({kind}), deeper)

    def within(value: Any) -> bool:
        return (deeper is None or deeper(value)) and all(
            compare(value, bound) for compare, bound in bounds
        )

    return Look(frozenset({kind}), within)


def _of_each(look: Look) -> Deeper:
    kinds, deeper = look
    if deeper is None:
        return lambda items: kinds.issuperset(map(type, items))

    def each(items: Any) -> bool:
        return kinds.issuperset(map(type, items)) and all(map(deeper, items))

    return each


def _fit(looks: list[Look], given: tuple[Any, ...]) -> bool:
    if len(given) != len(looks):
        return False
    for value, (kinds, deeper) in zip(given, looks, strict=True):
        if type(value) not in kinds or (deeper is not None and not deeper(value)):
            return False
    return True


def _of_fields(fields: list[tuple[str, Look]]) -> Deeper:
    """Past attribute access: in `__dict__` a field that was deleted is missing, and its absence is of no allowed type."""
    parts = [(name, *look) for name, look in fields]

    def each(model: Any) -> bool:
        values = model.__dict__
        for name, kinds, deeper in parts:
            value = values.get(name, _ABSENT)
            if type(value) not in kinds or (deeper is not None and not deeper(value)):
                return False
        return True

    return each


def _is_json(value: Any, left: list[int], depth: int) -> bool:
    """Of a value whose type says nothing (`Any`, a bare dict): whether it is JSON itself, so that it comes back the same.

    `left`: how many nodes may still be looked at, in the one item of a list, since all levels count it down together. With
    it, and with the depth, a value that holds itself ends in False.
    """
    kind = type(value)
    if kind is float:
        return isfinite(value)
    if kind is int:
        return value in _NUMBERS
    if kind is list:
        items = value
    elif kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        items = value.values()
    else:
        return kind in _JSON
    left[0] -= len(items)
    if left[0] < 0 or depth > JSON_DEPTH_MAX:
        return False
    return all(map(_is_json, items, repeat(left), repeat(depth + 1)))
