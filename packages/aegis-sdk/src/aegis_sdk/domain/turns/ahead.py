"""The values that a handler sees when what was computed before it is not stored yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aegis_sdk.contract.envelope import Change


class Ahead(Mapping[str, Any]):
    """A resource's values with changes on top that are not stored yet; what is below stays as it is."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        self._stored = stored
        self._set: dict[str, Any] = {}
        self._deleted: set[str] = set()

    def apply(self, change: Change) -> None:
        self._set.update(change.set)
        self._deleted.difference_update(change.set)
        for key in change.delete:
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
        return len((self._stored.keys() | self._set.keys()) - self._deleted)
