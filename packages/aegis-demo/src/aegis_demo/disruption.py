"""When the demo strikes, and what came of it. Pure: the session does what is planned here.

Strikes are spread evenly over the orders. The gateway may go on for half a stretch beyond a strike's
place and waits there if the strike is late, so that each one hits a stream in full flow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from aegis_demo.events import Traded


class Strike(StrEnum):
    """What is done to the active instance of `accounts`, or to the system."""

    KILL = "kill"
    """kill -9: its process is gone at once."""
    PAUSE = "pause"
    """SIGSTOP, and SIGCONT after another took over: it wakes up believing that it is the active."""
    GROW = "grow"
    """One more instance joins, and gets its share."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Strike when `after` orders have their answer; until then the gateway sends at most `limit`."""

    strike: Strike
    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class Disruption:
    """A strike that happened. Times are the machine's monotonic clock."""

    strike: Strike
    victim: str
    pid: int
    orders_done: int
    struck_s: float
    successor: str
    taken_over_s: float


def plan(orders: int, *, kills: int, pauses: int, grow: bool = False) -> list[Planned]:
    """The strikes of a session, in their order; it grows in the middle of them."""
    strikes = [Strike.KILL] * kills + [Strike.PAUSE] * pauses
    if grow:
        strikes.insert(len(strikes) // 2, Strike.GROW)
    stretch = orders / (len(strikes) + 1)
    return [
        Planned(
            strike,
            after=int(stretch * number),
            limit=min(orders, int(stretch * number) + max(1, int(stretch / 2))),
        )
        for number, strike in enumerate(strikes, start=1)
    ]


def flowing_at(planned: Planned, *, next_limit: int, done: int) -> int:
    """How many orders must be done before a strike: one more than were held back, if they were."""
    return min(planned.limit + 1, next_limit) if done >= planned.limit else done


def longest_wait_s(disruption: Disruption, trades: Iterable[Traded]) -> float:
    """The longest that a caller waited for a booking which the failover could have delayed."""
    return max(
        (
            trade.booking_s
            for trade in trades
            if trade.started_s <= disruption.taken_over_s
            and trade.started_s + trade.booking_s >= disruption.struck_s
        ),
        default=0.0,
    )
