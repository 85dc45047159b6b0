"""Exact decimal arithmetic for prices, quantities and money.

Nothing is ever rounded: `EXACT` raises Inexact instead. Its precision has room for the sums of any
session, because a number from outside has at most DIGITS_MAX digits on either side of its point.
Python's own operators, and `abs` too, round to 28 digits; amounts are only compared with them.
"""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from typing import Final

DIGITS_MAX: Final = 30
"""Far beyond real prices and lots: tokens of 18 decimals, supplies of 10^15."""
EXACT: Final = Context(prec=200, traps=[DivisionByZero, Inexact, InvalidOperation, Overflow])
"""A product has 60 digits on either side, and a session some 10^6 of them."""
_ROUGH: Final = Context(prec=1, rounding=ROUND_UP)
_NUMBER: Final = re.compile(
    r"[+-]?([0-9]{1,3}(,[0-9]{3})+|[0-9]+|(?=\.[0-9]))(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?"
)


def positive(text: str) -> Decimal:
    """The number above 0 that a person or a program wrote: `1,250.50`, `0.001`, `1e-8`.

    Raises: ValueError, which says what is wrong with it.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError("is not a number (a point for decimals, commas for thousands)")
    number = Decimal(text.replace(",", ""))
    if number <= 0:
        raise ValueError("must be above 0")
    last = number.as_tuple().exponent
    if number.adjusted() >= DIGITS_MAX or not isinstance(last, int) or last < -DIGITS_MAX:
        raise ValueError(f"has more than {DIGITS_MAX} digits before or after its point")
    return number


def rounded_up(number: Decimal) -> Decimal:
    """To one digit that is not 0: 43,210 becomes 50,000."""
    return _ROUGH.plus(number)


def plain(number: Decimal) -> str:
    """For people: without an exponent."""
    return f"{number:,f}"
