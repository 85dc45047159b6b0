"""Fields of a stored value that the type it is read as does not have: another version of the service wrote them.

Theory of operation. Two forms of the same value go in: as it is stored, and as the type writes it once it has read it. What
only the first one has is unknown (`unknown_of`), if pydantic says so too: a validator that takes an old field away knows
it. When the value is set again, `put_back` puts what is unknown into the new form, at its place. A place is named by fields
and keys. So a part that is gone takes its unknown fields with it, and one that was changed keeps them.

The items of a list have no names. One that is unchanged is found wherever it is now, and one that alone was changed is at
its place. What is left can't be told from an item that is new: that is refused (`Ambiguous`), since what is unknown must
neither be lost nor come to another item. It knows no pydantic: this is all about JSON.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

Path = tuple[str | int, ...]

_CONTAINERS: Final = (dict, list)


class Unknown:
    """What is unknown in one object, or in the items of one list, and in all that they hold.

    `fields` has the values of an object's unknown fields, by name; `parts` the same of what is within, by key or by the item's
    place when it was read. It is kept beside the value as its handler read it (state.py).
    """

    __slots__ = ("fields", "is_placed", "parts")

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.parts: dict[str | int, Unknown] = {}
        self.is_placed = True
        """False for the items of a set, which may be written in another order."""

    def paths(self, within: Path = ()) -> Iterator[Path]:
        for name in self.fields:
            yield (*within, name)
        for step, part in self.parts.items():
            yield from part.paths((*within, step))

    def names(self) -> list[str]:
        """As an error shows them: "legs.0.venue"."""
        return [named(path) for path in self.paths()]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Unknown) and self.fields == other.fields and self.parts == other.parts
        )

    __hash__ = None  # type: ignore[assignment]


class Ambiguous(Exception):
    """It can't be told where the unknown fields at `paths` belong now."""

    def __init__(self, paths: Iterable[Path]) -> None:
        super().__init__()
        self.fields = [named(path) for path in paths]


def named(path: Path) -> str:
    return ".".join(map(str, path))


def may_drop(stored: Any, new: Any) -> bool:
    """Whether `new` in the place of `stored` lacks something: a quick look, which may say so in vain."""
    if type(stored) is dict:
        if type(new) is not dict:
            return False
        if not stored.keys() <= new.keys():
            return True
        for key, part in stored.items():
            if type(part) in _CONTAINERS and may_drop(part, new[key]):
                return True
        return False
    if type(stored) is list and type(new) is list:
        return any(type(item) in _CONTAINERS for item in stored) and stored != new
    return False


def unknown_of(stored: Any, known: Any, said: Iterable[Path]) -> Unknown | None:
    """What of `stored` is not in `known`, at one of the places that were `said` to be unknown. None: nothing.

    Both have to agree. A field that is not written may have been taken by a validator, which pydantic does not call unknown.
    """
    places = {place for path in said for place in _places(stored, path)}
    return _difference(stored, known, (), places)


def _difference(stored: Any, known: Any, at: Path, places: set[Path]) -> Unknown | None:
    found = Unknown()
    if type(stored) is dict and type(known) is dict:
        for key, value in stored.items():
            if key not in known and (*at, key) in places:
                found.fields[key] = value
        steps: Iterable[str | int] = [key for key in stored if key in known]
    elif type(stored) is list and type(known) is list and len(stored) == len(known):
        steps = range(len(stored))
    else:
        return None
    for step in steps:
        if type(stored[step]) in _CONTAINERS:
            part = _difference(stored[step], known[step], (*at, step), places)
            if part is not None:
                found.parts[step] = part
                found.is_placed &= type(step) is str or _looks_like(stored[step], known[step])
    return found if found.fields or found.parts else None


def _looks_like(stored: Any, known: Any) -> bool:
    """Whether what both have of plain values is equal."""
    return type(stored) is not dict or all(
        value == stored[key]
        for key, value in known.items()
        if key in stored and type(value) not in _CONTAINERS
    )


def _places(stored: Any, path: Path) -> set[Path]:
    """Where pydantic's path may lead: it also names the members of a union, which are no places."""
    reached: list[tuple[Path, Any]] = [((), stored)]
    for n, step in enumerate(path):
        further = [
            ((*place, key), value[key]) for place, value in reached for key in _key(value, step)
        ]
        reached = further if n == len(path) - 1 else [*reached, *further]
    return {place for place, _ in reached}


def _key(value: Any, step: str | int) -> list[Any]:
    if type(value) is dict:
        return [str(step)] if str(step) in value else []
    return [step] if type(value) is list and type(step) is int and step < len(value) else []


def put_back(unknown: Unknown, known: Any, new: Any, at: Path = ()) -> None:
    """Put the unknown fields into `new`, which was `known` before; `new` is changed. A field that is there by now wins.

    Raises: Ambiguous; `new` may be changed in part then, and must not be used.
    """
    if type(known) is dict and type(new) is dict:
        for key, value in unknown.fields.items():
            new.setdefault(key, value)
        for step, part in unknown.parts.items():
            if step in new:
                put_back(part, known[step], new[step], (*at, step))
    elif type(known) is list and type(new) is list:
        _put_back_items(unknown, known, new, at)


def _put_back_items(unknown: Unknown, known: list[Any], new: list[Any], at: Path) -> None:
    parts = unknown.parts
    places = _where_now(known, new) if unknown.is_placed else {}
    gone = [n for n in parts if n not in places]
    doubtful = [*_like_others(parts, known, new), *(gone if len(places) < len(new) else ())]
    if doubtful:
        raise Ambiguous(path for n in doubtful for path in parts[n].paths((*at, n)))
    for n, part in parts.items():
        if n in places:
            put_back(part, known[int(n)], new[places[n]], (*at, n))


def _where_now(known: list[Any], new: list[Any]) -> dict[str | int, int]:
    """Of each item that is unchanged, and of one that alone was changed: its place in `new`."""
    first, end, shorter = 0, 0, min(len(known), len(new))
    while first < shorter and known[first] == new[first]:
        first += 1
    while end < shorter - first and known[-1 - end] == new[-1 - end]:
        end += 1
    ours, theirs = range(first, len(known) - end), range(first, len(new) - end)
    places: dict[str | int, int] = {n: n for n in range(first)}
    places |= {len(known) - n: len(new) - n for n in range(1, end + 1)}
    if len(ours) == len(theirs) == 1:
        return places | {first: first}
    free: defaultdict[str, deque[int]] = defaultdict(deque)
    for n in theirs:
        free[repr(new[n])].append(n)
    for n in ours:
        if same := free[repr(known[n])]:
            places[n] = same.popleft()
    return places


def _like_others(
    parts: dict[str | int, Unknown], known: list[Any], new: list[Any]
) -> Iterator[str | int]:
    """Items that differ in nothing but what is unknown, when some of them are gone: which ones?"""
    if len(known) == len(new):
        return
    twins: defaultdict[str, list[int]] = defaultdict(list)
    for n, item in enumerate(known):
        twins[repr(item)].append(n)
    now = Counter(map(repr, new))
    for look, places in twins.items():
        differ = any(parts.get(n) != parts.get(places[0]) for n in places)
        if differ and 0 < now[look] < len(places):
            yield from (n for n in places if n in parts)
