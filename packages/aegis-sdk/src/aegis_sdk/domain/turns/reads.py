"""When an instance may answer a read from what it has in memory. No loop, no clock, no NATS.

Theory of operation. A read at a resource's active must not miss anything that was answered before it was made. Three things
could make an active's memory too old:

- Something of its own is on its way: the log may have it, and its caller may know, before this writer does. So a read waits
  for what is in flight, which is one store, and never for a handler that runs.
- It was replaced, and does not know it yet. What the log takes from a writer under its gate is a *proof*: at that moment nobody
  else could have written what this writer owns. A read is answered by a proof that was begun after the read came; or by an older one,
  for PROOF_S from its beginning. Each turn that is stored is a proof, and where no turn is on its way a small entry is one.
- It was replaced since the proof. Therefore whoever takes a resource over from another begins no request of it before HOLD_S have passed:
  by then each proof of the owner before it is too old.

So all clocks count durations alone, and a process that sleeps between the proof and the read finds the proof too old when it wakes up.

A standby promises less: what it has read of the log, up to a position that the read names, or up to a moment that it asked the log about.
"""

from __future__ import annotations

import math
from typing import Final

from aegis_sdk.domain.turns.states import HeldState
from aegis_sdk.domain.turns.work import Held

PROOF_S: Final = 0.05
"""How long a proof holds. While reads come, a writer without turns stores one so often; a failover waits as long."""
HOLD_S: Final = 0.06
"""With room for clocks that don't run alike."""
_OWNED: Final = frozenset({HeldState.SERVING, HeldState.PAUSED})


class Freshness:
    """What one instance knows of how old its memory is. Seconds are of its own monotonic clock."""

    __slots__ = ("caught_up_s", "proven_s")

    def __init__(self) -> None:
        self.proven_s = -math.inf
        """When the last proof was begun."""
        self.caught_up_s = -math.inf
        """All that the log had at that moment is read."""

    def proven(self, begun_s: float) -> None:
        self.proven_s = max(self.proven_s, begun_s)

    def caught_up(self, asked_s: float) -> None:
        self.caught_up_s = max(self.caught_up_s, asked_s)

    def is_proven(self, came_s: float, now_s: float) -> bool:
        return came_s <= self.proven_s or now_s < self.proven_s + PROOF_S

    def lacks_at_most(self, lag_s_max: float, came_s: float) -> bool:
        """Whether all is read that the log had `lag_s_max` before the read came."""
        return came_s - lag_s_max <= self.caught_up_s


def is_owned(held: Held) -> bool:
    """Whether its newest state is this writer's to tell, as far as it knows."""
    return held.state in _OWNED


def is_settled(held: Held) -> bool:
    """Whether nothing of it is on its way to the log."""
    return not held.in_flight


def is_followed(held: Held) -> bool:
    """Whether a standby may tell of it."""
    return held.state is HeldState.FOLLOWING and not held.unreadable


def waits_for_proofs(held: Held) -> bool:
    """Of a resource that is served from now on: whether an owner before may still answer reads of it."""
    return held.since_s > 0.0
