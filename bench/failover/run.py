"""Failovers of one kind under a steady load, and many resources of one dead instance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

from bench.bed import Bed, BedError, broker, start_workers
from bench.block import Block, Told
from bench.failover.fleet import Fleet
from bench.failover.gap import Calls, Span, longest, wait_s
from bench.failover.strikes import TAIL_S, Kind, Struck, heal, strike
from bench.failover.trace import Heard, Trace, steps_s, watching
from bench.ledger import Verdict
from bench.options import Options
from bench.runner import say
from bench.systems.api import CallerSetup
from bench.workload import account_names

BATCH_S: Final = 20.0
"""The load comes in blocks of at most this length; a block ends when all its calls have."""
LAST_STRIKE_S: Final = 3.0
"""Nothing strikes in a block's last seconds: each failover ends under load."""
CYCLE_S: Final = 2.5
"""A failover and what follows it take about this long, a handover much less."""
QUIET_S: Final = 0.2
"""Undisturbed load before each strike."""
WITNESS_S: Final = 0.35
"""How long the witness calls one resource (the one that moves, in a handover) without a pause."""
ANSWER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How many failovers, under which load."""

    count: int
    resources: int
    rate_per_s: float


@dataclass(slots=True)
class Failovers:
    """What failovers of one kind did to callers, and what became of all calls."""

    gaps_s: list[float] = field(default_factory=list)
    steps_s: list[dict[str, float]] = field(default_factory=list)
    waits: list[Span] = field(default_factory=list)
    """Of each failover the longest wait's begin and end, in seconds from the strike."""
    verdict: Verdict | None = None

    def add(self, struck: Struck, heard: list[Heard], waited: list[Span]) -> None:
        """Raises: BedError when no call overlapped: then there was no load."""
        steps = steps_s(
            heard,
            struck.window,
            struck=struck.member.name,
            promoted_s=struck.promoted_s,
            waited=waited,
        )
        self.add_steps(struck.began_s, steps, waited)

    def add_steps(self, began_s: float, steps: dict[str, float], waited: list[Span]) -> None:
        """Raises: BedError when no call overlapped: then there was no load."""
        call = longest(waited)
        if call is None:
            raise BedError("no call overlapped a failover: the rate is too low to see it")
        self.gaps_s.append(wait_s(call))
        self.waits.append((call[0] - began_s, call[1] - began_s))
        self.steps_s.append(steps)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A failover of which the load's part is not known before its block ends."""

    struck: Struck
    heard: list[Heard]
    witness: list[Span]


async def run_kind(kind: Kind, plan: Plan, options: Options) -> Failovers:
    """`plan.count` failovers of one kind. Raises: BedError."""
    system_account = kind is not Kind.HEARTBEATS
    async with running(options, plan.resources, callers=2, system_account=system_account) as parts:
        made = _Run(kind, plan, *parts, Random(f"{options.seed}/{kind}"))
        while len(made.found.gaps_s) < plan.count:
            await made.batch()
            last_ms = made.found.gaps_s[-1] * 1e3
            say(f"{kind}: {len(made.found.gaps_s)} of {plan.count}, last gap {last_ms:.1f} ms")
        made.found.verdict = await parts[0].audit()
    return made.found


async def run_many(resources: int, count: int, options: Options) -> Failovers:
    """kill -9 of the active of all `resources`, each called once from the strike on.

    A gap is the time from the strike to the last of these calls' replies. Raises: BedError.
    """
    found = Failovers()
    async with running(options, resources, callers=1) as (bed, fleet, trace):
        for n in range(count):
            block = _each_once(resources, options.seed * 1000 + n)
            await bed.load(block)  # every resource has state, and the caller knows every route
            trace.take()
            calls = asyncio.create_task(bed.load(block))  # runs when the signal is sent
            struck = await strike(Kind.KILL, fleet, "")
            spans = [(struck.began_s, ended_s) for _, ended_s in (await calls).spans]
            found.add(struck, trace.take(), spans)
            say(f"{resources} resources: all served after {found.gaps_s[-1] * 1e3:.0f} ms")
            await heal(Kind.KILL, fleet, struck)
        found.verdict = await bed.audit()
    return found


