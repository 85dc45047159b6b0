"""What goes wrong on the bus: by chance, from a seed that replays it, or once, where a test wants it."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum


class Op(StrEnum):
    """What a fault can hit."""

    APPEND = "append"
    """Storing a request."""
    SEND = "send"
    """A request on its way to whoever serves it, without being stored."""
    COMMIT = "commit"
    """Storing an outcome, a caller's `cancelled` included."""
    COMMITS = "commits"
    """Storing several outcomes together."""
    READ = "read"
    """Reading an outcome, attempts, a stored request, or where checkpoints are."""
    EMIT = "emit"
    """Storing events."""
    POSITION = "position"
    """Storing how far a subscription is."""
    ATTEMPT = "attempt"
    MARKER = "marker"
    CHECKPOINT = "checkpoint"
    DEAD_LETTER = "dead_letter"
    DELIVERY = "delivery"
    """A request on its way to a reader."""
    REPLY = "reply"
    """A republished outcome on its way to a caller."""


class Fault(StrEnum):
    """What becomes of a message."""

    LOST = "lost"
    """It never arrives: nothing happens, and no answer comes."""
    LOST_ANSWER = "lost_answer"
    """It happens, but its answer does not come back (not for DELIVERY and REPLY)."""
    TWICE = "twice"
    """It is delivered once more (DELIVERY and REPLY only)."""


class Flow(StrEnum):
    """What streams to a client by itself, and can be held up on its way (MemoryLink.hold)."""

    ENTRIES = "entries"
    """The journal, to followers."""
    DELIVERIES = "deliveries"
    REPLIES = "replies"


_WRITES = frozenset(
    {
        *(Op.APPEND, Op.COMMIT, Op.COMMITS, Op.EMIT, Op.POSITION, Op.ATTEMPT),
        *(Op.MARKER, Op.CHECKPOINT, Op.DEAD_LETTER),
    }
)


@dataclass
class Faults:
    """Chances from 0 to 1, drawn from `seed`; all zero: nothing goes wrong but what `once` asks for.

    A lost delivery comes again when the reader starts again or after `ack_wait`, as with NATS.
    """

    seed: int = 0
    lost: float = 0.0
    """Of each store operation and each reply."""
    lost_answers: float = 0.0
    """Of each write."""
    twice: float = 0.0
    """Of each delivery."""
    delay_s_max: float = 0.0
    """Every operation and its answer take up to this long, each its own time: later ones overtake."""
    _planned: dict[Op, deque[Fault | None]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def once(self, op: Op, fault: Fault, *, times: int = 1, after: int = 0) -> None:
        """Let `fault` hit the next `times` operations of that kind, after letting `after` pass."""
        self._planned.setdefault(op, deque()).extend([None] * after + [fault] * times)

    def draw(self, op: Op) -> Fault | None:
        """The fault that hits this operation, if any."""
        planned = self._planned.get(op)
        if planned:
            return planned.popleft()
        if op is Op.DELIVERY:
            return Fault.TWICE if self._hits(self.twice) else None
        if self._hits(self.lost):
            return Fault.LOST
        return Fault.LOST_ANSWER if op in _WRITES and self._hits(self.lost_answers) else None

    def delay_s(self) -> float:
        """How long the next message is on its way, in seconds."""
        return self._random.uniform(0.0, self.delay_s_max) if self.delay_s_max else 0.0

    def _hits(self, chance: float) -> bool:
        return chance > 0 and self._random.random() < chance
