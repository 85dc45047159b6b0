"""Runs blocks on several systems side by side: all up at once, block after block in a shuffled order.

So a machine that slows down for a while slows all systems alike, and not the one whose turn it is.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.bed import Bed, BedError, BedSettings, Measured, bed
from bench.block import Block
from bench.ledger import Verdict
from bench.machine import Reference, reference
from bench.rows import Row, make_row

SETTLE_S: Final = 0.05
"""Unmeasured calls before each block: the system's memory is warm again after the others' turns."""
STARTING_MAX: Final = 2
"""Systems that start side by side: more of them starve each other until connections time out."""


def say(text: str) -> None:
    """Progress, for people; stdout belongs to results."""
    print(text, file=sys.stderr, flush=True)


@dataclass(slots=True)
class Results:
    """Rows, and what became of every call, by system (or system and axis)."""

    rows: list[Row] = field(default_factory=list)
    losses: dict[str, Verdict] = field(default_factory=dict)
    memory: list[dict[str, Any]] = field(default_factory=list)
    """Of each bed at its end: system, axis, processes and resident MiB by part."""

    def extend(self, other: Results, **axis: Any) -> None:
        """Add another run's; `axis` marks its rows and names its losses."""
        mark = ", ".join(f"{key} {value}" for key, value in axis.items())
        self.rows.extend(row | {"axis": axis or None} for row in other.rows)
        self.memory.extend(each | {"axis": axis or None} for each in other.memory)
        for system, verdict in other.losses.items():
            self.losses[f"{system} ({mark})" if mark else system] = verdict


@dataclass(frozen=True, slots=True)
class Part:
    """A block that runs `repeats` times, on the systems named (None: on all)."""

    block: Block
    repeats: int
    systems: tuple[str, ...] | None = None

    def concerns(self, system: str) -> bool:
        return self.systems is None or system in self.systems


async def run_side_by_side(
    settings: Sequence[BedSettings], parts: Sequence[Part], *, warm_up_s: float, seed: int
) -> Results:
    """Every part on every system that it concerns. Raises: BedError when a process breaks."""
    async with AsyncExitStack() as stack:
        beside = await stack.enter_async_context(reference())
        beds = await _start(settings, stack)
        for each_bed in beds:
            await _warm_up(each_bed, beside, warm_up_s, seed)
        measured = await _interleave(beds, parts, beside, seed)
        memory = [_memory(each_bed) for each_bed in beds]
        losses = {each_bed.settings.system: await each_bed.audit() for each_bed in beds}
    rows = []
    for part in parts:
        for each in settings:
            name = part.block.name
            same = [m for m in measured if m.system == each.system and m.block.name == name]
            if same:
                rows.append(make_row(same))
    return Results(rows, losses, memory)


def _memory(measured: Bed) -> dict[str, Any]:
    return {
        "system": measured.settings.system,
        "processes": {part: len(pids) for part, pids in measured.pids.items()},
        "mib": {part: round(mib, 2) for part, mib in measured.memory_mib().items()},
    }


async def _start(settings: Sequence[BedSettings], stack: AsyncExitStack) -> list[Bed]:
    """A few at a time. Raises: BedError, the first one, when all others have ended."""
    starting = asyncio.Semaphore(STARTING_MAX)

    async def start(each: BedSettings) -> Bed:
        async with starting:
            return await stack.enter_async_context(bed(each))

    say(f"starting {', '.join(each.system for each in settings)}")
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(start(each)) for each in settings]
    except* BedError as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


async def _warm_up(warm: Bed, beside: Reference, warm_up_s: float, seed: int) -> None:
    for in_flight in (1, 32):
        block = Block("mix", "closed", warm_up_s / 2, in_flight=in_flight, seed=seed)
        await warm.run(block, beside)


async def _interleave(
    beds: Sequence[Bed], parts: Sequence[Part], beside: Reference, seed: int
) -> list[Measured]:
    rng = random.Random(seed)
    measured = []
    for repeat in range(max(part.repeats for part in parts)):
        for part in parts:
            if repeat >= part.repeats:
                continue
            block = replace_seed(part.block, seed, repeat)
            for each in rng.sample(beds, len(beds)):
                if part.concerns(each.settings.system):
                    measured.append(await _one(each, beds, block, beside))
    return measured


def replace_seed(block: Block, seed: int, repeat: int) -> Block:
    """Every repeat sends other traffic, the same for every system."""
    return replace(block, seed=seed * 100 + repeat)


async def _one(each: Bed, beds: Sequence[Bed], block: Block, beside: Reference) -> Measured:
    others = [pid for other in beds for pids in other.pids.values() for pid in pids]
    settle = replace(block, mode="closed", in_flight=1, duration_s=SETTLE_S)
    await each.run(settle, beside)
    measured = await each.run(block, beside, others)
    ms = measured.told.latencies.summary_ms()
    rate = measured.told.ledger.ok / max(1e-9, measured.told.elapsed_s)
    say(
        f"{each.settings.system:>18}  {block.name:<28} p50 {ms['p50']:8.3f} ms  "
        f"p99 {ms['p99']:8.3f} ms  {rate:8.0f}/s  others {measured.noise.others_cpus:.2f} CPU"
    )
    return measured
