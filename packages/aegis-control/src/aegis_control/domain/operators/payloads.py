"""Does a payload fit a method's contract? A value and a JSON schema in, sentences out.

Theory of operation. The registry has the JSON schema of each method's request, as pydantic makes it of a type. A person who
types a payload is told of a slip before anything is sent. The service reads the payload again by its type, and has the last word:
it knows more rules than a schema can say.

What must stay true: what is not understood of a schema is not told (as in domain/leading/contracts.py).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

Schema = Mapping[str, Any]
TOLD_MAX: Final = 20
_REFS_MAX: Final = 30
_DEPTH_MAX: Final = 60
"""Of a value, and of types that refer to themselves; what is deeper is left to the service."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _is_number,
    "integer": lambda value: _is_number(value) and value == int(value),
}
_BOUNDS: Final[Mapping[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "minimum": (operator.ge, "at least"),
    "exclusiveMinimum": (operator.gt, "greater than"),
    "maximum": (operator.le, "at most"),
    "exclusiveMaximum": (operator.lt, "less than"),
}
_SIZES: Final[Mapping[str, tuple[Any, Callable[[Any, Any], bool], str]]] = {
    "minLength": (str, operator.ge, "at least {} characters"),
    "maxLength": (str, operator.le, "at most {} characters"),
    "minItems": (list, operator.ge, "at least {} items"),
    "maxItems": (list, operator.le, "at most {} items"),
    "minProperties": (dict, operator.ge, "at least {} keys"),
    "maxProperties": (dict, operator.le, "at most {} keys"),
}


def problems(value: Any, schema: Schema) -> list[str]:
    """One line a field: "quantity: must be greater than 0; got -5". Empty when nothing is found."""
    found = _Payload(schema).problems(value, schema, "payload", 0)
    return [line for line, _ in zip(found, range(TOLD_MAX), strict=False)]


class _Payload:
    """`whole`: the document, which has the definitions that parts refer to."""

    def __init__(self, whole: Schema) -> None:
        self._whole = whole

    def problems(self, value: Any, schema: Any, path: str, depth: int) -> Iterator[str]:
        schema = self._resolved(schema)
        if depth > _DEPTH_MAX:
            return
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            yield from self._of_choices(value, choices, path, depth)
            return
        kind = schema.get("type")
        if isinstance(kind, str) and not _IS.get(kind, _anything)(value):
            yield f"{path}: must be {_a(kind)}; got {_shown(value)}"
            return
        yield from _of_itself(value, schema, path)
        if isinstance(value, dict):
            yield from self._of_fields(value, schema, path, depth)
        if isinstance(value, list):
            yield from self._of_items(value, schema, path, depth)

    def _of_choices(
        self, value: Any, choices: Sequence[Any], path: str, depth: int
    ) -> Iterator[str]:
        """What is wrong with it by the choice of its type, if there is one."""
        found = [list(self.problems(value, choice, path, depth + 1)) for choice in choices]
        if not all(found):
            return
        kinds = [str(self._resolved(choice).get("type", "")) for choice in choices]
        of_its_type = [
            lines
            for lines, kind in zip(found, kinds, strict=True)
            if _IS.get(kind, _anything)(value)
        ]
        if len(of_its_type) == 1:
            yield from of_its_type[0]
        else:
            names = " or ".join(dict.fromkeys(_a(kind) for kind in kinds))
            yield f"{path}: fits none of the choices ({names}); got {_shown(value)}"

    def _of_fields(
        self, value: dict[str, Any], schema: Schema, path: str, depth: int
    ) -> Iterator[str]:
        fields, more = schema.get("properties", {}), schema.get("additionalProperties")
        prefix = "" if path == "payload" else f"{path}."
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{prefix}{name}: is missing"
        for name, each in value.items():
            if name in fields:
                yield from self.problems(each, fields[name], prefix + name, depth + 1)
            elif more is False:
                yield f"{prefix}{name}: is not in the contract"
            elif isinstance(more, Mapping):
                yield from self.problems(each, more, prefix + name, depth + 1)

    def _of_items(self, value: list[Any], schema: Schema, path: str, depth: int) -> Iterator[str]:
        before = schema.get("prefixItems", ())
        for n, each in enumerate(value):
            item = before[n] if n < len(before) else schema.get("items")
            if isinstance(item, Mapping):
                yield from self.problems(each, item, f"{path}[{n}]", depth + 1)

    def _resolved(self, schema: Any) -> Schema:
        """Behind its references; one that can't be followed says nothing."""
        for _ in range(_REFS_MAX):
            if not isinstance(schema, Mapping):
                return {}
            ref = schema.get("$ref")
            if not isinstance(ref, str):
                return schema
            schema = self._whole.get("$defs", {}).get(ref.rpartition("/")[2])
        return {}


def _of_itself(value: Any, schema: Schema, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(map(_shown, schema["enum"]))
        yield f"{path}: must be one of {choices}; got {_shown(value)}"
    if "const" in schema and value != schema["const"]:
        yield f"{path}: must be {_shown(schema['const'])}; got {_shown(value)}"
    for key, (holds, words) in _BOUNDS.items():
        if key in schema and _is_number(value) and not holds(value, schema[key]):
            yield f"{path}: must be {words} {schema[key]}; got {_shown(value)}"
    for key, (kind, holds, words) in _SIZES.items():
        if key in schema and isinstance(value, kind) and not holds(len(value), schema[key]):
            yield f"{path}: must have {words.format(schema[key])}; has {len(value)}"


def _anything(_: Any) -> bool:
    return True


def _a(kind: str) -> str:
    if kind in ("", "null"):
        return kind or "another"
    return f"{'an' if kind[0] in 'aio' else 'a'} {kind}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
