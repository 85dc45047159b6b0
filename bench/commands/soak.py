"""Trading days, one after the other: does latency, memory or loss creep in with time?"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from bench import machine
from bench.bed import Bed, BedSettings, Measured, bed
from bench.block import Block
from bench.document import make_document
from bench.machine import Reference, reference
from bench.options import Options
from bench.rows import make_row
from bench.runner import Results, say
from bench.targets import P99_MS_MAX, Target
from bench.workload import account_names, day_intensity

HELP = "days of trading load: latency, memory and loss over time"
IN_ALL = 4
ACCOUNTS = 200
MEMORY_GROWTH_MIB_MAX = 64.0
"""Of one process from the end of the first quarter to the end; the server's also keeps the outcomes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`days` trading days of `day_s` seconds in `slices` blocks each, at a mean rate."""

    days: int
    day_s: float
    slices: int
    rate_per_s: float

    def blocks(self, seed: int) -> list[Block]:
        made = []
        for n in range(self.days * self.slices):
            intensity = day_intensity((n % self.slices + 0.5) / self.slices)
            rate = self.rate_per_s * intensity
            length_s = self.day_s / self.slices
            made.append(Block("mix", "open", length_s, rate_per_s=rate, seed=seed + n))
        return made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="how long (default: 30; quick: 0.5)")
    parser.add_argument("--rate", type=float, default=400.0, help="mean calls a second")
    parser.add_argument("--callers", type=int, default=2, help="caller processes (default: 2)")
    parser.add_argument("--instances", type=int, default=2, help="instances (default: 2)")


def plan_for(minutes: float, rate_per_s: float) -> Plan:
    """Days of about five minutes, at least two."""
    days = max(2, round(minutes / 5))
    day_s = minutes * 60 / days
    return Plan(days, day_s, max(5, min(60, round(day_s / 3))), rate_per_s)


def sample(measured: Measured, running: Bed, at_s: float) -> dict[str, Any]:
    """One point of the curves over time."""
    ms = measured.told.latencies.summary_ms()
    pids = running.pids
    return {
        "at_s": round(at_s, 2),
        "rate_per_s": round(measured.block.rate_per_s, 1),
        "ok": measured.told.ledger.ok,
        "p50_ms": ms["p50"],
        "p99_ms": ms["p99"],
        "max_ms": ms["max"],
        "memory_mib": {
            part: round(sum(map(machine.memory_mib, ids)), 1) for part, ids in pids.items()
        },
        "open_files": {part: sum(map(machine.open_files, ids)) for part, ids in pids.items()},
        "others_cpus": round(measured.noise.others_cpus, 2),
    }


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    minutes = parsed.minutes or (0.5 if options.quick else 30.0)
    plan = plan_for(minutes, parsed.rate)
    results = Results()
    samples: dict[str, list[dict[str, Any]]] = {}
    targets: list[Target] = []
    async with reference() as beside:
        for name in options.systems or ("aegis",):
            settings = options.bed(
                name,
                account_names(ACCOUNTS),
                callers=parsed.callers,
                instances=parsed.instances,
            )
            samples[name] = await _soak(settings, plan, beside, results, options.seed)
            targets += steady(name, samples[name], per_part=parsed.callers)
    again = f"{options.command_line('soak')} --minutes {minutes:g} --rate {parsed.rate:g}"
    return make_document("soak", options, results, targets, samples=samples, again=again)


async def _soak(
    settings: BedSettings, plan: Plan, beside: Reference, results: Results, seed: int
) -> list[dict[str, Any]]:
    samples = []
    blocks = plan.blocks(seed * 10_000)
    measured: list[Measured] = []
    at_s = 0.0
    async with bed(settings) as running:
        await running.run(Block("mix", "closed", 1.0, in_flight=8, seed=seed), beside)
        for block in blocks:
            measured.append(await running.run(block, beside))
            at_s += block.duration_s
            samples.append(sample(measured[-1], running, at_s))
            say(f"{settings.system}: {at_s:.0f} s of {plan.days * plan.day_s:.0f}: {samples[-1]}")
        results.losses[settings.system] = await running.audit()
    results.rows.append(make_row(measured) | {"scenario": f"mix, {plan.days} days", "axis": None})
    return samples


def steady(name: str, samples: list[dict[str, Any]], *, per_part: int) -> list[Target]:
    """P99 of the middling slice, and memory from the first quarter to the end."""
    p99_ms = sorted(point["p99_ms"] for point in samples)[len(samples) // 2]
    early = samples[len(samples) // 4]["memory_mib"]
    late = samples[-1]["memory_mib"]
    growth = {part: late[part] - early[part] for part in late}
    shown = ", ".join(f"{part} {mib:+.0f}" for part, mib in growth.items())
    most_mib = MEMORY_GROWTH_MIB_MAX * max(1, per_part)
    # The server holds the run's messages, and is Go's to collect: it is shown, not judged.
    fine = all(mib < most_mib for part, mib in growth.items() if part != "server")
    wanted = f"< {MEMORY_GROWTH_MIB_MAX:g} MiB a process of the SDK and control"
    return [
        Target(
            f"{name}: median of the slices' P99",
            f"< {P99_MS_MAX:g} ms",
            f"{p99_ms:.2f} ms",
            p99_ms < P99_MS_MAX,
        ),
        Target(f"{name}: growth of memory (MiB)", wanted, shown, fine),
    ]
