"""Reads a day of orders from CSV: `time,account,side,quantity,price,symbol`.

A row that makes no sense is refused with its line number and the reason, and the others run; a file
that can't be used at all raises OrderFileError. A first row of column names is optional and sets
their order; an empty price means the market's. Orders run in the order of the file. Prices and
quantities keep every decimal.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from aegis_sdk.contract.names import encode_token
from aegis_sdk.errors import InvalidName

from aegis_demo.amounts import positive
from aegis_demo.orders import Order, Side
from aegis_demo.times import Moment, read_time

COLUMNS: Final = ("time", "account", "side", "quantity", "price", "symbol")
_SHOWN_MAX: Final = 40
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


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: list[str]
    fault: str = ""
    """Why it can't be split into cells."""

    def is_comment(self, columns: Sequence[str]) -> bool:
        """An account and a symbol may begin with `#`; nothing else does."""
        return self.cells[0].startswith("#") and columns[0] not in ("account", "symbol")


def read_order_file(path: Path) -> OrderFile:
    """Raises: OrderFileError when the file is missing, unreadable, or holds no order that can run."""
    try:
        # Bytes that are no UTF-8 spoil their own row alone: the checks below refuse what they become.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return _parse(path, _rows(file))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OrderFileError(f"{path}: can't be read: {reason}") from error


def _rows(lines: Iterable[str]) -> Iterator[_Row]:
    """Without blank lines. A row is one line: an open quote ends there."""
    for number, line in enumerate(lines, start=1):
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], strict=True), [])]
            row = _Row(number, cells)
        except csv.Error as error:
            fault = f"no CSV row ({error}): it is one line, and its quotes close"
            row = _Row(number, [line.strip()], fault)
        if any(row.cells):
            yield row


def _parse(path: Path, rows: Iterator[_Row]) -> OrderFile:
    first = next((row for row in rows if not row.is_comment(COLUMNS)), None)
    if first is None:
        raise OrderFileError(f"{path}: the file is empty; expected rows of {','.join(COLUMNS)}")
    columns = _header(path, first.cells)
    reader = _Reader(columns or COLUMNS)
    if columns is None:
        reader.read(first)
    for row in rows:
        reader.read(row)
    _check_usable(path, reader.found)
    return reader.found


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


class _Reader:
    """Turns rows into orders, and keeps why it can't."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.found = OrderFile([], [])
        self._columns = columns
        self._dated: bool | None = None
        """Whether the first order has a date: seconds from midnight and from 1970 can't be mixed."""

    def read(self, row: _Row) -> None:
        if row.is_comment(self._columns):
            return
        try:
            self.found.orders.append(self._order(row))
        except ValueError as error:
            self.found.refused.append(RefusedRow(row.line, str(error)))

    def _order(self, row: _Row) -> Order:
        """Raises: ValueError with the reason, for people."""
        cells = self._cells(row)
        moment = _time(cells["time"])
        order = Order(
            order_id=f"LINE-{row.line:06d}",
            at_s=moment.at_s,
            account=_name(cells, "account"),
            side=_side(cells["side"]),
            quantity=_amount(cells, "quantity"),
            limit=_amount(cells, "price") if cells["price"] else None,
            symbol=_symbol(cells),
        )
        self._check_kind(moment)
        return order

    def _cells(self, row: _Row) -> Mapping[str, str]:
        if row.fault:
            raise ValueError(row.fault)
        if len(row.cells) != len(self._columns):
            names = ",".join(self._columns)
            raise ValueError(f"{len(row.cells)} columns, expected {len(self._columns)} ({names})")
        return dict(zip(self._columns, row.cells, strict=True))

    def _check_kind(self, moment: Moment) -> None:
        if self._dated is None:
            self._dated = moment.dated
        if moment.dated is not self._dated:
            has, others = ("a date", "none") if moment.dated else ("no date", "one")
            raise ValueError(f"time has {has}, and the orders before it have {others}")


def _time(text: str) -> Moment:
    if not text:
        raise ValueError("time is empty")
    try:
        return read_time(text)
    except ValueError as error:
        raise ValueError(f"time {_short(text)!r} {error}") from error


def _name(cells: Mapping[str, str], column: str) -> str:
    """Any text that can be a resource id. Raises: ValueError."""
    text = cells[column]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{column} {_short(text)!r} is not UTF-8: save the file with that encoding"
        ) from error
    try:
        encode_token(text, kind=column)
    except InvalidName as error:
        raise ValueError(str(error)) from error
    return text


def _symbol(cells: Mapping[str, str]) -> str:
    symbol = _name(cells, "symbol")
    if not symbol.isprintable():
        raise ValueError(f"symbol {_short(symbol)!r} has characters that can't be printed")
    return symbol


def _side(text: str) -> Side:
    side = _SIDES.get(text.lower())
    if side is None:
        raise ValueError(f"side {_short(text)!r} is neither buy nor sell")
    return side


def _amount(cells: Mapping[str, str], column: str) -> Decimal:
    text = cells[column]
    try:
        return positive(text)
    except ValueError as error:
        raise ValueError(f"{column} {_short(text)!r} {error}") from error


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
