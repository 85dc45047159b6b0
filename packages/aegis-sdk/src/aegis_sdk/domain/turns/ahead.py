"""The values that a handler sees when what was computed before it is not stored yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aegis_sdk.contract.envelope import Change
from aegis_sdk.contract.turns.timers import Timer


class Overlay(Mapping[str, Any]):
    """Values with changes on top; what is below stays as it is."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._stored = stored
        self._set: dict[str, Any] = {}
        self._deleted: set[str] = set()

    def put(self, new: Mapping[str, Any], gone: Iterable[str] = ()) -> None:
        """What is in both is gone."""
        self._set.update(new)
        self._deleted.difference_update(new)
        for key in gone:
            self._set.pop(key, None)
            self._deleted.add(key)

    def __getitem__(self, key: str) -> Any:
        if key in self._set:
            return self._set[key]
        if key in self._deleted:
            raise KeyError(key)
        return self._stored[key]

    def __iter__(self) -> Iterator[str]:
        return iter((self._stored.keys() | self._set.keys()) - self._deleted)

    def __len__(self) -> int:
        new = sum(key not in self._stored for key in self._set)
        gone = sum(key in self._stored for key in self._deleted)
        return len(self._stored) + new - gone


class Ahead(Overlay):
    """A resource's values, and its timers by name, with changes on top that are not stored yet."""

    def __init__(self, stored: Mapping[str, Any], timers: Mapping[str, Timer]) -> None:
        super().__init__(stored)
        self.timers: Mapping[str, Timer] = timers

    def apply(self, change: Change) -> None:
        self.put(change.set, change.delete)
        if change.drop or change.later:
            timers = self._timers_ahead()
            timers.put({}, change.drop)
            timers.put({timer.name: timer for timer in map(Timer.read, change.later)})

    def fired(self, name: str) -> None:
        """That timer's outcome is computed."""
        self._timers_ahead().put({}, (name,))

    def _timers_ahead(self) -> Overlay:
        if not isinstance(self.timers, Overlay):
            self.timers = Overlay(self.timers)
        return self.timers
