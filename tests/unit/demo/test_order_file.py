"""Orders from CSV: good rows run, bad rows are refused by their line, hopeless files at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from aegis_control.demo.order_file import OrderFile, OrderFileError, read_order_file
from aegis_control.demo.orders import Order, Side

HEADER = "time,account,side,quantity,price,symbol\n"
GOOD = "09:30:00.125,ACC-1,buy,100,12.34,AAPL\n"


def read(tmp_path: Path, text: str | bytes) -> OrderFile:
    path = tmp_path / "orders.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_order_file(path)


def refusal(tmp_path: Path, row: str | bytes) -> str:
    """What is said of a bad row on line 2, between good ones that must run."""
    bad = row if isinstance(row, bytes) else row.encode()
    found = read(tmp_path, HEADER.encode() + bad + b"\n" + GOOD.encode())
    assert len(found.orders) == 1
    (refused,) = found.refused
    assert refused.line == 2
    return refused.reason


def test_a_row_becomes_an_order_named_by_its_line(tmp_path: Path) -> None:
    found = read(tmp_path, HEADER + GOOD)
    expected = Order("LINE-000002", 34_200.125, "ACC-1", Side.BUY, 100, 1_234, "AAPL")
    assert found == OrderFile([expected], [])


def test_the_header_may_be_missing(tmp_path: Path) -> None:
    (order,) = read(tmp_path, GOOD).orders
    assert order.order_id == "LINE-000001"


def test_the_header_sets_the_order_of_the_columns(tmp_path: Path) -> None:
    (order,) = read(
        tmp_path, "symbol,Side,price,quantity,account,time,note\nX,SELL,,5,A,10:00,hi\n"
    ).orders
    assert order == Order("LINE-000002", 36_000, "A", Side.SELL, 5, None, "X")


def test_an_empty_price_asks_the_market(tmp_path: Path) -> None:
    (order,) = read(tmp_path, "09:30,A,buy,1,,X\n").orders
    assert order.limit_cents is None


@pytest.mark.parametrize(
    "time", ["09:30:00", "9:30", "2025-03-14T09:30:00", "2025-03-14 09:30:00Z"]
)
def test_a_time_is_a_clock_or_an_iso_date_and_time(tmp_path: Path, time: str) -> None:
    (order,) = read(tmp_path, f"{time},A,buy,1,1,X\n").orders
    assert order.at_s == 34_200


def test_blank_lines_comments_byte_order_mark_and_windows_line_ends_are_no_rows(
    tmp_path: Path,
) -> None:
    text = "\ufeff# a day\r\n" + HEADER.replace("\n", "\r\n") + "\r\n" + GOOD.replace("\n", "\r\n")
    found = read(tmp_path, text)
    assert [order.order_id for order in found.orders] == ["LINE-000004"]
    assert not found.refused


def test_orders_keep_the_order_of_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, "10:00,A,buy,1,1,X\n09:00,A,buy,2,1,X\n")
    assert [order.quantity for order in found.orders] == [1, 2]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("09:30,A,buy,10,1.00", "5 columns, expected 6"),
        ("09:30,A,buy,10,1.00,X,", "7 columns, expected 6"),
        ("late,A,buy,10,1.00,X", "time 'late' is neither"),
        ("25:00,A,buy,10,1.00,X", "time '25:00' is neither"),
        (",A,buy,10,1.00,X", "time is empty"),
        ("09:30,,buy,10,1.00,X", "account is empty"),
        (f"09:30,{'A' * 201},buy,10,1.00,X", "account has 201 bytes"),
        ("09:30,A,hold,10,1.00,X", "side 'hold' is neither buy nor sell"),
        ("09:30,A,buy,ten,1.00,X", "quantity 'ten' is not a whole number"),
        ("09:30,A,buy,1.5,1.00,X", "quantity '1.5' is not a whole number"),
        ("09:30,A,buy,0,1.00,X", "quantity 0 is not between 1 and"),
        ("09:30,A,buy,-5,1.00,X", "quantity -5 is not between 1 and"),
        (f"09:30,A,buy,{'9' * 5000},1.00,X", "is not a whole number"),
        ("09:30,A,buy,10,cheap,X", "price 'cheap' is not a number"),
        ("09:30,A,buy,10,0,X", "price 0 is not between 0.01 and"),
        ("09:30,A,buy,10,-1,X", "price -1 is not between 0.01 and"),
        ("09:30,A,buy,10,nan,X", "price nan is not between"),
        ("09:30,A,buy,10,1e99,X", "price 1e99 is not between"),
        ("09:30,A,buy,10,1.005,X", "price 1.005 has more than two decimals"),
        ("09:30,A,buy,10,1.00,", "symbol '' is not"),
        ('09:30,"A,buy,10,1.00,X', "1 columns, expected 6"),
        (b"09:30,A\xff,buy,10,1.00,X", "not valid Unicode"),
        (b"09:30,A,buy,10,1.00,X\x07", "symbol 'X\\x07' is not"),
    ],
)
def test_a_bad_row_is_refused_by_its_line_and_the_others_run(
    tmp_path: Path, row: str | bytes, reason: str
) -> None:
    assert reason in refusal(tmp_path, row)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        (HEADER, "a header and no orders"),
        ("time,account,side\n1,2,3\n", "the header lacks quantity, price, symbol"),
        (HEADER + "x\ny\n", "no row can be used; the first: line 2: 1 columns"),
    ],
)
def test_a_hopeless_file_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(OrderFileError) as refused:
        read(tmp_path, text)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(OrderFileError, match=r"absent\.csv: can't be read: no such file"):
        read_order_file(tmp_path / "absent.csv")


def test_a_folder_is_no_order_file(tmp_path: Path) -> None:
    with pytest.raises(OrderFileError, match="is a directory"):
        read_order_file(tmp_path)
