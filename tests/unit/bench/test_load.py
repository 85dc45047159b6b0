"""A caller counts every call, and an open loop counts latency from the intended send time."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from bench.block import Block, Told
from bench.caller import Caller
from bench.ledger import ORDERS, Tally, judge
from bench.model import Book, Fill, Lookup, Op, Position
from bench.systems.api import Refused
from bench.workload import arrivals


class BookClient:
    """A client without a network: a book, and what goes wrong on purpose."""

    def __init__(self) -> None:
        self.book = Book()
        self.calls = 0
        self.refuse_every = 0
        self.break_every = 0
        self.answer_wrongly_every = 0
        self.gate: asyncio.Event | None = None

    async def call(self, op: Op, request: Fill | Lookup) -> Position:
        self.calls += 1
        number = self.calls
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if _is_turn(number, self.refuse_every):
            raise Refused("not now")
        if _is_turn(number, self.break_every):
            raise TimeoutError("no reply")
        reply = self._serve(op, request)
        wrong = _is_turn(number, self.answer_wrongly_every)
        return reply.model_copy(update={"id": -1}) if wrong else reply

    def _serve(self, op: Op, request: Fill | Lookup) -> Position:
        if isinstance(request, Lookup):
            return self.book.query(request)
        return self.book.order(request) if op is Op.ORDER else self.book.fill(request)

    def effects(self) -> dict[str, Tally]:
        made = {a: Tally(p.count, p.quantity, p.digest) for a, p in self.book.positions.items()}
        orders = self.book.orders
        return made | {ORDERS: Tally(orders.count, orders.quantity, orders.digest)}


def _is_turn(number: int, every: int) -> bool:
    return bool(every) and number % every == 0


async def run(client: BookClient, block: Block) -> Told:
    return await Caller(client, ["A", "B", "C"], index=0).run(block)


CLOSED = Block("mix", "closed", 5.0, in_flight=4, calls_max=300)


async def test_a_closed_loop_makes_its_calls_and_accounts_for_each() -> None:
    client = BookClient()

    told = await run(client, CLOSED)

    assert told.ledger.sent == told.ledger.ok == client.calls == told.latencies.count
    assert told.ledger.sent >= 300
    assert judge(told.ledger, client.effects()).clean


async def test_refused_calls_are_counted_and_leave_the_run_clean() -> None:
    client = BookClient()
    client.refuse_every = 5

    told = await run(client, CLOSED)

    assert told.ledger.refused > 0
    assert judge(told.ledger, client.effects()).clean
    assert told.errors == {"Refused: not now": told.ledger.refused}


async def test_a_call_without_an_outcome_makes_the_run_fail() -> None:
    client = BookClient()
    client.break_every = 50

    told = await run(client, CLOSED)

    verdict = judge(told.ledger, client.effects())
    assert verdict.unknown == client.calls // 50
    assert verdict.unaccounted == 0
    assert not verdict.clean


async def test_a_reply_to_something_else_makes_the_run_fail() -> None:
    client = BookClient()
    client.answer_wrongly_every = 50

    told = await run(client, CLOSED)

    assert told.ledger.wrong_replies > 0
    assert not judge(told.ledger, client.effects()).clean


async def test_an_open_loop_counts_a_stall_from_the_intended_send_times() -> None:
    """No coordinated omission: while the system stalls, later calls are begun and wait as well."""
    client = BookClient()
    client.gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, client.gate.set)

    told = await run(client, Block("mix", "open", 0.3, rate_per_s=1000))

    assert told.ledger.ok == told.ledger.sent > 100
    assert told.latencies.max_ms > 250
    assert 75 < told.latencies.percentile_ms(50) < told.latencies.max_ms
    assert judge(told.ledger, client.effects()).clean


async def test_drawing_the_times_of_an_open_loop_makes_none_of_its_calls_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slowly(*given: Any, **named: Any) -> list[float]:
        time.sleep(0.2)
        return arrivals(*given, **named)

    monkeypatch.setattr("bench.caller.arrivals", slowly)

    told = await run(BookClient(), Block("mix", "open", 0.3, rate_per_s=300))

    assert told.ledger.ok > 30
    assert told.late.percentile_ms(99) < 100
    assert told.elapsed_s < 0.45


async def test_request_ids_go_on_from_block_to_block() -> None:
    client = BookClient()
    caller = Caller(client, ["A"], index=0)
    block = Block("targeted", "closed", 5.0, calls_max=10)

    first, second = await caller.run(block), await caller.run(block)
    first.merge(second)

    assert judge(first.ledger, client.effects()).clean
    assert client.book.positions["A"].count == first.ledger.sent == 20


async def test_what_a_caller_tells_travels_as_json() -> None:
    told = await run(BookClient(), CLOSED)

    again = Told.from_dict(json.loads(json.dumps(told.as_dict())))

    assert again.latencies.summary_ms() == told.latencies.summary_ms()
    assert again.ledger == told.ledger


def test_a_block_is_shared_out_to_callers_with_seeds_of_their_own() -> None:
    block = Block("mix", "open", 1.0, in_flight=64, rate_per_s=1000, seed=3)

    shares = [block.share(4, n) for n in range(4)]

    assert [share.rate_per_s for share in shares] == [250.0] * 4
    assert [share.in_flight for share in shares] == [16] * 4
    assert len({share.seed for share in shares}) == 4
