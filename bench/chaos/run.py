"""One run: start the system, let the nemesis loose on it, let it settle, and judge what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import aegis_sdk
import nats
from aegis_sdk import AegisError
from nats.aio.client import Client as NatsClient

from bench.chaos.checkers.recovery import recoveries
from bench.chaos.collect import (
    Ends,
    Stored,
    gone,
    stored,
    watch_names,
    watch_outcomes,
)
from bench.chaos.history import (
    Accepted,
    Fault,
    Final,
    History,
    OutcomeEntry,
    Run,
    first_of_each,
    read,
    write,
)
from bench.chaos.nemesis import Kind, Nemesis, plan
from bench.chaos.system import Settings, System, running
from bench.chaos.workloads import WORKLOADS, Workload
from bench.chaos.workloads.api import Named
from bench.chaos.workloads.events import EVENTS, TAKEN_S
from bench.chaos.workloads.timers import AFTER_S_MAX, TIMERS

QUIET_S = 3.0
"""Clients go on for so long after the last fault, and then until the recovery from it shows."""
RECOVERY_S = {1: 15.0, 3: 30.0}
"""By the number of NATS nodes: three of them elect leaders of their own, and more so where they share two cores with all else."""
RECOVERED_S_MAX = 30.0
LOOK_S = 3.0
"""A look reads all that the clients have written."""
FIRED_S = 4.0
"""Timers that are due wait for their turn, and for whatever heals last."""
SETTLE_S = 60.0
READ_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run; `kept` is where the history goes."""

    seed: int
    seconds: float
    nodes: int
    faults: Sequence[Kind]
    workloads: Sequence[str]
    kept: Path
    folder: Path | None = None
    """The processes' files go into a new folder in it; None is a temporary one that goes away."""
    broken: str = ""
    """The rule that is broken in the SDK (breaks.py)."""


async def attack(planned: Plan) -> History:
    """Run it, keep its history and return it.

    Raises: ChildError, EmbeddedNatsError, TimeoutError when the system itself could not be run.
    """
    with contextlib.ExitStack() as stack:
        history = await _run_in(planned, _folder(planned, stack))
    planned.kept.parent.mkdir(parents=True, exist_ok=True)
    planned.kept.write_text("\n".join(write(history)) + "\n", encoding="utf-8")
    return history


def _folder(planned: Plan, stack: contextlib.ExitStack) -> Path:
    """Always a new one: NATS would go on with what an earlier run left."""
    if planned.folder is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aegis-chaos-")))
    planned.folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"seed-{planned.seed}-", dir=planned.folder))


async def _run_in(planned: Plan, folder: Path) -> History:
    settings = Settings(
        planned.workloads,
        planned.seed,
        planned.nodes,
        pause_s=0.05 * planned.nodes,  # three servers share the machine with all the others
        clocks=Kind.JUMP_CLOCK in planned.faults,
        broken=planned.broken,
    )
    workloads = [WORKLOADS[name] for name in planned.workloads]
    services = [workload.service_name for workload in workloads]
    async with (
        running(settings, folder) as system,
        contextlib.AsyncExitStack() as stack,
    ):
        ends: Ends = []
        watching = await stack.enter_async_context(_connected(system))
        await watch_names(watching, system.names)
        await watch_outcomes(watching, ends)
        await system.start_clients()
        faults = await _strike(planned, system)
        await recovered(system.client_files, faults)
        await system.stop_clients()
        if TIMERS.name in planned.workloads:
            await asyncio.sleep(AFTER_S_MAX + FIRED_S)
        if EVENTS.name in planned.workloads:
            await asyncio.sleep(TAKEN_S)
        found = await _settled(system, services)
        finals = [final async for final in _finals(system, workloads)]
        clients = _clients(system.client_files)
        # Once more: the last reads are a part of the journal too.
        found = await _settled(system, services)
    history = _history(planned, clients, found, faults, finals)
    lost = gone(ends, history.outcomes, system.names)
    return replace(
        history,
        losses=first_of_each(system.losses),
        gates=system.gates,
        pauses=system.pauses,
        gone=lost,
        faults=[*history.faults, *system.put_back],
    )


async def _strike(planned: Plan, system: System) -> list[Fault]:
    faults: list[Fault] = []
    strikes = plan(planned.seed, planned.seconds, planned.faults, system.sizes)
    ends_s = time.monotonic() + planned.seconds
    await Nemesis(strikes, system, faults.append).run()
    await asyncio.sleep(max(0.0, ends_s - time.monotonic()))
    return faults


async def recovered(files: Sequence[Path], faults: Sequence[Fault]) -> None:
    """Returns when every place answers again, or when it is too late for that anyway.

    Looked for in a process of its own: this one carries what the instances say to NATS, and while it
    read a long history, control would take all of them for dead.
    """
    await asyncio.sleep(QUIET_S)
    give_up_s = time.monotonic() + RECOVERED_S_MAX
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as judge:
        while time.monotonic() < give_up_s:
            if await loop.run_in_executor(judge, _all_answer, files, faults):
                return
            await asyncio.sleep(LOOK_S)


def _all_answer(files: Sequence[Path], faults: Sequence[Fault]) -> bool:
    history = replace(_clients(files), faults=faults)
    return all(found.recovery_s is not None for found in recoveries(history))


@contextlib.asynccontextmanager
async def _connected(system: System) -> AsyncIterator[NatsClient]:
    client = await nats.connect(
        system.urls, max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=_ignore
    )
    try:
        yield client
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """The faults are ours."""


async def _settled(system: System, services: Iterable[str]) -> list[Stored]:
    """What the streams hold once every accepted request has its outcome, or patience has ended."""
    give_up_s = time.monotonic() + SETTLE_S
    async with _connected(system) as client:
        while True:
            found = [await stored(client, service) for service in services]
            ended = not any(each.open_requests() for each in found)
            if ended or time.monotonic() > give_up_s:
                return found
            await asyncio.sleep(0.5)


async def _finals(system: System, workloads: Iterable[Workload]) -> AsyncIterator[Final]:
    """A resource that can't be read has no final value, which its checker reports."""
    async with aegis_sdk.connect(system.url, wait_s=READ_TIMEOUT_S) as aegis:
        for workload in workloads:
            for resource in workload.resources:
                with contextlib.suppress(AegisError):
                    value = await aegis.request(
                        workload.read,
                        Named(op=f"final-{resource}"),
                        resource=resource,
                        timeout_s=READ_TIMEOUT_S,
                    )
                    yield Final(
                        workload=workload.name,
                        service=workload.service_name,
                        resource=resource,
                        value=value,
                    )


def _clients(files: Iterable[Path]) -> History:
    """The operations; the last line of a killed client may be cut off."""
    lines: list[str] = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        lines += text[: text.rfind("\n") + 1].splitlines()
    return read(lines)


def _history(
    planned: Plan,
    clients: History,
    found: Iterable[Stored],
    faults: Sequence[Fault],
    finals: Sequence[Final],
) -> History:
    accepted: list[Accepted] = []
    outcomes: list[OutcomeEntry] = []
    for each in found:
        accepted += each.accepted
        outcomes += each.outcomes
    history = History(
        run=Run(
            seed=planned.seed,
            seconds=planned.seconds,
            nodes=planned.nodes,
            recovery_limit_s=RECOVERY_S[planned.nodes],
        ),
        operations=clients.operations,
        looks=clients.looks,
        accepted=accepted,
        outcomes=outcomes,
        faults=faults,
        finals=finals,
    )
    return read(write(history))
