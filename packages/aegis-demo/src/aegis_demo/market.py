"""The rules of the demo's market: symbols, limits, and a price that depends on the question alone.

The pricing service and the independent ledger both ask `Market.price_of`. It is a function of
symbol and time, so the ledger can know every price without asking any service.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, ConfigDict

from aegis_demo.amounts import EXACT

SYMBOLS: Final = ("AAPL", "AMZN", "GOOG", "JPM", "META", "MSFT", "NVDA", "TSLA")
OPEN_S: Final = 9.5 * 3600
CLOSE_S: Final = 16 * 3600


class Market(BaseModel):
    """One day's rules. Every process of a session gets the same."""

    model_config = ConfigDict(frozen=True)

    opening_cash: Decimal
    """Of every account. It has no currency: the demo converts nothing."""
    position_max: Decimal
    """Per account and symbol, long or short."""
    references: dict[str, Decimal] = {}
    """By symbol: a price about which the market moves, in steps of its last digit."""

    def price_of(self, symbol: str, at_s: float) -> tuple[Decimal, Decimal]:
        """(bid, ask) of any symbol; moves once a minute, by 1 % at most."""
        base, tick_exponent = self._base(symbol)
        move_bp = _digest(f"{symbol}@{int(at_s // 60)}") % 201 - 100
        middle = base * (10_000 + move_bp) // 10_000
        half_spread = max(1, middle // 2_000)
        bid = max(1, middle - half_spread)
        ask = max(bid + 1, middle + half_spread)
        return _ticks(bid, tick_exponent), _ticks(ask, tick_exponent)

    def _base(self, symbol: str) -> tuple[int, int]:
        """In ticks, and the decimal exponent of a tick."""
        reference = self.references.get(symbol)
        if reference is None:
            return 20_00 + _digest(symbol) % 300_00, -2
        exponent = reference.as_tuple().exponent
        assert isinstance(exponent, int)  # a reference is a number
        tick_exponent = min(exponent, 0)
        return int(EXACT.scaleb(reference, -tick_exponent)), tick_exponent


GENERATED: Final = Market(opening_cash=Decimal(150_000), position_max=Decimal(1_500))
"""The generated day's. Small enough that a busy account runs out of cash now and then: rejections
are part of a day."""


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _ticks(count: int, exponent: int) -> Decimal:
    return EXACT.scaleb(Decimal(count), exponent)
