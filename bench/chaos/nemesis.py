"""Which fault strikes when, drawn from a seed; and the hand that carries the plan out.

The plan is pure: the same seed gives the same faults at the same times. What they meet depends on the
machine, so a run is not repeated exactly, but its kind is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, Final, Protocol

from bench.chaos.history import Fault

DETECTION_S = 0.7
"""Silence after which control takes an instance for lost, by default."""


class Kind(StrEnum):
    """What can be done to the system."""

    KILL_INSTANCE = "kill_instance"
    PAUSE_INSTANCE = "pause_instance"
    KILL_CONTROL = "kill_control"
    PAUSE_CONTROL = "pause_control"
    KILL_NATS = "kill_nats"
    KILL_CLIENT = "kill_client"
    CUT = "cut"
    """Nothing goes between an instance and NATS, either way."""
    CUT_TO_NATS = "cut_to_nats"
    CUT_FROM_NATS = "cut_from_nats"
    DELAY = "delay"
    """Everything between an instance and NATS takes longer."""
    JUMP_CLOCK = "jump_clock"
    """The wall clock of an instance, a control or a client is wrong for a while."""
    HESITATE = "hesitate"
    """An instance sleeps between judging a turn and storing it."""
    CHANGE_OFFER = "change_offer"
    """An instance gives up a resource of each service, and offers it again a moment later."""
    JOIN = "join"
    """One instance more comes, takes its share, and leaves."""
    BUMP_GATES = "bump_gates"
    """Gates of all writers of a service are stored anew, many times a second."""
    MOVE_OWNERSHIP = "move_ownership"
    """Resources change hands, several times a second."""
    SEIZE = "seize"
    """Resources change hands without a word to their owners, whose turns are under way."""
    PAUSE_TRAFFIC = "pause_traffic"
    """An operator pauses resources, one after the other, and resumes them."""
    GIVE_UP = "give_up"
    """Crowds of callers give up at the same moment, a moment after they asked."""
    FULL_STREAMS = "full_streams"
    """The request streams take no more."""
    DELETE_BUCKET = "delete_bucket"
    """One of control's buckets is deleted, and comes back by itself."""
    DELETE_CONSUMERS = "delete_consumers"
    """Those of a service's group, or of who reads its requests, likewise."""
    LOSE_REQUESTS = "lose_requests"
    """A service's requests are deleted; it is served again when that is accepted."""
    LOSE_JOURNAL = "lose_journal"
    """A service's journal is deleted or emptied, likewise."""
    RESTORE_COPY = "restore_copy"
    """All that NATS keeps is copied, and put back later; what is lost by that is accepted, likewise."""


ACCIDENTS: Final = (
    Kind.DELETE_BUCKET,
    Kind.DELETE_CONSUMERS,
    Kind.LOSE_REQUESTS,
    Kind.LOSE_JOURNAL,
    Kind.RESTORE_COPY,
)
"""What takes an operator with the right to destroy; drawn when asked for."""


TROUBLES: Final = (
    Kind.BUMP_GATES,
    Kind.MOVE_OWNERSHIP,
    Kind.SEIZE,
    Kind.PAUSE_TRAFFIC,
    Kind.GIVE_UP,
)
"""What anybody may do at any moment: troubles.py."""

NAMED_ALONE: Final = (Kind.SEIZE,)
"""Drawn when it is named: control alone decides who owns what, and knows who lives."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come: `at_s` after the start, for `lasts_s`, on the target-th of its kind."""

    at_s: float
    kind: Kind
    target: int
    lasts_s: float


def plan(seed: int, seconds: float, kinds: Sequence[Kind], sizes: dict[Kind, int]) -> list[Planned]:
    """The faults of a run of `seconds`; `sizes` is how many targets there are of each kind.

    Each begins 1 to 4 s after the one before, whether or not that one has healed. The kinds are dealt
    like cards, so that a short run meets each of them.
    """
    source = Random(seed)
    planned: list[Planned] = []
    deck: list[Kind] = []
    at_s = source.uniform(1.0, 2.0)
    while at_s < seconds and kinds:
        deck = deck or source.sample(sorted(kinds), len(kinds))
        kind = deck.pop()
        lasts_s = _lasts_s(source, kind)
        planned.append(Planned(at_s, kind, source.randrange(sizes[kind]), lasts_s))
        at_s += source.uniform(1.0, 4.0)
    return planned


def _lasts_s(source: Random, kind: Kind) -> float:
    """A pause, a cut or a delay of half, once or thrice the detection time; a kill until the restart."""
    if kind in (Kind.KILL_INSTANCE, Kind.KILL_CONTROL, Kind.KILL_NATS, Kind.KILL_CLIENT):
        return source.uniform(0.1, 1.5)
    if kind in (Kind.JOIN, Kind.PAUSE_TRAFFIC):
        return source.uniform(4.0, 10.0)
    return DETECTION_S * source.choice([0.5, 1.0, 3.0])


class Victims(Protocol):
    """What the nemesis needs of the system."""

    async def strike(self, kind: Kind, target: int) -> str | None:
        """Begin a fault; returns the target's name, or None when it is down already."""
        ...

    async def heal(self, kind: Kind, target: int) -> None:
        """End it; returns when what was down is up again."""
        ...


class Nemesis:
    """Carries a plan out. `faults` is what it did."""

    def __init__(
        self, planned: Sequence[Planned], victims: Victims, on_fault: Callable[[Fault], None]
    ) -> None:
        self._planned = planned
        self._victims = victims
        self._on_fault = on_fault
        self._busy: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Returns when the last fault has healed."""
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as healing:
            for planned in self._planned:
                await asyncio.sleep(max(0.0, began_s + planned.at_s - time.monotonic()))
                await self._begin(planned, healing.create_task)

    async def _begin(
        self, planned: Planned, later: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        struck = (_part(planned.kind), planned.target)
        if struck in self._busy:
            return
        began_s = time.monotonic()
        name = await self._victims.strike(planned.kind, planned.target)
        if name is not None:
            self._busy.add(struck)
            later(self._end(planned, name, began_s, struck))

    async def _end(
        self, planned: Planned, name: str, began_s: float, struck: tuple[str, int]
    ) -> None:
        await asyncio.sleep(planned.lasts_s)
        await self._victims.heal(planned.kind, planned.target)
        self._busy.discard(struck)
        self._on_fault(
            Fault(kind=planned.kind.value, target=name, began_s=began_s, healed_s=time.monotonic())
        )


_PARTS = {
    Kind.KILL_CONTROL: "control",
    Kind.PAUSE_CONTROL: "control",
    Kind.KILL_NATS: "nats",
    Kind.JOIN: "guest",
    Kind.KILL_CLIENT: "client",
    Kind.JUMP_CLOCK: "clock",
    Kind.BUMP_GATES: "gates",
    Kind.MOVE_OWNERSHIP: "ownership",
    Kind.SEIZE: "ownership",
    Kind.GIVE_UP: "crowd",
    Kind.PAUSE_TRAFFIC: "traffic",
    Kind.FULL_STREAMS: "streams",
    Kind.DELETE_BUCKET: "bucket",
    Kind.DELETE_CONSUMERS: "service",
    Kind.LOSE_REQUESTS: "service",
    Kind.LOSE_JOURNAL: "service",
    Kind.RESTORE_COPY: "copy",
}


def _part(kind: Kind) -> str:
    """What a fault of this kind strikes; one fault at a time strikes the same."""
    return _PARTS.get(kind, "instance")
