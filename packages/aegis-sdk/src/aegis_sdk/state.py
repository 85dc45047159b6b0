"""A resource's state as a handler sees it: typed values over JSON, in whatever version of the service.

Theory of operation. What is stored may be of another version. A field that the type does not have is kept beside the value
that was read, and put back when the key is set again (contract/unknown.py says where). So a handler changes what it knows,
and nothing else. It ends an unknown field by its own word: it deletes the key, or takes away the part that the field is in,
or sets the key to something else. Where it sets the key without having read it, a log line names the fields.

A stored form that is not the type's is read by a migration, if the service has one (evolution.py). That changes nothing by
itself: the new form is stored when the handler sets it.

Invariant: a value that the type knows all of costs no more than pydantic's own reading and writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar, overload

from pydantic_core import to_json

from aegis_sdk.contract.envelope import Change
from aegis_sdk.contract.unknown import Ambiguous, may_drop, put_back
from aegis_sdk.contract.values import Codec, difference
from aegis_sdk.errors import ContractError, InvalidPayload
from aegis_sdk.evolution import (
    NOTHING,
    Evolution,
    Reading,
    codec_of,
    parsed,
    read_partly,
    unknown_names,
)

T = TypeVar("T")

_CONTAINERS: Final = (dict, list)


class Dropped(NamedTuple):
    """What is lost, since a key was set without having been read."""

    key: str
    type_name: str
    fields: list[str]


class State:
    """A resource's keys and JSON values, with this request's changes on top.

    A key is any text, the empty one too. A value is held as it will be read from the journal, so an active sees what
    its standbys see.
    """

    __slots__ = ("_base", "_deleted", "_dropped", "_evolution", "_partly", "_set", "_whole")

    def __init__(self, base: Mapping[str, Any], evolution: Evolution | None = None) -> None:
        self._base = base
        self._evolution = evolution
        self._set: dict[str, Any] = {}
        self._deleted: set[str] = set()
        self._whole: dict[str, bool] = {}
        """Keys that were read with nothing unknown in them."""
        self._partly: dict[str, Reading] | None = None
        """Those that were read with something unknown. Made when it is needed, as each request would pay for it."""
        self._dropped: list[Dropped] | None = None

    @overload
    def get(self, key: str) -> Any: ...
    @overload
    def get(self, key: str, type_: type[T]) -> T | None: ...
    def get(self, key: str, type_: Any = None) -> Any:
        """The value as `type_` (anything pydantic can check), or None; without a type, its JSON form.

        Changing it changes nothing: `set` it. Fields that the type does not have are kept until then.

        Raises: InvalidPayload, when it isn't a `type_`; ContractError, when a migration fails.
        """
        key = _checked_key(key)
        if key in self._deleted:
            return None
        value = self._set[key] if key in self._set else self._base.get(key)
        if value is None:
            return None
        if type_ is None:
            return _copied(value)
        try:
            codec, data = codec_of(type_), to_json(value)
            try:
                read = codec.decode_whole(data)
            except Exception:
                return self._read(key, value, codec, data)
        except ContractError as error:
            raise _of_key(key, error) from error
        self._whole[key] = True
        return read

    def set(self, key: str, value: Any, type_: Any = None) -> None:
        """Change a value. It must come back the same when it is read as `type_`, its own class by default.

        A dict or a list therefore holds JSON values alone, unless the type says what else:
        `set("fills", fills, list[Fill])`. What another version stored beside it, and this one's type does not have, stays
        when the key was read before. To begin anew, `delete` the key first.

        Raises:
            InvalidPayload: it would not come back the same, or it can't be told which item of a list keeps what this version
                doesn't know; the message names the field.
            ContractError: the key isn't text, or values of this type can't be stored.
        """
        key = _checked_key(key)
        try:
            codec = codec_of(value.__class__ if type_ is None else type_)
            data = codec.encode(value)
            new = parsed(data)
            if new is None and value is not None:
                raise ContractError(f"{value!r} is written as null, and would come back as None")
            if key in self._deleted:
                self._begin_anew(key)
            elif self._partly and (reading := self._read_before(key, value, data)) is not None:
                new = _kept(reading, new, data)
            elif key in self._base and key not in self._whole and key not in self._set:
                self._note_dropped(key, new, codec)
        except ContractError as error:
            raise _of_key(key, error) from error
        self._set[key] = new

    def delete(self, key: str) -> None:
        """Take a key away, with the handler's outcome; one that is not there is no error. Raises: InvalidArgument."""
        key = _checked_key(key)
        self._set.pop(key, None)
        self._deleted.add(key)

    def keys(self) -> list[str]:
        """All keys, sorted."""
        return sorted((self._base.keys() | self._set.keys()) - self._deleted)

    @overload
    def items(self, prefix: str = "") -> dict[str, Any]: ...
    @overload
    def items(self, prefix: str, type_: type[T]) -> dict[str, T]: ...
    def items(self, prefix: str = "", type_: Any = None) -> dict[str, Any]:
        """The keys that begin with `prefix`, in their order (by code points), each with its value as `get` gives it.

        A list that grows is a key an item: an order that adds one changes that one alone. It looks at every key of the
        resource; docs/howto/state.md says what that costs. Raises: as `get`.
        """
        prefix = _checked_key(prefix)
        found = {key for key in self._base if key.startswith(prefix)}
        found.update(key for key in self._set if key.startswith(prefix))
        return {key: self.get(key, type_) for key in sorted(found - self._deleted)}

    def change(self) -> Change:
        """What this request changed so far."""
        return Change(dict(self._set), tuple(sorted(self._deleted)))

    @property
    def dropped(self) -> list[Dropped]:
        """What is lost with this request's changes."""
        return self._dropped or []

    # --- of another version --------------------------------------------------------------------------
    def _read(self, key: str, stored: Any, codec: Codec[Any], data: bytes) -> Any:
        """What the type does not know all of, or can't read. Raises: ContractError."""
        try:
            reading = read_partly(codec, stored, data)
        except InvalidPayload:
            reading = Reading(self._migrated(codec, stored, data), codec)
            if reading.value is NOTHING:
                raise
        if reading.unknown is not None:
            migrated = self._migrated(codec, stored, data)
            if migrated is NOTHING:
                self._partly = {**(self._partly or {}), key: reading}
                return reading.value
            reading = Reading(migrated, codec)
        self._whole[key] = True
        self._forget_reading(key)
        return reading.value

    def _begin_anew(self, key: str) -> None:
        self._deleted.discard(key)
        self._forget_reading(key)

    def _forget_reading(self, key: str) -> None:
        if self._partly:
            self._partly.pop(key, None)

    def _migrated(self, codec: Codec[Any], stored: Any, data: bytes) -> Any:
        if self._evolution is None:
            return NOTHING
        return self._evolution.migrate(codec.type, stored, data)

    def _read_before(self, key: str, value: Any, data: bytes) -> Reading | None:
        """How what becomes `value` was read: under this key, as its class or to be made a dict of; or under another, as itself."""
        partly = self._partly or {}
        reading = partly.get(key)
        if reading is None:
            return next((one for one in partly.values() if one.value is value), None)
        is_same = value.__class__ is reading.value.__class__
        return reading if is_same or (value.__class__ is dict and reading.reads(data)) else None

    def _note_dropped(self, key: str, new: Any, codec: Codec[Any]) -> None:
        stored = self._base[key]
        if may_drop(stored, new) and (fields := unknown_names(codec, stored)):
            self._dropped = [*self.dropped, Dropped(key, repr(codec.type), fields)]


