"""Runs a block of load against one client, inside a caller process, and keeps the ledger of it."""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections.abc import Sequence

from bench.block import Block, Told
from bench.latencies import Latencies
from bench.ledger import ORDERS, Ledger
from bench.model import Fill, Lookup, Op
from bench.pacing import alarm
from bench.systems.api import Client, Refused
from bench.workload import MIXES, Traffic, arrivals

WAITING_MAX = 20_000
"""Calls of an open loop that wait for their reply; more are shed, and the block says so."""
ERRORS_KEPT = 8


class Load:
    """One block: traffic, client, what is known of each call."""

    def __init__(self, client: Client, traffic: Traffic, block: Block) -> None:
        self._client = client
        self._traffic = traffic
        self._block = block
        self._latencies_s = array("d")
        self._late_s = array("d")
        self._ledger = Ledger()
        self._errors: dict[str, int] = {}
        self._shed = 0
        self._spans: list[tuple[float, float]] = []

    async def run(self) -> Told:
        """Returns when every call that was begun has ended."""
        is_open = self._block.mode == "open"
        # Drawn before the clock starts: 12,000 of them take 8 ms, by which the first calls would be late.
        offsets = self._offsets() if is_open else []
        began = time.monotonic()
        await (self._open(began, offsets) if is_open else self._closed(began))
        return Told(
            latencies=Latencies.of(self._latencies_s),
            late=Latencies.of(self._late_s),
            ledger=self._ledger,
            elapsed_s=time.monotonic() - began,
            shed=self._shed,
            errors=self._errors,
            spans=self._spans,
        )

    async def _closed(self, began: float) -> None:
        deadline = began + self._block.duration_s

        async def one_after_the_other() -> None:
            while time.monotonic() < deadline and self._ledger.sent < self._block.calls_max:
                op, request = self._traffic.next()
                await self._call(op, request, time.monotonic())

        async with asyncio.TaskGroup() as group:
            for _ in range(self._block.in_flight):
                group.create_task(one_after_the_other())

    def _offsets(self) -> list[float]:
        block = self._block
        offsets = arrivals(
            random.Random(block.seed),
            rate_per_s=block.rate_per_s,
            duration_s=block.duration_s,
            shape=block.shape,
        )
        return offsets[: block.calls_max]

    async def _open(self, began: float, offsets: Sequence[float]) -> None:
        waiting: set[asyncio.Task[None]] = set()
        with alarm() as clock:
            for offset in offsets:
                intended = began + offset
                await clock.until(intended)
                if len(waiting) >= WAITING_MAX:
                    self._shed += 1
                    await asyncio.sleep(0)
                    continue
                op, request = self._traffic.next()
                task = asyncio.create_task(self._call(op, request, intended))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
        if waiting:
            await asyncio.wait(waiting)

    async def _call(self, op: Op, request: Fill | Lookup, intended: float) -> None:
        self._ledger.sent += 1
        if self._block.mode == "open":
            self._late_s.append(time.monotonic() - intended)
        try:
            reply = await self._client.call(op, request)
        except Refused as error:
            self._ledger.refused += 1
            return self._keep(error)
        except Exception as error:  # whatever it was, the outcome is unknown: the ledger says so
            self._count_unknown(op, request)
            return self._keep(error)
        ended = time.monotonic()
        self._latencies_s.append(ended - intended)
        if self._block.keep_spans:
            self._spans.append((intended, ended))
        return self._count_done(op, request, good=reply.id == request.id)

    def _count_unknown(self, op: Op, request: Fill | Lookup) -> None:
        if isinstance(request, Lookup):
            self._ledger.unknown_reads += 1
        else:
            self._ledger.add_unknown(ORDERS if op is Op.ORDER else request.account)

    def _count_done(self, op: Op, request: Fill | Lookup, *, good: bool) -> None:
        if not good:
            self._ledger.wrong_replies += 1
            return
        self._ledger.ok += 1
        if isinstance(request, Fill):
            self._ledger.add_done(ORDERS if op is Op.ORDER else request.account, request)

    def _keep(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"[:200]
        if text in self._errors or len(self._errors) < ERRORS_KEPT:
            self._errors[text] = self._errors.get(text, 0) + 1


class Caller:
    """A caller process's state between blocks: request ids are never used twice."""

    def __init__(self, client: Client, accounts: list[str], index: int) -> None:
        self._client = client
        self._accounts = accounts
        self._index = index
        self._made = 0

    async def run(self, block: Block) -> Told:
        traffic = Traffic(
            random.Random(block.seed),
            [block.account] if block.account else self._accounts,
            MIXES[block.mix],
            spread=block.spread,
            caller_index=self._index,
            first_id=self._made,
            note_bytes=block.note_bytes,
        )
        try:
            return await Load(self._client, traffic, block).run()
        finally:
            self._made = traffic.made

    async def audit(self) -> dict[str, list[int]]:
        """Count, sum and digest of every account, as the system answers a query."""
        found = {}
        for account in self._accounts:
            self._made += 1
            position = await self._client.call(Op.QUERY, Lookup(id=self._made, account=account))
            found[account] = [position.count, position.quantity, position.digest]
        return found
