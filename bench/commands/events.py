"""What an event costs: calls that emit one, with two subscribers, beside the same calls without."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

import psutil

from bench import targets
from bench.bed import START_TIMEOUT_S, Bed, Process, broker
from bench.document import make_document
from bench.ledger import Verdict
from bench.options import Options
from bench.runner import Results, say
from bench.workload import account_names

HELP = "calls that emit an event for two subscribers, beside calls that emit none"
IN_ALL = 0
ACCOUNTS: Final = 16
IN_FLIGHT: Final = 64
SUBSCRIBERS: Final = ("one", "two")
TAKEN_S: Final = 60.0
ASK_S: Final = 120.0
ROLES: Final = ("caller", "emitter", *SUBSCRIBERS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


async def run(options: Options, parsed: argparse.Namespace) -> dict[str, Any]:
    """Raises: BedError."""
    count, blocks = (2_000, 3) if options.quick else (20_000, 7)
    async with broker(options.bed("aegis", [])) as bed:
        processes = {role: await _start(bed, role) for role in ROLES}
        for tells in (False, True):
            await _block(bed, processes, tells, count // 4)
        measured: dict[bool, list[Mapping[str, float]]] = {False: [], True: []}
        for n in range(2 * blocks):
            tells = n % 2 == 1
            measured[tells].append(await _block(bed, processes, tells, count))
        taken = [await processes[name].ask({}, ASK_S) for name in SUBSCRIBERS]
    told = count // 4 + blocks * count
    figures = {
        kind: {part: median(each[part] for each in measured[tells]) for part in measured[tells][0]}
        for kind, tells in (("plain", False), ("telling", True))
    }
    for kind, each in figures.items():
        say(f"{kind}: " + ", ".join(f"{part} {value:.1f}" for part, value in each.items()))
    losses = {
        f"to {name}": _verdict(told, each) for name, each in zip(SUBSCRIBERS, taken, strict=True)
    }
    wanted = targets.events(figures["plain"], figures["telling"])
    return make_document("events", options, Results(losses=losses), wanted, events=figures)


async def _start(bed: Bed, role: str) -> Process:
    told = {
        "url": bed.url,
        "role": role,
        "accounts": account_names(ACCOUNTS),
        "loop": bed.settings.loop,
    }
    process = await Process.start(role, ["-m", "bench.telling", json.dumps(told)], bed.folder)
    bed.stack.push_async_callback(process.stop)
    await process.read(START_TIMEOUT_S)
    return process


async def _block(
    bed: Bed, processes: Mapping[str, Process], tells: bool, count: int
) -> Mapping[str, float]:
    """CPU a call, in microseconds, by part, until all events are taken; and calls a second."""
    parts = {role: [process.pid] for role, process in processes.items()}
    parts |= {"server": bed.pids["server"], "control": bed.pids["control"]}
    before = {part: _cpu_s(pids) for part, pids in parts.items()}
    had = [(await processes[name].ask({}, ASK_S))["taken"] for name in SUBSCRIBERS]
    command = {"count": count, "in_flight": IN_FLIGHT, "tells": tells}
    took_s = (await processes["caller"].ask(command, ASK_S))["seconds"]
    if tells:
        await _taken(processes, [each + count for each in had])
    found = {part: (_cpu_s(pids) - before[part]) / count * 1e6 for part, pids in parts.items()}
    return found | {"calls/s": count / took_s}


async def _taken(processes: Mapping[str, Process], wanted: Sequence[int]) -> None:
    """Return when the subscribers have so many, or in vain."""
    give_up_s = time.monotonic() + TAKEN_S
    for name, count in zip(SUBSCRIBERS, wanted, strict=True):
        while time.monotonic() < give_up_s:
            if (await processes[name].ask({}, ASK_S))["taken"] >= count:
                break
            await asyncio.sleep(0.05)


def _cpu_s(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(each.user + each.system for each in times))


def _verdict(told: int, said: Mapping[str, int]) -> Verdict:
    missing = max(0, told - said["taken"])
    return Verdict(told, told - missing, 0, 0, missing, 0, said["wrong"], 0)
