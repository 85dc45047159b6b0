"""A service's contract as an AsyncAPI 3 document, for tools that know that form.

What goes in is the record that the service's instances registered: the JSON schemas that pydantic made. What comes
out is one document. A type that several methods use stands in it once, under `components/schemas`. So references into a
method's own `$defs` are turned to there, and the few words of newer JSON schemas are said in AsyncAPI's (draft 7).

What must stay true: what a schema takes, the document's schema takes too. Only what is a schema is changed: a field that is
called `$ref`, a default or an example are values, and stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, Final

from aegis_sdk.contract.control import EventSpec, MethodSpec, ServiceRecord
from aegis_sdk.contract.envelope import METHOD
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects

VERSION: Final = "3.0.0"
NATS_BINDING: Final = "0.1.0"
Json = dict[str, Any]

_DEFS: Final = "#/$defs/"
_NO_KEY: Final = re.compile(r"[^A-Za-z0-9._-]")
_ONE: Final = frozenset(
    ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
)
_LISTS: Final = frozenset(("allOf", "anyOf", "oneOf"))
_NAMED: Final = frozenset(("properties", "patternProperties"))
_CHANNELS: Final = {
    "resource": "Requests that name a resource: its active instance executes them, in their order.",
    "group": "Requests to any instance of the service.",
    "read": "Questions about a resource's state. Nothing of them is stored.",
}
_PARAMETERS: Final = {
    "resource": "The resource's id: letters, digits, _ and - as they are, each other byte as =XX.",
    "instance": "One of the service's live instances.",
    "caller": "The caller's random id.",
    "number": "The number of the caller's request.",
    "place": "The place of the event among those of one handler's run, from 0.",
}


def document(record: ServiceRecord, prefix: str) -> Json:
    """The contract as one JSON document. `prefix` is that of the subjects."""
    schemas = _Schemas()
    messages: Json = {}
    operations: Json = {}
    kinds = {kind_of(method): None for method in record.methods}
    channels = _channels(record.service, prefix, kinds)
    for method in record.methods:
        _add(method, channels, operations, messages, schemas)
    for event in record.events:
        _add_event(record.service, prefix, event, channels, operations, messages, schemas)
    return {
        "asyncapi": VERSION,
        "info": {
            "title": record.service,
            "version": record.version or "unversioned",
            "description": f"The service {record.service} over AegisIPC, as its instances registered it.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas.made},
    }


def kind_of(method: MethodSpec) -> str:
    """`resource`, `group` or `read`: how its requests find who answers them."""
    return "read" if method.reads else "resource" if method.targeted else "group"


def _channels(service: str, prefix: str, kinds: Mapping[str, None]) -> Json:
    names = LogSubjects(Subjects(prefix), service)
    addresses = {
        "resource": (_open(names.sent("-"), "resource"), "resource"),
        "group": (_open(names.sent_to_member("-"), "instance"), "instance"),
        "read": (_open(names.read("-", at_standby=False), "resource"), "resource"),
    }
    found: Json = {kind: _channel(*addresses[kind], about=_CHANNELS[kind]) for kind in kinds}
    replies = f"{names.replies}{{caller}}.{{number}}"
    return found | {"replies": _channel(replies, "caller", "number", about="Replies, by request.")}


def _open(subject: str, parameter: str) -> str:
    """The same with a parameter in the place of its last token."""
    return f"{subject.rpartition('.')[0]}.{{{parameter}}}"


def _channel(address: str, *parameters: str, about: str) -> Json:
    return {
        "address": address,
        "description": about,
        "parameters": {name: {"description": _PARAMETERS[name]} for name in parameters},
        "messages": {},
    }


def _add(
    method: MethodSpec, channels: Json, operations: Json, messages: Json, schemas: _Schemas
) -> None:
    """One method: an operation that receives its request, and replies."""
    name, kind = method.name, kind_of(method)
    messages[f"{name}.request"] = {
        "name": f"{name}.request",
        "headers": {
            "type": "object",
            "properties": {METHOD: {"const": name}},
            "required": [METHOD],
        },
        "payload": schemas.take(method.request_schema),
    }
    messages[f"{name}.reply"] = {
        "name": f"{name}.reply",
        "summary": "The reply of a request that was executed.",
        "payload": schemas.take(method.reply_schema),
    }
    for channel, message in ((kind, f"{name}.request"), ("replies", f"{name}.reply")):
        channels[channel]["messages"][message] = {"$ref": f"#/components/messages/{message}"}
    operations[name] = {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{kind}"},
        "messages": [{"$ref": f"#/channels/{kind}/messages/{name}.request"}],
        "reply": {
            "channel": {"$ref": "#/channels/replies"},
            "messages": [{"$ref": f"#/channels/replies/messages/{name}.reply"}],
        },
        "bindings": {"nats": {"bindingVersion": NATS_BINDING}},
    }


def _add_event(
    service: str,
    prefix: str,
    event: EventSpec,
    channels: Json,
    operations: Json,
    messages: Json,
    schemas: _Schemas,
) -> None:
    """An event that the service emits: an operation that sends it. A method may have the same name."""
    name = f"event.{event.name}"
    address = Subjects(prefix).emitted_all(service, event.name).removesuffix(">")
    parameters = ("resource", "caller", "number", "place")
    channels[name] = _channel(
        address + ".".join(f"{{{p}}}" for p in parameters),
        *parameters,
        about="Something that happened in the service; - stands for no resource.",
    )
    messages[name] = {"name": name, "payload": schemas.take(event.payload_schema)}
    channels[name]["messages"][name] = {"$ref": f"#/components/messages/{name}"}
    operations[name] = {
        "action": "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        "bindings": {"nats": {"bindingVersion": NATS_BINDING}},
    }


class _Schemas:
    """The types of all methods, each once."""

    def __init__(self) -> None:
        self.made: Json = {}
        self._of: dict[str, Json] = {}
        """What each was made of: of two types with one name, the second one gets a number."""

    def take(self, schema: Any) -> Any:
        """A method's schema, its references turned to `made`."""
        defs = schema.get("$defs", {}) if isinstance(schema, Mapping) else {}
        keys = {name: self._key(name, defs) for name in defs}

        def turned(reference: str) -> str:
            key = keys.get(reference.removeprefix(_DEFS))
            return reference if key is None else f"#/components/schemas/{key}"

        for name, key in keys.items():
            self.made[key] = _moved(defs[name], turned)
        return _moved(schema, turned)

    def _key(self, name: str, defs: Mapping[str, Any]) -> str:
        """Two of one name are the same type if all that they refer to is the same, too."""
        whole = {other: defs[other] for other in {name, *_mentioned(defs[name], defs)}}
        plain = _NO_KEY.sub("_", name)
        return next(key for key in _numbered(plain) if self._of.setdefault(key, whole) == whole)


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{n}" for n in count(2))