class ReadState:
    """A resource's keys and JSON values, to be looked at."""

    __slots__ = ("_state",)

    def __init__(self, base: Mapping[str, Any], evolution: Evolution | None = None) -> None:
        self._state = State(base, evolution)

    @overload
    def get(self, key: str) -> Any: ...
    @overload
    def get(self, key: str, type_: type[T]) -> T | None: ...
    def get(self, key: str, type_: Any = None) -> Any:
        """The value as `type_`, or None; without a type, its JSON form. Changing it changes nothing. Raises: as `State.get`."""
        return self._state.get(key, type_)

    @overload
    def items(self, prefix: str = "") -> dict[str, Any]: ...
    @overload
    def items(self, prefix: str, type_: type[T]) -> dict[str, T]: ...
    def items(self, prefix: str = "", type_: Any = None) -> dict[str, Any]:
        """The keys that begin with `prefix`, in their order, with their values. Raises: as `State.items`."""
        return self._state.items(prefix, type_)

    def keys(self) -> list[str]:
        """All keys, sorted."""
        return self._state.keys()


def _kept(reading: Reading, new: Any, data: bytes) -> Any:
    """`new` with what was unknown in `reading`. Raises: InvalidPayload."""
    assert reading.unknown is not None
    try:
        put_back(reading.unknown, reading.known, new)
        if difference(reading.codec.decode(data), reading.codec.decode(to_json(new))) is None:
            return new
        fields = reading.unknown.names()
    except Ambiguous as error:
        fields = error.fields
    raise InvalidPayload(
        f"another version stored {', '.join(fields)}, which this one does not know, and what was changed leaves open where"
        " that belongs now. Store the items of a list in a dict by id, or update this instance; to give it up, delete"
        " the key before you set it",
        fields,
    )


def _checked_key(key: str) -> str:
    """Plain text, as it comes back from the journal. Raises: ContractError."""
    if not isinstance(key, str):
        raise ContractError(
            f"state key {key!r} is a {type(key).__name__}: keys are text, say str(key)"
        )
    key = str.__str__(key)  # of a StrEnum, too, the text alone
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise ContractError(f"state key {key!r} holds half of a surrogate pair") from error
    return key


def _copied(value: Any) -> Any:
    """A JSON value of its own; several times as fast as copy.deepcopy."""
    kind = type(value)
    if kind is dict:
        return {k: _copied(v) if type(v) in _CONTAINERS else v for k, v in value.items()}
    return [_copied(v) if type(v) in _CONTAINERS else v for v in value] if kind is list else value


def _of_key(key: str, error: ContractError) -> ContractError:
    what = f"state {key!r}: {str(error).removeprefix('state: ')}"
    return (
        InvalidPayload(what, error.fields)
        if isinstance(error, InvalidPayload)
        else ContractError(what)
    )
