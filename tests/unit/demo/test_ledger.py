"""The independent ledger: hand-made cases with sums done on paper."""

from __future__ import annotations

from aegis_control.demo.ledger import Verdict, keep_ledger
from aegis_control.demo.market import OPENING_CASH_CENTS, POSITION_SHARES_MAX, price_of
from aegis_control.demo.orders import Order, Side, generate


def order(
    number: int,
    side: Side,
    quantity: int,
    limit_cents: int | None,
    *,
    account: str = "A",
    symbol: str = "X",
) -> Order:
    return Order(f"O-{number}", 36_000.0, account, side, quantity, limit_cents, symbol)


def test_buys_take_cash_and_sells_give_it_back() -> None:
    ledger = keep_ledger([order(1, Side.BUY, 10, 500), order(2, Side.SELL, 4, 700)])
    account = ledger.accounts["A"]
    assert account.cash_cents == OPENING_CASH_CENTS - 5_000 + 2_800
    assert account.positions == {"X": 6}
    assert account.bookings == 2


def test_an_order_without_a_limit_has_the_markets_price() -> None:
    bid, _ = price_of("X", 36_000.0)
    ledger = keep_ledger([order(1, Side.SELL, 3, None)])
    assert ledger.accounts["A"].cash_cents == OPENING_CASH_CENTS + 3 * bid


def test_a_buy_beyond_the_cash_is_rejected_and_changes_nothing() -> None:
    ledger = keep_ledger([order(1, Side.BUY, 1, OPENING_CASH_CENTS + 1)])
    assert ledger.verdicts["O-1"] is Verdict.INSUFFICIENT_CASH
    assert ledger.accounts["A"].cash_cents == OPENING_CASH_CENTS
    assert ledger.accounts["A"].bookings == 0


def test_all_of_the_cash_can_be_spent() -> None:
    ledger = keep_ledger([order(1, Side.BUY, 1, OPENING_CASH_CENTS)])
    assert ledger.verdicts["O-1"] is Verdict.EXECUTED
    assert ledger.accounts["A"].cash_cents == 0


def test_the_position_limit_holds_long_and_short() -> None:
    over = POSITION_SHARES_MAX + 1
    ledger = keep_ledger([order(1, Side.BUY, over, 1), order(2, Side.SELL, over, 1)])
    assert set(ledger.verdicts.values()) == {Verdict.POSITION_LIMIT}


def test_the_position_limit_itself_is_allowed() -> None:
    ledger = keep_ledger([order(1, Side.SELL, POSITION_SHARES_MAX, 1)])
    assert ledger.verdicts["O-1"] is Verdict.EXECUTED


def test_accounts_and_symbols_are_kept_apart() -> None:
    ledger = keep_ledger(
        [
            order(1, Side.BUY, 1, 100),
            order(2, Side.BUY, 2, 100, symbol="Y"),
            order(3, Side.BUY, 3, 100, account="B"),
        ]
    )
    assert ledger.accounts["A"].positions == {"X": 1, "Y": 2}
    assert ledger.accounts["B"].positions == {"X": 3}


def test_a_generated_day_has_both_kinds_of_rejections() -> None:
    """Rejections are part of what the demo reconciles; a day without any would not show it."""
    verdicts = list(keep_ledger(generate(5_000, seed=1)).verdicts.values())
    assert verdicts.count(Verdict.INSUFFICIENT_CASH) > 50
    assert verdicts.count(Verdict.POSITION_LIMIT) > 10
    assert verdicts.count(Verdict.EXECUTED) > 3_500
