"""Orders from CSV: good rows run, bad rows are refused by their line, hopeless files at once."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from aegis_demo.amounts import positive
from aegis_demo.fitted import fitted_market
from aegis_demo.ledger import Verdict, keep_ledger
from aegis_demo.order_file import OrderFile, OrderFileError, read_order_file
from aegis_demo.orders import Order, Side
from hypothesis import given
from hypothesis import strategies as st

HEADER = "time,account,side,quantity,price,symbol\n"
FILES = Path(__file__).parent / "files"
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
    expected = Order(
        "LINE-000002", 34_200.125, "ACC-1", Side.BUY, Decimal(100), Decimal("12.34"), "AAPL"
    )
    assert found == OrderFile([expected], [])


def test_the_header_may_be_missing(tmp_path: Path) -> None:
    (order,) = read(tmp_path, GOOD).orders
    assert order.order_id == "LINE-000001"


def test_the_header_sets_the_order_of_the_columns(tmp_path: Path) -> None:
    (order,) = read(
        tmp_path, "symbol,Side,price,quantity,account,time,note\nX,SELL,,5,A,10:00,hi\n"
    ).orders
    assert order == Order("LINE-000002", 36_000, "A", Side.SELL, Decimal(5), None, "X")


def test_an_empty_price_asks_the_market(tmp_path: Path) -> None:
    (order,) = read(tmp_path, "09:30,A,buy,1,,X\n").orders
    assert order.limit is None


@pytest.mark.parametrize("sample", ["fx", "jpy", "crypto"])
def test_a_samples_orders_all_make_sense_and_the_market_that_fits_rejects_none(
    sample: str,
) -> None:
    """FX has 5 decimals, JPY 3, crypto 8 and more, lots are parts of one; zones and names are as they come."""
    found = read_order_file(FILES / f"{sample}.csv")
    assert found.refused == []
    ledger = keep_ledger(found.orders, fitted_market(found.orders))
    assert set(ledger.verdicts.values()) == {Verdict.EXECUTED}
    times = [order.at_s for order in found.orders]
    assert times == sorted(times)


@pytest.mark.parametrize(
    "time",
    [
        "2025-03-14T09:30:00",
        "2025-03-14 09:30:00Z",
        "2025-03-14T10:30:00+01:00",
        "2025-03-14 05:30:00 -0400",
        "2025-03-14 05:30:00 America/New_York",
        "2025-03-14T10:30+01:00[Europe/Zurich]",
        "2025-03-14 9:30:00 UTC",
        "2025-03-14T09:30:00.000000000Z",
        "20250314-09:30:00.000",
        "20250314T093000Z",
        "2025.03.14 09:30",
        "2025/03/14 09:30:00",
        "1741944600",
        "1741944600.000",
        "1741944600000",
        "1741944600000000",
        "1741944600000000000",
    ],
)
def test_a_moment_counts_from_1970_whatever_its_zone_and_form(tmp_path: Path, time: str) -> None:
    (order,) = read(tmp_path, f"{time},A,buy,1,1,X\n").orders
    assert order.at_s == 1_741_944_600


@pytest.mark.parametrize("time", ["09:30:00", "9:30", "9:30:00.000", "10:30:00+01:00", "09:30 UTC"])
def test_a_clock_counts_from_midnight(tmp_path: Path, time: str) -> None:
    (order,) = read(tmp_path, f"{time},A,buy,1,1,X\n").orders
    assert order.at_s == 34_200


def test_orders_past_midnight_come_later(tmp_path: Path) -> None:
    text = "2026-03-02 23:59:59,A,buy,1,1,X\n2026-03-03 00:00:01,A,buy,1,1,X\n"
    first, second = read(tmp_path, text).orders
    assert second.at_s - first.at_s == 2


def test_clocks_and_dates_are_not_mixed(tmp_path: Path) -> None:
    """`--speed` would wait fifty years between them."""
    found = read(tmp_path, GOOD + "2026-03-02 09:30:01,A,buy,1,1,X\n" + GOOD)
    (refused,) = found.refused
    assert str(refused) == "line 2: time has a date, and the orders before it have none"


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("1.08465", "1.08465"),
        ("149.327", "149.327"),
        ("0.00000001", "0.00000001"),
        ("1e-8", "0.00000001"),
        ("2.5E+3", "2500"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+5", "5"),
        ('"1,250,000.50"', "1250000.50"),
        ("0.100000000000000000000000000001", "0.100000000000000000000000000001"),
        ("9" * 30, "9" * 30),
    ],
)
def test_prices_and_quantities_keep_every_decimal(
    tmp_path: Path, written: str, amount: str
) -> None:
    (order,) = read(tmp_path, f"09:30,A,buy,{written},{written},X\n").orders
    assert order.quantity == order.limit == Decimal(amount)


@given(st.integers(1, 10**29), st.integers(0, 30))
def test_any_number_in_range_is_read_as_it_was_written(digits: int, places: int) -> None:
    number = Decimal(f"{digits}e-{places}")
    assert positive(str(number)) == number
    assert positive(f"{number:f}") == number


@pytest.mark.parametrize(
    "account",
    ["#1", "Müller & Söhne", "東京", "a.b.*.>", "=1+1", "a/b c", "-", "'x'", "\u202e", "\x1b[2J"],
)
def test_an_account_is_any_text(tmp_path: Path, account: str) -> None:
    text = f"account,time,side,quantity,price,symbol\n{account},09:30,buy,1,1,X\n"
    (order,) = read(tmp_path, text).orders
    assert order.account == account


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
        (
            "2026-03-02 09:30 Nowhere/City,A,buy,10,1.00,X",
            "has an unknown time zone 'Nowhere/City'",
        ),
        ("09:30 Europe/Zurich,A,buy,10,1.00,X", "needs a date, because Europe/Zurich"),
        ("03/02/2026 09:30,A,buy,10,1.00,X", "is neither"),
        (f"{'9' * 5000},A,buy,10,1.00,X", "is neither"),
        ("09:30,A,buy,ten,1.00,X", "quantity 'ten' is not a number"),
        ("09:30,A,buy,0,1.00,X", "quantity '0' must be above 0"),
        ("09:30,A,buy,-5,1.00,X", "quantity '-5' must be above 0"),
        ("09:30,A,buy,1_000,1.00,X", "quantity '1_000' is not a number"),
        ('09:30,A,buy,"1,5",1.00,X', "quantity '1,5' is not a number"),
        (f"09:30,A,buy,{'9' * 5000},1.00,X", "more than 30 digits before or after its point"),
        ("09:30,A,buy,10,cheap,X", "price 'cheap' is not a number"),
        ("09:30,A,buy,10,0.000,X", "price '0.000' must be above 0"),
        ("09:30,A,buy,10,-1,X", "price '-1' must be above 0"),
        ("09:30,A,buy,10,nan,X", "price 'nan' is not a number"),
        ("09:30,A,buy,10,1e99,X", "price '1e99' has more than 30 digits"),
        ("09:30,A,buy,10,1e-31,X", "price '1e-31' has more than 30 digits"),
        ("09:30,A,buy,10,1e999999999,X", "price '1e999999999' is not a number"),
        ("09:30,A,buy,10,1.00,", "symbol is empty"),
        ('09:30,"A,buy,10,1.00,X', "no CSV row (unexpected end of data)"),
        (b"09:30,A\xff,buy,10,1.00,X", "is not UTF-8: save the file with that encoding"),
        (b"09:30,A,buy,10,1.00,X\x07", "symbol 'X\\x07' has characters that can't be printed"),
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
