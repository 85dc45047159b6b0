"""Does a new version of a service understand those that are there, and they it? Two JSON schemas in, sentences out.

Theory of operation. A request is written by who has the old contract and read by the new one; a reply the other way round. So
one rule serves both: what can a reader not read of what a writer may write? A field that the reader does not know is no
harm, since it is left out. One that it needs, and that the writer does not have, is. So is a value of another type, outside
the reader's choices, or past its bounds.

What must stay true: what is not understood of a schema is not told. A warning that is wrong teaches people to read none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aegis_sdk.contract.control import MethodSpec

Schema = Mapping[str, Any]
_Seen = frozenset[tuple[str, str]]
"""Pairs of types, by name, that are compared already, further up."""
_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SAME: Final = ("format", "pattern", "multipleOf")
_ANY: Final = ("type", "properties", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
_REFS_MAX: Final = 30
TOLD_MAX: Final = 50


def differences(known: Sequence[MethodSpec], offered: Sequence[MethodSpec]) -> list[str]:
    """What breaks between callers of the `known` methods and an instance that serves those that are `offered`."""
    by_name = {method.name: method for method in offered}
    found: list[str] = []
    for old in known:
        new = by_name.get(old.name)
        found += [f"{old.name}: the method is gone"] if new is None else _of_method(old, new)
    return found[:TOLD_MAX]


def _of_method(old: MethodSpec, new: MethodSpec) -> Iterator[str]:
    request = _Reading(old.request_schema, new.request_schema, "the callers", "this version")
    reply = _Reading(new.reply_schema, old.reply_schema, "this version", "the callers")
    yield from request.problems(f"{old.name}.request")
    yield from reply.problems(f"{old.name}.reply")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What `reader` can't read of what `writer` may write; both are whole documents, for their `$defs`."""

    writer: Schema
    reader: Schema
    writes: str
    reads: str

    def problems(self, path: str) -> Iterator[str]:
        yield from self._problems(self.writer, self.reader, path, frozenset())

    def _problems(self, writer: Any, reader: Any, path: str, seen: _Seen) -> Iterator[str]:
        pair = _ref(writer), _ref(reader)
        if pair in seen:
            return  # a type that holds itself
        seen |= {pair} if all(pair) else set()
        writer, reader = _resolved(self.writer, writer), _resolved(self.reader, reader)
        if writer == reader and self.writer.get("$defs") == self.reader.get("$defs"):
            return
        if not _says_something(reader):
            return
        if "anyOf" in writer or "anyOf" in reader:
            yield from self._choices(_alternatives(writer), _alternatives(reader), path, seen)
            return
        mismatch = self._mismatch(writer, reader)
        if mismatch:
            yield f"{path}: {mismatch}"
            return
        yield from self._fields(writer, reader, path, seen)
        for part, name in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(writer.get(part), Mapping) and isinstance(reader.get(part), Mapping):
                yield from self._problems(writer[part], reader[part], path + name, seen)
        pairs = zip(writer.get("prefixItems", ()), reader.get("prefixItems", ()), strict=False)
        for n, (one, other) in enumerate(pairs):
            yield from self._problems(one, other, f"{path}[{n}]", seen)

    def _choices(
        self, writers: list[Any], readers: list[Any], path: str, seen: _Seen
    ) -> Iterator[str]:
        """Each form that may be written has to be readable as one of the reader's."""
        for writer in writers:
            tried = [list(self._problems(writer, reader, path, seen)) for reader in readers]
            if all(tried):
                if len(tried) == 1 or len(writers) == 1 == sum(_alike(writer, r) for r in readers):
                    yield from min(tried, key=len)
                else:
                    kind = _kind(_resolved(self.writer, writer))
                    yield f"{path}: may be {kind} from {self.writes}, which {self.reads} can't read"

    def _mismatch(self, writer: Schema, reader: Schema) -> str:
        """Of the values themselves, in words; empty when the reader takes them all."""
        written, taken = _types(writer), _types(reader)
        if taken and (not written or not written <= _with_numbers(taken)):
            return f"{_kind(writer)} from {self.writes}, {_kind(reader)} to {self.reads}"
        given, allowed = _values(writer), _values(reader)
        if allowed is not None:
            more = None if given is None else [value for value in given if value not in allowed]
            if more is None or more:
                what = "any value" if more is None else ", ".join(map(repr, more))
                return f"may be {what} from {self.writes}, which {self.reads} can't read"
            return ""
        return self._bounds(writer, reader)

    def _bounds(self, writer: Schema, reader: Schema) -> str:
        for key in (*_LEAST, *_MOST):
            if key not in reader:
                continue
            sign = 1 if key in _LEAST else -1
            if key not in writer or sign * reader[key] > sign * writer[key]:
                return f"{key} is {writer.get(key, 'none')} for {self.writes}, {reader[key]} for {self.reads}"
        for key in _SAME:
            if key in reader and reader[key] != writer.get(key):
                return f"{key} is {writer.get(key, 'none')} for {self.writes}, {reader[key]} for {self.reads}"
        return ""

    def _fields(self, writer: Schema, reader: Schema, path: str, seen: _Seen) -> Iterator[str]:
        has, knows = writer.get("properties", {}), reader.get("properties", {})
        if knows:
            for name in reader.get("required", ()):
                if name not in has:
                    yield f"{path}.{name}: needed by {self.reads}, not written by {self.writes}"
        for name, field in has.items():
            if name in knows:
                yield from self._problems(field, knows[name], f"{path}.{name}", seen)
            elif reader.get("additionalProperties") is False:
                yield f"{path}.{name}: written by {self.writes}, forbidden by {self.reads}"


def _resolved(document: Schema, schema: Any) -> Schema:
    """Behind `$ref`s and an `allOf` of one."""
    for _ in range(_REFS_MAX):
        if not isinstance(schema, Mapping):
            return {}
        if "$ref" in schema:
            schema = document.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2], {})
        elif len(schema.get("allOf", ())) == 1:
            schema = schema["allOf"][0]
        elif "oneOf" in schema:
            return {"anyOf": schema["oneOf"]}
        else:
            return schema
    return {}


def _ref(schema: Any) -> str:
    return str(schema.get("$ref", "")) if isinstance(schema, Mapping) else ""


def _says_something(schema: Schema) -> bool:
    return any(key in schema for key in _ANY)


def _alternatives(schema: Schema) -> list[Any]:
    return list(schema["anyOf"]) if "anyOf" in schema else [schema]


def _alike(one: Any, other: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(other, Mapping) and _types(one) == _types(other)


def _types(schema: Schema) -> set[str]:
    told = schema.get("type", ())
    return {told} if isinstance(told, str) else set(told)


def _with_numbers(taken: set[str]) -> set[str]:
    return taken | {"integer"} if "number" in taken else taken


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _kind(schema: Schema) -> str:
    return " or ".join(sorted(_types(schema))) or "anything"
