"""The gateway: sends a session's orders, as their callers would, and reports every answer.

    python -m aegis_demo.gateway URL ORDERS_FILE IN_FLIGHT SPEED

An order without a limit asks `pricing` first (a group request: any instance), then it is booked on
its account (a targeted request). Orders of one account go out one after the other, in their order;
different accounts side by side. The gateway knows nothing of failovers: it waits for its answers.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Final

import aegis_sdk
from aegis_sdk import Aegis
from aegis_sdk.errors import AegisError, NotExecuted, OutcomeUnknown, Rejected, Unavailable

from aegis_demo import child
from aegis_demo.contracts import (
    BOOK,
    QUOTE,
    STATEMENT,
    Booked,
    Fill,
    QuoteRequest,
    StatementRequest,
)
from aegis_demo.events import Finished, Limit, Ready, Stated, Traded
from aegis_demo.orders import Order, Side, accounts_of, read_orders

REQUEST_TIMEOUT_S: Final = 20.0
"""A failover by heartbeats alone takes a second or two; this is far above, for slow machines."""
GIVE_UP_S: Final = 60.0
_RETRY_PAUSE_S: Final = 0.05


class Allowance:
    """How many orders may go out by now; the demo raises it through standard input."""

    def __init__(self) -> None:
        self._limit = 0
        self._raised = asyncio.Event()
        self._buffer = b""
        asyncio.get_running_loop().add_reader(0, self._read)

    async def wait(self, number: int) -> None:
        """Return when order `number`, from 1, may go out."""
        while number > self._limit:
            self._raised.clear()
            await self._raised.wait()

    def _read(self) -> None:
        data = os.read(0, 4096)
        if not data:  # the demo is gone
            asyncio.get_running_loop().remove_reader(0)
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._limit = max(self._limit, Limit.model_validate_json(line).orders)
        self._raised.set()


class Pace:
    """Holds orders back until their time, `speed` times faster than they were written."""

    def __init__(self, speed: float, first_at_s: float) -> None:
        self._speed = speed
        self._first_at_s = first_at_s
        self._begun_s = time.monotonic()

    async def wait(self, order: Order) -> None:
        if not self._speed:
            return
        due_s = self._begun_s + (order.at_s - self._first_at_s) / self._speed
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


class Gateway:
    """Trades orders over one connection."""

    def __init__(self, aegis: Aegis, events: child.EventPipe, *, in_flight: int) -> None:
        self._aegis = aegis
        self._events = events
        self._slots = asyncio.Semaphore(in_flight)
        self._in_flight = 0
        self._tails: dict[str, asyncio.Event] = {}
        """By account: set when its newest order has its answer."""
        self._last_done_s = 0.0
        self._held_s = 0.0

    async def trade_all(self, orders: list[Order], allowance: Allowance, speed: float) -> Finished:
        """Send all orders and wait for their answers."""
        await allowance.wait(1)
        begun_s = time.monotonic()
        pace = Pace(speed, orders[0].at_s)
        async with asyncio.TaskGroup() as tasks:
            for number, order in enumerate(orders, start=1):
                await self._hold(allowance, number)
                await pace.wait(order)
                await self._slots.acquire()
                self._in_flight += 1
                before = self._tails.get(order.account)
                done = self._tails[order.account] = asyncio.Event()
                tasks.create_task(self._trade(order, before, done))
        session_s = time.monotonic() - begun_s - self._held_s
        return Finished(session_s=session_s, held_s=self._held_s)

    async def _hold(self, allowance: Allowance, number: int) -> None:
        """Wait for the allowance; the time without any order in flight counts as held back."""
        asked_s = time.monotonic()
        await allowance.wait(number)
        if not self._in_flight:
            self._held_s += time.monotonic() - max(asked_s, self._last_done_s)

    async def _trade(self, order: Order, before: asyncio.Event | None, done: asyncio.Event) -> None:
        begun_s = time.monotonic()
        try:
            price, quote_s = await self._price(order)
            if before is not None:
                await before.wait()
            answer = await self._book(order, price, quote_s)
        except AegisError as error:  # pricing is gone, or broken: the order was never booked
            answer = _unpriced(order, error, begun_s)
        self._events.send(answer)
        self._in_flight -= 1
        self._last_done_s = time.monotonic()
        done.set()
        self._slots.release()

    async def _price(self, order: Order) -> tuple[Decimal, float | None]:
        """(price, how long the quote took). A quote has no effect: it is asked again until it is there."""
        if order.limit is not None:
            return order.limit, None
        begun_s = time.monotonic()
        asked = QuoteRequest(symbol=order.symbol, at_s=order.at_s)
        while True:
            try:
                quote = await self._aegis.request(QUOTE, asked, timeout_s=REQUEST_TIMEOUT_S)
                break
            except (NotExecuted, OutcomeUnknown, Unavailable):
                if time.monotonic() - begun_s > GIVE_UP_S:
                    raise
                await asyncio.sleep(_RETRY_PAUSE_S)
        price = quote.ask if order.side is Side.BUY else quote.bid
        return price, time.monotonic() - begun_s

    async def _book(self, order: Order, price: Decimal, quote_s: float | None) -> Traded:
        """Book until there is a definite answer. Only what certainly had no effect is sent again."""
        fill = Fill(
            order_id=order.order_id,
            side=order.side,
            quantity=order.quantity,
            price=price,
            symbol=order.symbol,
        )
        begun_s = time.monotonic()
        attempts = 0
        while True:
            attempts += 1
            request_id, outcome, code = await self._ask(fill, order.account)
            waited_s = time.monotonic() - begun_s
            if outcome != "not_executed" or waited_s > GIVE_UP_S:
                break
            await asyncio.sleep(_RETRY_PAUSE_S)
        return Traded(
            order_id=order.order_id,
            request_id=request_id,
            outcome=outcome,
            code=code,
            started_s=begun_s,
            booking_s=waited_s,
            quote_s=quote_s,
            attempts=attempts,
        )

    async def _ask(self, fill: Fill, account: str) -> tuple[str, str, str]:
        """(request id, outcome, code) of one request."""
        try:
            booked = await self._definite(fill, account)
        except Rejected as refused:
            return str(refused.details.get("request_id", "")), "rejected", refused.code
        except (NotExecuted, Unavailable) as error:
            return "", "not_executed", error.code
        except OutcomeUnknown as error:
            return error.request_id, "unknown", error.code
        except AegisError as error:
            return "", "failed", f"{error.code}: {error}"
        return booked.request_id, "executed", ""

    async def _definite(self, fill: Fill, account: str) -> Booked:
        """A request, and when NATS was out of reach, its outcome asked for again."""
        try:
            return await self._aegis.request(
                BOOK, fill, resource=account, timeout_s=REQUEST_TIMEOUT_S
            )
        except OutcomeUnknown as unknown:
            return await self._aegis.attach(unknown.request_id, BOOK, timeout_s=REQUEST_TIMEOUT_S)

    async def state_all(self, accounts: list[str]) -> None:
        """Ask each account for its closing statement."""
        for account in accounts:
            statement = await self._aegis.request(
                STATEMENT, StatementRequest(), resource=account, timeout_s=REQUEST_TIMEOUT_S
            )
            self._events.send(Stated(**statement.model_dump()))


def _unpriced(order: Order, error: AegisError, begun_s: float) -> Traded:
    return Traded(
        order_id=order.order_id,
        request_id="",
        outcome="failed",
        code=f"no quote: {error.code}: {error}",
        started_s=begun_s,
        booking_s=time.monotonic() - begun_s,
    )


async def main(url: str, orders_file: str, in_flight: str, speed: str) -> None:
    """Trade the orders of a file, ask for the closing statements, and end."""
    events = child.EventPipe()
    orders = read_orders(Path(orders_file))
    allowance = Allowance()
    async with aegis_sdk.connect(url, name="gateway", wait_s=child.CONNECT_WAIT_S) as aegis:
        gateway = Gateway(aegis, events, in_flight=int(in_flight))
        events.send(Ready())
        finished = await gateway.trade_all(orders, allowance, float(speed))
        await gateway.state_all(accounts_of(orders))
        events.send(finished)


if __name__ == "__main__":
    child.run(main(*sys.argv[1:5]))
