"""The generated day: the same for the same seed, and shaped like a day."""

from __future__ import annotations

import itertools
from decimal import Decimal
from pathlib import Path

import pytest
from aegis_demo.market import CLOSE_S, GENERATED, OPEN_S, SYMBOLS, Market
from aegis_demo.orders import (
    Order,
    Side,
    account_names,
    accounts_of,
    generate,
    newcomer_in,
    price_for,
    read_orders,
    write_orders,
)

HALF_HOUR_S = 1_800.0


def test_the_same_seed_makes_the_same_day() -> None:
    assert generate(500, seed=7) == generate(500, seed=7)


def test_another_seed_makes_another_day() -> None:
    assert generate(500, seed=7) != generate(500, seed=8)


def test_a_day_is_the_same_on_every_machine() -> None:
    """A changed generator would make an old seed tell another story."""
    assert generate(3, seed=1)[0] == Order(
        "ORD-000001", 35_046.083, "ACC-04", Side.SELL, Decimal(160), Decimal("289.76"), "JPM"
    )


@pytest.mark.parametrize("count", [1, 2, 41, 1_000])
def test_the_day_has_as_many_orders_as_asked_for_each_with_its_own_id(count: int) -> None:
    orders = generate(count, seed=3)
    assert len({order.order_id for order in orders}) == len(orders) == count


def test_orders_come_by_time_within_the_hours_of_the_market() -> None:
    times = [order.at_s for order in generate(2_000, seed=5)]
    assert times == sorted(times)
    assert times[0] >= OPEN_S
    assert times[-1] <= CLOSE_S


def test_most_of_the_day_is_around_open_and_close() -> None:
    orders = generate(5_000, seed=5)
    rush = [
        order
        for order in orders
        if order.at_s < OPEN_S + HALF_HOUR_S or order.at_s > CLOSE_S - HALF_HOUR_S
    ]
    assert len(rush) > 0.6 * len(orders)


def test_orders_come_in_bursts() -> None:
    """Half of all orders follow the one before within a tenth of a second."""
    times = [order.at_s for order in generate(2_000, seed=5)]
    close = sum(later - earlier < 0.1 for earlier, later in itertools.pairwise(times))
    assert close > len(times) / 2


def test_every_account_and_symbol_trades_with_and_without_limits() -> None:
    orders = generate(2_000, seed=5)
    assert accounts_of(orders) == account_names()
    assert {order.symbol for order in orders} == set(SYMBOLS)
    assert {order.limit is None for order in orders} == {True, False}


def test_a_price_depends_on_symbol_and_time_alone() -> None:
    price_of = GENERATED.price_of
    assert price_of("AAPL", 36_000) == price_of("AAPL", 36_059.9)
    assert price_of("AAPL", 36_000) != price_of("AAPL", 36_060)
    assert price_of("AAPL", 36_000) != price_of("MSFT", 36_000)


def test_a_buyer_pays_the_ask_and_a_seller_gets_the_bid() -> None:
    bid, ask = GENERATED.price_of("AAPL", 36_000)
    buy = Order("1", 36_000, "A", Side.BUY, Decimal(1), None, "AAPL")
    sell = Order("2", 36_000, "A", Side.SELL, Decimal(1), None, "AAPL")
    assert 0 < bid < ask
    assert (price_for(buy, GENERATED), price_for(sell, GENERATED)) == (ask, bid)


@pytest.mark.parametrize(
    "reference", ["1.08465", "149.327", "0.00001234", "0.00000001", "64000", "1E+3"]
)
def test_a_price_stays_near_its_reference_and_has_its_decimals(reference: str) -> None:
    """A quote of 137.50 for EUR/USD would make no sense."""
    near = Decimal(reference)
    market = Market(opening_cash=near, position_max=near, references={"X": near})
    for minute in range(100):
        bid, ask = market.price_of("X", minute * 60.0)
        assert 0 < bid < ask
        tick = Decimal(1).scaleb(min(int(near.as_tuple().exponent), 0))
        assert abs(ask - near) <= near / 50 + tick
        assert ask % tick == bid % tick == 0


def test_the_gateway_reads_what_was_written(tmp_path: Path) -> None:
    orders = generate(50, seed=2)
    write_orders(tmp_path / "orders.jsonl", orders)
    assert read_orders(tmp_path / "orders.jsonl") == orders


@pytest.mark.parametrize("count", [1, 2, 3, 400])
def test_a_newcomer_trades_from_the_middle_on(count: int) -> None:
    before = generate(count, seed=1)
    newcomer = accounts_of(before)[-1]
    after = newcomer_in(before)
    assert [order.order_id for order in after] == [order.order_id for order in before]
    if len(accounts_of(before)) > 1:
        assert newcomer not in {order.account for order in after[: count // 2]}
    assert after[count // 2 :] == before[count // 2 :]