def _each_once(resources: int, seed: int) -> Block:
    """One call to each resource, all at once."""
    return Block(
        "targeted",
        "closed",
        ANSWER_S,
        in_flight=resources,
        calls_max=resources,
        spread="even",
        seed=seed,
        keep_spans=True,
    )


@asynccontextmanager
async def running(
    options: Options,
    resources: int,
    *,
    callers: int,
    members: int = 2,
    system_account: bool = True,
) -> AsyncIterator[tuple[Bed, Fleet, Trace]]:
    """A fleet, its callers, and a watcher of what passes through NATS. Raises: BedError."""
    accounts = account_names(resources)
    settings = options.bed("aegis", accounts, system_account=system_account)
    async with broker(settings) as bed, watching(bed.url, bed.system_url) as trace:
        fleet = Fleet(bed, size=members)
        await fleet.start()
        setups = [CallerSetup(bed.url, n, dict.fromkeys(accounts, 0), []) for n in range(callers)]
        bed.callers, _ = await start_workers(bed, "caller", setups)
        yield bed, fleet, trace


class _Run:
    """One kind's failovers, batch by batch."""

    def __init__(
        self, kind: Kind, plan: Plan, bed: Bed, fleet: Fleet, trace: Trace, rng: Random
    ) -> None:
        self._kind = kind
        self._plan = plan
        self._bed = bed
        self._fleet = fleet
        self._trace = trace
        self._rng = rng
        self.found = Failovers()

    async def batch(self) -> None:
        """One block of load with as many failovers as fit in it. Raises: BedError."""
        missing = self._plan.count - len(self.found.gaps_s)
        block = self._load(min(BATCH_S, LAST_STRIKE_S + missing * CYCLE_S))
        last_strike_s = time.monotonic() + block.duration_s - LAST_STRIKE_S
        loading = asyncio.create_task(self._bed.load(block, self._bed.callers[:1]))
        seen: list[_Seen] = []
        try:
            while len(seen) < missing and time.monotonic() < last_strike_s:
                seen.append(await self._one())
            calls = Calls((await loading).spans)
        finally:
            loading.cancel()
        for each in seen:
            waited = calls.overlapping(each.struck.window) + each.witness
            self.found.add(each.struck, each.heard, waited)

    def _load(self, duration_s: float) -> Block:
        return Block(
            "targeted",
            "open",
            duration_s,
            rate_per_s=self._plan.rate_per_s,
            spread="even",
            seed=self._rng.randrange(1 << 30),
            keep_spans=True,
        )

    async def _one(self) -> _Seen:
        await self._answered()
        resource = self._rng.choice(self._fleet.resources)
        witnessing = self._witness(resource)
        await asyncio.sleep(QUIET_S)
        self._trace.take()
        struck = await strike(self._kind, self._fleet, resource)
        await asyncio.sleep(TAIL_S)
        heard = self._trace.take()
        witness = Calls((await witnessing).spans)
        await heal(self._kind, self._fleet, struck)
        return _Seen(struck, heard, witness.overlapping(struck.window))

    async def _answered(self) -> None:
        """No call still waits since an earlier failover: a resource answers its requests in order, and
        each has answered a new one.
        """
        every = _each_once(len(self._fleet.resources), self._rng.randrange(1 << 30))
        await self._bed.load(every, self._bed.callers[1:])

    def _witness(self, resource: str) -> asyncio.Task[Told]:
        """Calls made at a rate may miss a short gap, and do miss most of a single resource's: one that
        calls without a pause is always waiting when the strike comes."""
        block = Block(
            "targeted",
            "closed",
            WITNESS_S,
            account=resource,
            seed=self._rng.randrange(1 << 30),
            keep_spans=True,
        )
        return asyncio.create_task(self._bed.load(block, self._bed.callers[1:]))
