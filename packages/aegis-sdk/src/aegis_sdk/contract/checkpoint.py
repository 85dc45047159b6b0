"""A checkpoint as stored: what control needs of it to trim the journal, and a standby to begin with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

_COUNTS: Final = ("position", "last_request_seq", "parts", "first_seq")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A resource's state up to journal position `position`.

    `parts` > 0 says that `values` stands in that many `part` entries before this one, from
    `first_seq` on.
    """

    position: int
    last_request_seq: int
    values: bytes = b""
    parts: int = 0
    first_seq: int = 0

    def encode(self) -> bytes:
        head = {
            "position": self.position,
            "last_request_seq": self.last_request_seq,
            "parts": self.parts,
            "first_seq": self.first_seq,
        }
        return json.dumps(head, separators=(",", ":")).encode() + b"\n" + self.values

    @classmethod
    def decode(cls, payload: bytes) -> Checkpoint:
        """Fields of a newer version are left out: what changes the others' meaning needs another name.

        Raises: ValueError, saying why, for what is no checkpoint of this version.
        """
        head, _, values = payload.partition(b"\n")
        read = from_json(head)
        if not isinstance(read, dict):
            raise ValueError("a checkpoint begins with an object")
        counts = {name: read.get(name, 0) for name in _COUNTS}
        for name, count in counts.items():
            if type(count) is not int or not 0 <= count <= 2**63 or name not in read:
                raise ValueError(f"{name} is {count!r}")
        checkpoint = cls(values=values, **counts)
        if not checkpoint.parts:
            values_of(values)
        return checkpoint


def values_of(data: bytes) -> dict[str, Any]:
    """A state's values by key. Raises: ValueError when they are none."""
    values = from_json(data)
    if not isinstance(values, dict):
        raise ValueError("a state is an object")
    return values
