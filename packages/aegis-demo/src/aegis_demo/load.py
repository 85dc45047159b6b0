"""A caller that never ends: prices and books orders at a steady, gentle rate, and says how it goes.

It knows nothing of failovers: it waits for its answers. Orders go out on time whatever the answers do, up
to IN_FLIGHT_MAX; SIGTERM stops new ones and waits for the answers of the others.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import structlog
from aegis_sdk import Aegis
from aegis_sdk.errors import AegisError, Rejected

from aegis_demo.contracts import (
    BOOK,
    QUOTE,
    STATEMENT,
    Fill,
    QuoteRequest,
    StatementRequest,
)
from aegis_demo.market import OPEN_S, SYMBOLS
from aegis_demo.orders import Order, Side, account_names, generate

TIMEOUT_S: Final = 20.0
"""A failover by heartbeats alone takes a second or two, one of NATS 5 s; this is far above."""
IN_FLIGHT_MAX: Final = 256
DAY_ORDERS: Final = 1_000
LOOK_EVERY_S: Final = 0.2
LOOK_TIMEOUT_S: Final = 2.0
TELL_EVERY_S: Final = 5.0
DRAIN_TIMEOUT_S: Final = 8.0
"""Below the ten seconds after which an engine kills what it asked to stop."""


@dataclass(slots=True)
class Tally:
    """What became of the orders since the start, and the longest wait since it was last told."""

    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0

    def add(self, outcome: str, waited_s: float) -> None:
        self.outcomes[outcome] += 1
        self.longest_s = max(self.longest_s, waited_s)

    def take(self) -> dict[str, float]:
        """What to tell; the longest wait begins anew."""
        longest_s, self.longest_s = self.longest_s, 0.0
        told = {outcome: self.outcomes[outcome] for outcome in ("executed", "rejected", "errors")}
        return told | {"longest_s": round(longest_s, 4)}


async def keep_trading(aegis: Aegis, *, rate: float, tell_every_s: float = TELL_EVERY_S) -> None:
    """Trade `rate` orders a second until SIGTERM or SIGINT; returns when the last has its answer."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    tally = Tally()
    teller = asyncio.create_task(_tell(tally, tell_every_s))
    await until_open(stopping, aegis)
    await trade_until(stopping, aegis, tally, rate)
    teller.cancel()
    _log().info("load_ended", **tally.take())


async def until_open(stopping: asyncio.Event, aegis: Aegis) -> None:
    """Wait until both services are there: everything of a compose file starts at the same moment."""
    ask = QuoteRequest(symbol=SYMBOLS[0], at_s=OPEN_S)
    while not stopping.is_set():
        try:
            await aegis.request(QUOTE, ask, timeout_s=LOOK_TIMEOUT_S)
            for account in account_names():
                await aegis.request(
                    STATEMENT, StatementRequest(), resource=account, timeout_s=LOOK_TIMEOUT_S
                )
        except AegisError as missing:
            _log().info("load_waits", error_code=missing.code, error=str(missing))
            await _set_within(stopping, LOOK_EVERY_S)
        else:
            return


async def trade_until(stopping: asyncio.Event, aegis: Aegis, tally: Tally, rate: float) -> None:
    """Make orders until `stopping`, then wait for the answers of those that are open."""
    open_orders: set[asyncio.Task[None]] = set()
    due_s = time.monotonic()
    for order in endless():
        due_s = max(due_s + 1 / rate, time.monotonic() - 1.0)
        if await _set_within(stopping, due_s - time.monotonic()):
            break
        if len(open_orders) >= IN_FLIGHT_MAX:
            continue  # the answers are late: this order is not made at all
        task = asyncio.create_task(_trade(aegis, order, tally))
        open_orders.add(task)
        task.add_done_callback(open_orders.discard)
    if open_orders:
        await asyncio.wait(open_orders, timeout=DRAIN_TIMEOUT_S)


def endless() -> Iterator[Order]:
    """One generated day after the other."""
    for seed in itertools.count(1):
        yield from generate(DAY_ORDERS, seed)


async def _set_within(event: asyncio.Event, wait_s: float) -> bool:
    try:
        async with asyncio.timeout(max(0.0, wait_s)):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _trade(aegis: Aegis, order: Order, tally: Tally) -> None:
    begun_s = time.monotonic()
    try:
        price = await _price(aegis, order) if order.limit is None else order.limit
        fill = Fill(
            order_id=order.order_id,
            side=order.side,
            quantity=order.quantity,
            price=price,
            symbol=order.symbol,
        )
        await aegis.request(BOOK, fill, resource=order.account, timeout_s=TIMEOUT_S)
        outcome = "executed"
    except Rejected:
        outcome = "rejected"
    except AegisError as error:
        outcome = "errors"
        _log().error("order_failed", error_code=error.code, error=str(error))
    tally.add(outcome, time.monotonic() - begun_s)


async def _price(aegis: Aegis, order: Order) -> Decimal:
    asked = QuoteRequest(symbol=order.symbol, at_s=order.at_s)
    quote = await aegis.request(QUOTE, asked, timeout_s=TIMEOUT_S)
    return quote.ask if order.side is Side.BUY else quote.bid


async def _tell(tally: Tally, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        _log().info("load_progress", **tally.take())


def _log() -> structlog.stdlib.BoundLogger:
    log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("aegis_demo")
    return log
