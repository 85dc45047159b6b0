"""When a writer stores which checkpoint, so that a start reads little, and no resource holds up the trim of the log.

Theory of operation. A checkpoint says: the state of a resource up to where its writer's reader is, and with the outcomes up to
a number. It replaces the one before it. The log may be trimmed up to the oldest of all resources' checkpoints, and a
reader starts at the oldest of those that it needs. So a resource's checkpoint is renewed in four cases:

- after a number of changes, as far as these are worth a rewrite of the state;
- before the resource is given away;
- when there is none;
- when it has become old, in entries or in seconds, while something was stored that waits to be trimmed.

A checkpoint is checked against its writer's gate, as a turn is, so that no former owner's replaces a later one's. Of one
owner's, a late one would: the trim has gone on by then, and what lies between would be gone (docs/model.md, NO_GATE_IN_DOUBT).
So each is sent once. If it is not known what became of one, its writer stores a gate of its own. It makes no
further checkpoint before it has read that: the late one names the older gate.

Sessions of silent callers are forgotten with a checkpoint, by the log's own time: never by this process's clock, which may be wrong.

What must stay true: a checkpoint is made in one step, from what is folded at that moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_json

from aegis_sdk.contract.turns.checkpoint import Checkpoint, values_of
from aegis_sdk.contract.turns.timers import Timer
from aegis_sdk.domain.turns.ownership import Ownership
from aegis_sdk.domain.turns.sessions import Sessions
from aegis_sdk.domain.turns.states import HeldState
from aegis_sdk.domain.turns.timers import Timers
from aegis_sdk.domain.turns.work import Held

_OURS: Final = frozenset({HeldState.SERVING, HeldState.PAUSED})
_LARGE_BYTES: Final = 2**24


@dataclass(slots=True)
class Every:
    """How old a checkpoint may become."""

    changes: int = 1000
    """But never more bytes of checkpoints than twice those of changes."""
    entries: int = 200_000
    """What a reader goes through in a few seconds."""
    seconds: float = 600.0
    at_a_time: int = 32
    """On their way together: a drain of many resources leaves room for others."""

    @classmethod
    def kept(cls, kept_s: float) -> Every:
        """Where outcomes are kept for so long: an idle resource holds up their removal for a small part of that."""
        return cls(seconds=min(cls().seconds, kept_s / 8))


class Saver:
    """The checkpoints of one writer."""

    __slots__ = ("_doubt", "_every", "_in_flight", "_kept_s", "_log", "_name", "_ownership", "_wanted")  # fmt: skip

    def __init__(
        self, name: str, ownership: Ownership, *, every: Every, kept_s: float, log: str = ""
    ) -> None:
        """`kept_s`: how long the session of a caller that is silent is kept."""
        self._name = name
        self._ownership = ownership
        self._every = every
        self._kept_s = kept_s
        self._log = log
        self._wanted: dict[str, Held] = {}
        self._in_flight = 0
        self._doubt = -1
        """The gate under which one may still be on its way, or was refused: only a newer one is used."""

    @property
    def is_due(self) -> bool:
        return bool(self._wanted) and self._in_flight < self._every.at_a_time

    # --- when -------------------------------------------------------------------------------------------------
    def changed(self, held: Held) -> None:
        """An outcome of it was folded."""
        if (
            held.changes >= self._every.changes
            and held.change_bytes >= min(held.saved_bytes, _LARGE_BYTES) / 2
        ):
            self.want(held)

    def tick(self, all_held: Iterable[Held], now_s: float, position: int, worth: int) -> None:
        """`worth`: the last entry that a trim would remove. Where there is none behind a checkpoint, it may age."""
        for held in all_held:
            if held.state in _OURS and self._is_old(held, now_s, position, worth):
                self.want(held)

    def _is_old(self, held: Held, now_s: float, position: int, worth: int) -> bool:
        if held.saved < 0:
            return True
        return worth > held.saved and (
            position - held.saved > self._every.entries
            or now_s - held.saved_s > self._every.seconds
        )

    def want(self, held: Held) -> None:
        if held.saving is None:
            self._wanted[held.name] = held

    @staticmethod
    def covers(held: Held) -> bool:
        """Whether the newest checkpoint has all of it."""
        return held.saved >= 0 and held.saving is None and not held.is_changed

    # --- making -----------------------------------------------------------------------------------------------
    def take(self, gate: int, position: int, log_s: float) -> list[Checkpoint]:
        """Those to be stored under `gate`. `log_s`: the log's time of what was read last."""
        if gate <= self._doubt:
            return []
        made: list[Checkpoint] = []
        while self.is_due:
            held = self._wanted.pop(next(iter(self._wanted)))
            if held.state in _OURS:
                made.append(self._make(held, position, log_s))
                self._in_flight += 1
        return made

    def _make(self, held: Held, position: int, log_s: float) -> Checkpoint:
        held.sessions.drop_unused(log_s - self._kept_s)
        held.is_changed = False
        held.changes = held.change_bytes = 0
        held.saving = Checkpoint(
            writer=self._name,
            resource=held.name,
            log=self._log,
            read=position,
            number=held.number,
            epoch=self._ownership.epoch(held.name),
            own=self._ownership.number,
            sessions=held.sessions.dump(),
            ended=dict(held.ended),
            unsent=[(number, list(contents)) for number, contents in held.unsent.items()],
            begun=dict(held.begun),
            timers=timers_of(held),
            values=to_json(held.values),
        )
        return held.saving

    # --- what became of one -------------------------------------------------------------------------------------
    def saved(self, held: Held, checkpoint: Checkpoint, at_s: float) -> None:
        """It is stored."""
        if self._landed(held, checkpoint):
            self.read(held, checkpoint, at_s)

    def read(self, held: Held, checkpoint: Checkpoint, at_s: float) -> None:
        """Anybody's in the log. Whoever follows forgets silent callers when its owner does."""
        held.sessions.drop_unused(at_s - self._kept_s)
        if checkpoint.read >= held.saved:
            held.saved, held.saved_s = checkpoint.read, at_s
            held.saved_bytes = _bytes_of(held, checkpoint)

    def refused(self, held: Held, checkpoint: Checkpoint, *, gate: int) -> None:
        """The gate has moved from `gate`. The next one is made when the newer gate is read."""
        if self._landed(held, checkpoint):
            self._not_stored(held, gate)

    def lost(self, held: Held, checkpoint: Checkpoint, *, gate: int) -> bool:
        """Nobody says what became of it. Whether a gate of our own is needed."""
        if not self._landed(held, checkpoint):
            return False
        needed = gate > self._doubt
        self._not_stored(held, gate)
        return needed

    def _not_stored(self, held: Held, gate: int) -> None:
        held.is_changed = True
        self.want(held)
        self._doubt = max(gate, self._doubt)

    def _landed(self, held: Held, checkpoint: Checkpoint) -> bool:
        if held.saving is not checkpoint:
            return False
        held.saving = None
        self._in_flight -= 1
        return True


def restored(name: str, checkpoint: Checkpoint | None) -> Held:
    """The resource as its checkpoint has it; without one as it was before its first request.

    Raises: ValueError.
    """
    held = Held(name)
    if checkpoint is None:
        return held
    held.values = values_of(checkpoint.values)
    held.sessions = Sessions.load(checkpoint.sessions)
    held.ended = dict(checkpoint.ended)
    held.number = checkpoint.number
    held.unsent = {number: list(contents) for number, contents in checkpoint.unsent}
    held.begun = dict(checkpoint.begun)
    if checkpoint.timers:
        held.timers = Timers(map(Timer.read, checkpoint.timers))
    held.saved, held.saved_bytes = checkpoint.read, _bytes_of(held, checkpoint)
    return held


def timers_of(held: Held) -> list[Mapping[str, Any]]:
    """As a checkpoint has them."""
    return [] if held.timers is None else [t.content for t in held.timers.by_name.values()]


def _bytes_of(held: Held, checkpoint: Checkpoint) -> int:
    return len(checkpoint.values) + (0 if held.timers is None else held.timers.bytes)