def _mentioned(schema: Any, defs: Mapping[str, Any]) -> set[str]:
    """The types that it refers to, and that these refer to."""
    found: set[str] = set()
    waiting = [schema]

    def note(reference: str) -> str:
        name = reference.removeprefix(_DEFS)
        if name in defs and name not in found:
            found.add(name)
            waiting.append(defs[name])
        return reference

    while waiting:
        _moved(waiting.pop(), note)
    return found


def _moved(schema: Any, turned: Callable[[str], str]) -> Any:
    """A schema in AsyncAPI's words, its references turned."""
    if not isinstance(schema, Mapping):
        return schema  # true or false, or nothing that we know
    made: Json = {}
    for word, value in schema.items():
        if word == "$defs":
            continue
        if word == "$ref":
            made[word] = turned(str(value))
        elif word == "discriminator" and isinstance(value, Mapping):
            made[word] = value.get("propertyName", "")
        elif word == "prefixItems" and isinstance(value, list):
            made["items"] = [_moved(each, turned) for each in value]
            made["additionalItems"] = _moved(schema.get("items", True), turned)
        elif word == "items" and "prefixItems" in schema:
            continue
        elif word in _ONE:
            made[word] = _moved(value, turned)
        elif word in _LISTS and isinstance(value, list):
            made[word] = [_moved(each, turned) for each in value]
        elif word in _NAMED and isinstance(value, Mapping):
            made[word] = {name: _moved(each, turned) for name, each in value.items()}
        else:
            made[word] = value
    return made
