"""The independent ledger: hand-made cases with sums done on paper."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from aegis_demo import ledger
from aegis_demo.ledger import Ledger, Verdict
from aegis_demo.market import GENERATED
from aegis_demo.orders import Order, Side, generate

CASH = GENERATED.opening_cash
POSITION_MAX = GENERATED.position_max


def keep_ledger(orders: Iterable[Order]) -> Ledger:
    return ledger.keep_ledger(orders, GENERATED)


def order(
    number: int,
    side: Side,
    quantity: int | Decimal | str,
    limit: int | Decimal | str | None,
    *,
    account: str = "A",
    symbol: str = "X",
) -> Order:
    price = None if limit is None else Decimal(limit)
    return Order(f"O-{number}", 36_000.0, account, side, Decimal(quantity), price, symbol)


def test_buys_take_cash_and_sells_give_it_back() -> None:
    books = keep_ledger([order(1, Side.BUY, 10, 500), order(2, Side.SELL, 4, 700)])
    account = books.accounts["A"]
    assert account.cash == CASH - 5_000 + 2_800
    assert account.positions == {"X": 6}
    assert account.bookings == 2


def test_an_order_without_a_limit_has_the_markets_price() -> None:
    bid, _ = GENERATED.price_of("X", 36_000.0)
    books = keep_ledger([order(1, Side.SELL, 3, None)])
    assert books.accounts["A"].cash == CASH + 3 * bid


def test_a_buy_beyond_the_cash_is_rejected_and_changes_nothing() -> None:
    books = keep_ledger([order(1, Side.BUY, 1, CASH + 1)])
    assert books.verdicts["O-1"] is Verdict.INSUFFICIENT_CASH
    assert books.accounts["A"].cash == CASH
    assert books.accounts["A"].bookings == 0


def test_all_of_the_cash_can_be_spent() -> None:
    books = keep_ledger([order(1, Side.BUY, 1, CASH)])
    assert books.verdicts["O-1"] is Verdict.EXECUTED
    assert books.accounts["A"].cash == 0


def test_the_position_limit_holds_long_and_short() -> None:
    over = POSITION_MAX + 1
    books = keep_ledger([order(1, Side.BUY, over, 1), order(2, Side.SELL, over, 1)])
    assert set(books.verdicts.values()) == {Verdict.POSITION_LIMIT}


def test_the_position_limit_itself_is_allowed() -> None:
    books = keep_ledger([order(1, Side.SELL, POSITION_MAX, 1)])
    assert books.verdicts["O-1"] is Verdict.EXECUTED


def test_sums_are_exact_whatever_the_decimals() -> None:
    """28 digits, where Python's own operators round, are not enough."""
    books = keep_ledger(
        [
            order(1, Side.BUY, "0.000000000000000001", "0.00000000000000000001"),
            order(2, Side.SELL, "0.001", "1.08465"),
        ]
    )
    cash = "150000.00108464999999999999999999999999999999"
    assert books.accounts["A"].cash == Decimal(cash)
    assert books.accounts["A"].positions == {"X": Decimal("-0.000999999999999999")}


def test_accounts_and_symbols_are_kept_apart() -> None:
    books = keep_ledger(
        [
            order(1, Side.BUY, 1, 100),
            order(2, Side.BUY, 2, 100, symbol="Y"),
            order(3, Side.BUY, 3, 100, account="B"),
        ]
    )
    assert books.accounts["A"].positions == {"X": 1, "Y": 2}
    assert books.accounts["B"].positions == {"X": 3}


def test_a_generated_day_has_both_kinds_of_rejections() -> None:
    """Rejections are part of what the demo reconciles; a day without any would not show it."""
    verdicts = list(keep_ledger(generate(5_000, seed=1)).verdicts.values())
    assert verdicts.count(Verdict.INSUFFICIENT_CASH) > 50
    assert verdicts.count(Verdict.POSITION_LIMIT) > 10
    assert verdicts.count(Verdict.EXECUTED) > 3_500
