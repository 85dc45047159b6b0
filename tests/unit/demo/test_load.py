"""The steady caller on the in-memory bus: its pace, its end, and what it tells."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import cast

import pytest
from aegis_demo import serve
from aegis_demo.accounts import accounts
from aegis_demo.load import (
    Tally,
    endless,
    keep_trading,
    trade_until,
    until_open,
)
from aegis_demo.market import GENERATED
from aegis_demo.orders import account_names
from aegis_demo.pricing import pricing
from aegis_sdk import Aegis
from aegis_sdk.testing import harness
from structlog.testing import capture_logs

from tests.unit.sdk.support import until


async def test_it_trades_until_it_is_stopped_and_every_order_has_an_answer() -> None:
    tally, stopping = Tally(), asyncio.Event()
    async with harness(accounts(GENERATED), resources=account_names()) as aegis:
        await aegis.serve(pricing(GENERATED))
        trading = asyncio.create_task(trade_until(stopping, cast(Aegis, aegis), tally, rate=500.0))
        await until(lambda: tally.outcomes.total() >= 50)
        stopping.set()
        await trading
        told = tally.take()
    assert told["errors"] == 0
    assert told["executed"] + told["rejected"] == tally.outcomes.total() >= 50
    assert told["longest_s"] > 0


async def test_it_waits_for_services_that_start_later() -> None:
    """No order fails because a caller was up first."""
    async with harness(accounts(GENERATED), resources=account_names()) as aegis:
        with capture_logs() as logs:
            trading = asyncio.create_task(
                keep_trading(cast(Aegis, aegis), rate=500.0, tell_every_s=0.01)
            )
            await until(lambda: any(line["event"] == "load_waits" for line in logs))
            await aegis.serve(pricing(GENERATED))
            await until(lambda: any(line.get("executed") for line in logs))
            os.kill(os.getpid(), signal.SIGTERM)
            await trading
    [ended] = [line for line in logs if line["event"] == "load_ended"]
    assert ended["executed"] > 0
    assert ended["errors"] == 0


async def test_it_ends_while_it_waits() -> None:
    stopping = asyncio.Event()
    async with harness(pricing(GENERATED)) as aegis:
        with capture_logs() as logs:
            waiting = asyncio.create_task(until_open(stopping, cast(Aegis, aegis)))
            await until(lambda: any(line["event"] == "load_waits" for line in logs))
        stopping.set()
        async with asyncio.timeout(5):
            await waiting


async def test_an_order_that_nobody_serves_is_an_error_and_does_not_end_it() -> None:
    tally, stopping = Tally(), asyncio.Event()
    async with harness(pricing(GENERATED)) as aegis:
        trading = asyncio.create_task(trade_until(stopping, cast(Aegis, aegis), tally, rate=500.0))
        await until(lambda: tally.outcomes["errors"] >= 5)
        stopping.set()
        await trading
    assert tally.outcomes.keys() == {"errors"}


def test_the_longest_wait_is_told_once() -> None:
    tally = Tally()
    tally.add("executed", 0.5)
    assert tally.take()["longest_s"] == 0.5
    assert tally.take() == {"executed": 1, "rejected": 0, "errors": 0, "longest_s": 0.0}


def test_a_day_is_followed_by_another_one() -> None:
    orders = endless()
    days = [[next(orders) for _ in range(1_000)] for _ in range(2)]
    assert days[0] != days[1]


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["accounts", "pricing"]])
def test_a_wrong_role_is_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.main(arguments) == 2
    assert "accounts|pricing|load" in capsys.readouterr().err
