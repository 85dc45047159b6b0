"""A resource's checkpoint: two lines of JSON, what it is up to, and the resource's values.

    {"writer":"w1","resource":"ACC-1","log":"5f0c…","read":812,"number":40,"epoch":3,"own":7,
     "sessions":[["Kq3v9x2m",17,"1ff",1764198000.0]],"ended":{},"unsent":[],"begun":{},"timers":[]}
    {"position":5}

The first line is all that a caller and an operator need. The second may be large, and is left as it is. Who trims the log, or
wants to know who owns what, reads a header alone. One that is larger than a message is stored in parts: the message of
the checkpoint says how many there are, and nothing that can be large. The header:

    aegis-saved: <read> <number> <epoch> <own>[ <writer>]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic_core import from_json, to_json

SessionRow = tuple[str, int, str, float]
"""(caller, highest number, bits in hexadecimal, Unix time of its last use)."""

SAVED: Final = "aegis-saved"
_COUNTS: Final = ("read", "number", "epoch", "own")


@dataclass(slots=True)
class SavedUpTo:
    """What a checkpoint's header says of it."""

    read: int
    number: int
    epoch: int
    own: int
    writer: str

    @classmethod
    def parse(cls, header: str) -> SavedUpTo:
        """Raises: ValueError."""
        words = header.split()
        if len(words) < 4:
            raise ValueError(f"{SAVED} has {len(words)} words")
        read, number, epoch, own = (_count(SAVED, int(word)) for word in words[:4])
        return cls(read, number, epoch, own, words[4] if len(words) > 4 else "")


@dataclass(slots=True)
class Checkpoint:
    """The state of `resource` at the entry `read` of the log, with `writer`'s own outcomes up to `number`."""

    writer: str
    resource: str
    log: str = ""
    """The identity of the log: a position in another one means nothing."""
    read: int = 0
    """Where its writer's reader was: who starts from here reads on behind it."""
    number: int = 0
    """The last outcome in it. Some may stand behind `read`: they were acknowledged, and not read yet."""
    epoch: int = 0
    own: int = 0
    """The last ownership entry at or before `read`."""
    sessions: Sequence[SessionRow] = ()
    ended: Mapping[str, float] = field(default_factory=dict)
    """Requests whose callers gave up, and when."""
    unsent: Sequence[tuple[int, Sequence[Mapping[str, Any]]]] = ()
    """What outcomes hand in and was not sent yet, by their numbers."""
    begun: Mapping[str, int] = field(default_factory=dict)
    """Of requests without an outcome, whose begins may have ended their processes: how many are noted."""
    timers: Sequence[Mapping[str, Any]] = ()
    """As changes set them (timers.py), and not fired or dropped yet."""
    values: bytes = b"{}"
    parts: int = 0
    """It is in so many other messages (`id`), and this one is without sessions, ends and values; 0: it is whole."""

    @property
    def id(self) -> str:
        """Names its parts."""
        return f"{self.read}-{self.number}"

    def split(self, bytes_max: int) -> tuple[Checkpoint, list[bytes]]:
        """What is stored as the checkpoint, and its parts, which are stored before; none when it fits into one message."""
        data = self.encode()
        if len(data) <= bytes_max:
            return self, []
        parts = [data[at : at + bytes_max] for at in range(0, len(data), bytes_max)]
        head = replace(
            self,
            sessions=(),
            ended={},
            unsent=(),
            begun={},
            timers=(),
            values=b"{}",
            parts=len(parts),
        )
        return head, parts

    def headers(self) -> dict[str, str]:
        """Of the message that stores it."""
        return {SAVED: f"{self.read} {self.number} {self.epoch} {self.own} {self.writer}"}

    def encode(self) -> bytes:
        head = {
            "writer": self.writer,
            "resource": self.resource,
            "log": self.log,
            "read": self.read,
            "number": self.number,
            "epoch": self.epoch,
            "own": self.own,
            "sessions": self.sessions,
            "ended": self.ended,
            "unsent": self.unsent,
            "begun": self.begun,
        }
        if self.timers:
            head["timers"] = self.timers
        if self.parts:
            head["parts"] = self.parts
        return to_json(head) + b"\n" + self.values

    @classmethod
    def decode(cls, data: bytes) -> Checkpoint:
        """Fields of a newer version are left out: what changes the others' meaning needs another name.

        Raises: ValueError, saying why, for what is no checkpoint.
        """
        line, _, values = data.partition(b"\n")
        head = from_json(line)
        if not isinstance(head, dict):
            raise ValueError("a checkpoint begins with an object")
        values_of(values)
        try:
            counts = {name: _count(name, head[name]) for name in _COUNTS}
            return cls(
                writer=_text(head["writer"]),
                resource=_text(head["resource"]),
                log=_text(head["log"]),
                sessions=[(_text(c), int(h), _hex(b), float(u)) for c, h, b, u in head["sessions"]],
                ended={_text(i): float(at_s) for i, at_s in head["ended"].items()},
                unsent=[(int(number), _objects(sends)) for number, sends in head["unsent"]],
                begun={_text(i): _count("begun", n) for i, n in head.get("begun", {}).items()},
                timers=_objects(head.get("timers", [])),
                values=values,
                parts=_count("parts", head.get("parts", 0)),
                **counts,
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"a checkpoint: {error!r}") from error


def _count(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value <= 2**63:
        raise ValueError(f"{name} is {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _objects(values: list[object]) -> tuple[dict[str, Any], ...]:
    if not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{values!r} are no objects")
    return tuple(values)  # type: ignore[arg-type]


def _hex(value: object) -> str:
    int(_text(value), 16)
    return _text(value)


def values_of(data: bytes) -> dict[str, Any]:
    """A state's values by key. Raises: ValueError when they are none."""
    values = from_json(data)
    if not isinstance(values, dict):
        raise ValueError("a state is an object")
    return values
