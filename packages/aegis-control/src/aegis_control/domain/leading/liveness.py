"""When is an instance live, stalled or lost? Values in, a state out.

Silence is counted by the caller's own monotonic clock. An evicted run never comes back; a lost one
does when it is heard again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aegis_sdk.contract.control import InstanceState


class Sign(StrEnum):
    """What control noticed about an instance."""

    BEAT = "heartbeat"
    """Heard in time, and its main loop runs."""
    LATE_LOOP = "stalled"
    """Heard in time, but its main loop has not run for longer than the stall limit."""
    SILENCE = "heartbeats_missed"
    CLOSED = "connection_closed"
    """The server saw both of its connections close."""
    DRAIN = "drain"
    EVICT = "evicted"


_LIVE, _STALLED, _DRAINING, _LOST, _EVICTED = (
    InstanceState.LIVE,
    InstanceState.STALLED,
    InstanceState.DRAINING,
    InstanceState.LOST,
    InstanceState.EVICTED,
)

# A pair that is not here leaves the state as it is.
TRANSITIONS: Final[Mapping[tuple[InstanceState, Sign], InstanceState]] = {
    (_LIVE, Sign.LATE_LOOP): _STALLED,
    (_LIVE, Sign.SILENCE): _LOST,
    (_LIVE, Sign.CLOSED): _LOST,
    (_LIVE, Sign.DRAIN): _DRAINING,
    (_LIVE, Sign.EVICT): _EVICTED,
    (_STALLED, Sign.BEAT): _LIVE,
    (_STALLED, Sign.SILENCE): _LOST,
    (_STALLED, Sign.CLOSED): _LOST,
    (_STALLED, Sign.DRAIN): _DRAINING,
    (_STALLED, Sign.EVICT): _EVICTED,
    # A handler that hangs must not hold a drain up for ever.
    (_DRAINING, Sign.LATE_LOOP): _STALLED,
    (_DRAINING, Sign.SILENCE): _LOST,
    (_DRAINING, Sign.CLOSED): _LOST,
    (_DRAINING, Sign.EVICT): _EVICTED,
    (_LOST, Sign.BEAT): _LIVE,
    (_LOST, Sign.EVICT): _EVICTED,
}

CAN_TAKE_OVER: Final = frozenset({_LIVE})
CAN_KEEP: Final = frozenset({_LIVE, _DRAINING})
"""In every other state a standby takes its resources."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long control waits before it judges."""

    heartbeat_interval_s: float
    heartbeat_timeout_s: float
    stall_limit_s: float
    return_grace_s: float

    @property
    def suspicion_s(self) -> float:
        """Silence after which an instance is doubted, but not judged."""
        return 2 * self.heartbeat_interval_s


def judge(*, silence_s: float, loop_lag_s: float, limits: Limits) -> Sign:
    """What the heartbeats of an instance say about it."""
    if silence_s > limits.heartbeat_timeout_s:
        return Sign.SILENCE
    if loop_lag_s > limits.stall_limit_s:
        return Sign.LATE_LOOP
    return Sign.BEAT


def next_state(state: InstanceState, sign: Sign) -> InstanceState:
    """The state after `sign`; the same one when the sign changes nothing."""
    return TRANSITIONS.get((state, sign), state)
