"""A rolling restart: the oldest instance is drained by SIGTERM and replaced, again and again.

Load is on both routes, and each has its own gap: a resource of the drained instance is served by nobody
for a moment, a group request never has to wait. The window of a restart ends when the new instance has
registered, so that its start counts, too.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from bench.bed import Bed, Process
from bench.block import Block
from bench.failover.fleet import Fleet, Member
from bench.failover.gap import Calls, Span, Window
from bench.failover.run import QUIET_S, Failovers, Plan, running
from bench.failover.strikes import TAIL_S
from bench.failover.trace import Heard, Trace, steps_s
from bench.ledger import ORDERS, judge
from bench.options import Options
from bench.runner import say

MEMBERS: Final = 3
BLOCK_S: Final = 10.0
"""Between two blocks there is no load for some milliseconds: seldom, so that hardly a gap falls there."""
TARGETED: Final = "rolling"
GROUP: Final = "rolling-group"
CALM: Final = "rolling-calm"
"""The longest wait on either route between restarts: what the machine does to callers by itself."""
ENDED: Final = "the drained process has ended"
REGISTERED: Final = "the new instance has registered"


@dataclass(frozen=True, slots=True)
class _Restart:
    """One instance's: when each part was over, and what passed through NATS."""

    member: Member
    began_s: float
    promoted_s: float
    ended_s: float
    registered_s: float
    calm: Window
    heard: Sequence[Heard]

    @property
    def window(self) -> Window:
        return Window(self.began_s, max(self.registered_s, self.promoted_s) + TAIL_S)

    @property
    def own_steps_s(self) -> dict[str, float]:
        return {ENDED: self.ended_s - self.began_s, REGISTERED: self.registered_s - self.began_s}


async def run_rolling(plan: Plan, options: Options) -> dict[str, Failovers]:
    """`plan.count` instances restarted; the gaps of targeted and of group calls, and those without a
    restart. Raises: BedError.
    """
    async with running(options, plan.resources, callers=2, members=MEMBERS) as parts:
        made = _Rolling(plan, *parts, Random(f"{options.seed}/{TARGETED}"))
        await made.run()
        await made.audit()
    return {TARGETED: made.targeted, GROUP: made.group, CALM: made.calm}


class _Rolling:
    """Restarts, one after the other, while blocks of load follow each other on each route."""

    def __init__(self, plan: Plan, bed: Bed, fleet: Fleet, trace: Trace, rng: Random) -> None:
        self._plan = plan
        self._bed = bed
        self._fleet = fleet
        self._trace = trace
        self._rng = rng
        self._gone: list[Member] = []
        self._enough = asyncio.Event()
        self.targeted = Failovers()
        self.group = Failovers()
        self.calm = Failovers()

    async def run(self) -> None:
        """All restarts. Raises: BedError."""
        restarts: list[_Restart] = []
        async with asyncio.TaskGroup() as loads:
            targeted = loads.create_task(self._load("targeted", self._bed.callers[0]))
            group = loads.create_task(self._load("group", self._bed.callers[1]))
            for n in range(self._plan.count):
                restarts.append(await self._restart())
                say(f"rolling: {n + 1} of {self._plan.count}")
            self._enough.set()
        for each in restarts:
            self._add(each, targeted.result(), group.result())

    async def audit(self) -> None:
        """Both routes' calls against the positions and against the requests that the members ran."""
        effects = await self._bed.effects()
        for member in self._gone:
            effects[ORDERS].merge(member.orders)
        effects[ORDERS].merge(await self._fleet.end())
        self.targeted.verdict = judge(self._bed.ledger, effects)

    async def _load(self, mix: Literal["targeted", "group"], caller: Process) -> Calls:
        """Until there were enough restarts."""
        spans: list[Span] = []
        while not self._enough.is_set():
            block = Block(
                mix,
                "open",
                BLOCK_S,
                rate_per_s=self._plan.rate_per_s,
                spread="even",
                seed=self._rng.randrange(1 << 30),
                keep_spans=True,
            )
            spans += (await self._bed.load(block, [caller])).spans
        return Calls(spans)

    async def _restart(self) -> _Restart:
        await asyncio.sleep(QUIET_S)
        oldest = self._fleet.members[0]
        had = list(oldest.active)
        self._trace.take()
        began_s = time.monotonic()
        oldest.process.send(signal.SIGTERM)
        promoted_s = await self._fleet.moved(had, oldest)
        await oldest.drained()
        ended_s = time.monotonic()
        self._fleet.members.remove(oldest)
        self._gone.append(oldest)
        newest = await self._fleet.start_member()
        registered_s = time.monotonic()
        self._fleet.members.append(newest)
        await asyncio.sleep(TAIL_S)
        heard = self._trace.take()
        calm_s = time.monotonic()
        await self._fleet.caught_up(newest)
        calm = Window(calm_s, time.monotonic())
        return _Restart(oldest, began_s, promoted_s, ended_s, registered_s, calm, heard)

    def _add(self, restart: _Restart, targeted: Calls, group: Calls) -> None:
        waited = targeted.overlapping(restart.window)
        steps = steps_s(
            restart.heard,
            restart.window,
            struck=restart.member.name,
            promoted_s=restart.promoted_s,
            waited=waited,
        )
        self.targeted.add_steps(restart.began_s, steps | restart.own_steps_s, waited)
        self.group.add_steps(
            restart.began_s, restart.own_steps_s, group.overlapping(restart.window)
        )
        calm = restart.calm
        self.calm.add_steps(calm.began_s, {}, targeted.overlapping(calm) + group.overlapping(calm))
