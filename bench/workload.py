"""What callers send, and when: a trading day's shape, hot accounts, a mix of operations; all from a seed.

Pure: times are offsets in seconds from a block's start.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

from bench.model import Fill, Lookup, Op, make_fill

ZIPF_EXPONENT: Final = 1.1
"""Of 1,000 accounts the first takes about 13 % of the traffic, the first ten 40 %."""

TRADING_MIX: Final[Mapping[Op, float]] = {Op.FILL: 0.5, Op.ORDER: 0.3, Op.QUERY: 0.2}
TARGETED: Final[Mapping[Op, float]] = {Op.FILL: 1.0}
GROUP: Final[Mapping[Op, float]] = {Op.ORDER: 1.0}
READS: Final[Mapping[Op, float]] = {Op.QUERY: 1.0}
MIXES: Final[Mapping[str, Mapping[Op, float]]] = {
    "targeted": TARGETED,
    "group": GROUP,
    "mix": TRADING_MIX,
    "reads": READS,
}

_OPEN_PEAK: Final = 3.2
_OPEN_LASTS: Final = 0.06
_CLOSE_PEAK: Final = 2.6
_CLOSE_LASTS: Final = 0.05
_QUIET: Final = 0.6
_ID_BITS: Final = 40


def account_names(count: int) -> list[str]:
    return [f"ACC-{n:04d}" for n in range(count)]


def zipf_weights(count: int, exponent: float = ZIPF_EXPONENT) -> list[float]:
    """Cumulative weights: the account of rank r gets 1 / r ** exponent."""
    return list(accumulate(1 / rank**exponent for rank in range(1, count + 1)))


def _raw_intensity(day: float) -> float:
    opening = _OPEN_PEAK * math.exp(-day / _OPEN_LASTS)
    closing = _CLOSE_PEAK * math.exp((day - 1) / _CLOSE_LASTS)
    return _QUIET + opening + closing


_MEAN_INTENSITY: Final = sum(_raw_intensity((n + 0.5) / 1000) for n in range(1000)) / 1000
PEAK_INTENSITY: Final = _raw_intensity(0.0) / _MEAN_INTENSITY


def day_intensity(day: float) -> float:
    """The rate at `day` (0 is the open, 1 the close) as a multiple of the day's mean rate."""
    return _raw_intensity(day) / _MEAN_INTENSITY


def arrivals(
    rng: random.Random, *, rate_per_s: float, duration_s: float, shape: str = "flat"
) -> list[float]:
    """Send times of independent callers (Poisson) with a mean of `rate_per_s`; shape: flat | day."""
    peak = PEAK_INTENSITY if shape == "day" else 1.0
    times: list[float] = []
    now = rng.expovariate(rate_per_s * peak)
    while now < duration_s:
        if shape == "flat" or rng.random() * peak < day_intensity(now / duration_s):
            times.append(now)
        now += rng.expovariate(rate_per_s * peak)
    return times


class Traffic:
    """An endless stream of requests. Ids are unique over callers and blocks.

    Args:
        spread: "zipf" for hot accounts, "even" for one after the other.
        first_id: the number of requests this caller has made before.
        note_bytes: the length of a fill's note; None makes fills of the usual length.
    """

    def __init__(
        self,
        rng: random.Random,
        accounts: list[str],
        mix: Mapping[Op, float],
        *,
        spread: str,
        caller_index: int,
        first_id: int,
        note_bytes: int | None = None,
    ) -> None:
        self._rng = rng
        self._accounts = accounts
        self._weights = zipf_weights(len(accounts)) if spread == "zipf" else None
        self._ops = list(mix)
        self._op_weights = list(accumulate(mix.values()))
        self._base = (caller_index + 1) << _ID_BITS
        self._note = None if note_bytes is None else "x" * note_bytes
        self.made = first_id

    def __iter__(self) -> Iterator[tuple[Op, Fill | Lookup]]:
        while True:
            yield self.next()

    def next(self) -> tuple[Op, Fill | Lookup]:
        self.made += 1
        request_id = self._base + self.made
        op = self._ops[0]
        if len(self._ops) > 1:
            op = self._rng.choices(self._ops, cum_weights=self._op_weights)[0]
        account = self._next_account()
        if op is Op.QUERY:
            return op, Lookup(id=request_id, account=account)
        quantity = self._rng.randrange(1, 500) * (1 if self._rng.random() < 0.5 else -1)
        price = self._rng.randrange(500_000, 600_000)
        if self._note is not None:
            return op, Fill(
                id=request_id, account=account, quantity=quantity, price=price, note=self._note
            )
        return op, make_fill(request_id, account, quantity, price)

    def _next_account(self) -> str:
        if self._weights is None:
            return self._accounts[self.made % len(self._accounts)]
        return self._rng.choices(self._accounts, cum_weights=self._weights)[0]
