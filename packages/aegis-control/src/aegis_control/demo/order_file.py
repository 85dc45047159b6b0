"""Reads a day of orders from CSV: `time,account,side,quantity,price,symbol`.

A bad row is refused with its line number and the reason, and the others run; a file that can't be
used at all raises OrderFileError. A first row of column names is optional and sets their order; an
empty price means the market's. Orders run in the order of the file.
"""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

from aegis_sdk.contract.names import encode_token
from aegis_sdk.errors import InvalidName

from aegis_control.demo.orders import Order, Side

COLUMNS: Final = ("time", "account", "side", "quantity", "price", "symbol")
_QUANTITY_MAX: Final = 1_000_000_000
_PRICE_MAX: Final = Decimal(1_000_000_000)
"""Far above any real row, far below where JSON readers lose digits."""
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}")
_SYMBOL_LENGTH_MAX: Final = 32
_SIDES: Final = {"buy": Side.BUY, "b": Side.BUY, "sell": Side.SELL, "s": Side.SELL}


class OrderFileError(Exception):
    """The file can't be used at all; the message is one line for people."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class OrderFile:
    """What a file holds: the orders that can run, and the rows that can't."""

    orders: list[Order]
    refused: list[RefusedRow]


def read_order_file(path: Path) -> OrderFile:
    """Raises: OrderFileError when the file is missing, unreadable, or holds no order that can run."""
    try:
        # Bytes that are no UTF-8 spoil their own row alone: the checks below refuse what they become.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return _parse(path, _rows(file))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OrderFileError(f"{path}: can't be read: {reason}") from error


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells), without blank lines and comments. A row is one line: an open quote ends there."""
    for number, line in enumerate(lines, start=1):
        cells = _cells(line)
        if any(cells) and not cells[0].startswith("#"):
            yield number, cells


def _cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], strict=True), [])]
    except csv.Error:
        return [line.strip()]  # it has too few columns, and is refused as that


def _parse(path: Path, rows: Iterator[tuple[int, list[str]]]) -> OrderFile:
    first = next(rows, None)
    if first is None:
        raise OrderFileError(f"{path}: the file is empty; expected rows of {','.join(COLUMNS)}")
    columns = _header(path, first[1])
    found = OrderFile([], [])
    if columns is None:
        _add(found, COLUMNS, *first)
    for line, cells in rows:
        _add(found, columns or COLUMNS, line, cells)
    _check_usable(path, found)
    return found


def _check_usable(path: Path, found: OrderFile) -> None:
    if found.orders:
        return
    if not found.refused:
        raise OrderFileError(f"{path}: the file has a header and no orders")
    raise OrderFileError(f"{path}: no row can be used; the first: {found.refused[0]}")


def _header(path: Path, cells: Sequence[str]) -> tuple[str, ...] | None:
    """The columns' order when the first row names them, None when it is data already."""
    names = tuple(cell.lower() for cell in cells)
    if not set(names) & set(COLUMNS):
        return None
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise OrderFileError(
            f"{path}: the header lacks {', '.join(missing)}; expected {','.join(COLUMNS)}"
        )
    return names


def _add(found: OrderFile, columns: Sequence[str], line: int, cells: Sequence[str]) -> None:
    try:
        found.orders.append(_order(columns, line, cells))
    except ValueError as error:
        found.refused.append(RefusedRow(line, str(error)))


def _order(columns: Sequence[str], line: int, cells: Sequence[str]) -> Order:
    """Raises: ValueError with the reason, for people."""
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} columns, expected {len(columns)} ({','.join(columns)})")
    row = dict(zip(columns, cells, strict=True))
    return Order(
        order_id=f"LINE-{line:06d}",
        at_s=_time(row["time"]),
        account=_account(row),
        side=_side(row["side"]),
        quantity=_quantity(row["quantity"]),
        limit_cents=_price(row["price"]),
        symbol=_symbol(row["symbol"]),
    )


def _time(text: str) -> float:
    """Seconds since midnight, of `09:30:00.125` or `2025-03-14T09:30:00.125`."""
    if not text:
        raise ValueError("time is empty")
    try:
        moment = dt.datetime.fromisoformat(text).time() if len(text) > 15 else _clock(text)
    except ValueError as error:
        raise ValueError(f"time {text!r} is neither HH:MM:SS nor an ISO date and time") from error
    seconds = moment.hour * 3600 + moment.minute * 60 + moment.second
    return round(seconds + moment.microsecond / 1e6, 6)


def _clock(text: str) -> dt.time:
    return dt.time.fromisoformat(f"0{text}" if text[1:2] == ":" else text)


def _account(row: Mapping[str, str]) -> str:
    try:
        encode_token(row["account"], kind="account")
    except InvalidName as error:
        raise ValueError(str(error)) from error
    return row["account"]


def _side(text: str) -> Side:
    side = _SIDES.get(text.lower())
    if side is None:
        raise ValueError(f"side {text!r} is neither buy nor sell")
    return side


def _quantity(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"quantity {text!r} is not a whole number")
    quantity = int(text)
    if not 0 < quantity <= _QUANTITY_MAX:
        raise ValueError(f"quantity {text} is not between 1 and {_QUANTITY_MAX}")
    return quantity


def _price(text: str) -> int | None:
    """Cents, or None for the market's price."""
    if not text:
        return None
    try:
        price = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"price {text!r} is not a number") from error
    if not price.is_finite() or not 0 < price <= _PRICE_MAX:
        raise ValueError(f"price {text} is not between 0.01 and {_PRICE_MAX}")
    cents = price * 100
    if cents != cents.to_integral_value():
        raise ValueError(f"price {text} has more than two decimals")
    return int(cents)


def _symbol(text: str) -> str:
    if not text or len(text) > _SYMBOL_LENGTH_MAX or not text.isprintable():
        raise ValueError(f"symbol {text!r} is not 1 to {_SYMBOL_LENGTH_MAX} printable characters")
    return text
