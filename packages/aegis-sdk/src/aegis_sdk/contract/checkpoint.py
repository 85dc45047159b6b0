"""A checkpoint as stored: what control needs of it to trim the journal, and a standby to begin with."""

from __future__ import annotations

import json
from dataclasses import dataclass


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
        head, _, values = payload.partition(b"\n")
        return cls(values=values, **json.loads(head))
