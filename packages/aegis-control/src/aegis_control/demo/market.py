"""The rules of the demo's market: symbols, limits, and a price that depends on the question alone.

The pricing service and the independent ledger both ask `price_of`. It is a function of symbol and
time, so the ledger can know every price without asking any service.
"""

from __future__ import annotations

import hashlib
from typing import Final

SYMBOLS: Final = ("AAPL", "AMZN", "GOOG", "JPM", "META", "MSFT", "NVDA", "TSLA")
OPENING_CASH_CENTS: Final = 150_000_00
"""Small enough that a busy account runs out of cash now and then: rejections are part of a day."""
POSITION_SHARES_MAX: Final = 1_500
"""Per account and symbol, long or short."""
OPEN_S: Final = 9.5 * 3600
CLOSE_S: Final = 16 * 3600


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def price_of(symbol: str, at_s: float) -> tuple[int, int]:
    """(bid, ask) in cents for any symbol, at `at_s` seconds since midnight; moves once a minute."""
    base = 20_00 + _digest(symbol) % 300_00
    move_bp = _digest(f"{symbol}@{int(at_s // 60)}") % 201 - 100
    middle = base * (10_000 + move_bp) // 10_000
    half_spread = max(1, middle // 2_000)
    return middle - half_spread, middle + half_spread
