"""One instance of each workload's service, in a process: `python -m bench.chaos.instance JSON`.

It says `ready` when all are registered, and serves until it is killed, or drained by SIGTERM. On SIGUSR1 it hesitates,
on SIGUSR2 it changes what it offers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aegis_sdk
from aegis_sdk import AegisError, Context, Method, Resources, Role, Service
from aegis_sdk.domain.turns.work import Write
from aegis_sdk.infrastructure.turns.log import TurnLog

from bench.chaos.breaks import break_what_is_told
from bench.chaos.workloads import WORKLOADS

CONTROL_WAIT_S = 60.0
AWAY_S = 0.7
CHANGE_AGAIN_S = 0.2
ON_DEMAND = frozenset({"list"})
"""Workloads whose resources come when they are asked for, and rest in between."""
IDLE_S = 4.0


def hesitate_when_told() -> None:
    """On SIGUSR1 the next turn is stored only when somebody wakes this process up: it was judged before that."""
    told = False

    def tell(*_: object) -> None:
        nonlocal told
        told = True

    store = TurnLog.store

    def hesitating(log: TurnLog, write: Write) -> bool:
        nonlocal told
        if told:
            told = False
            os.kill(os.getpid(), signal.SIGSTOP)
        return store(log, write)

    signal.signal(signal.SIGUSR1, tell)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until there is something to change
    with contextlib.suppress(TypeError):  # a compiled class stays as it is
        TurnLog.store = hesitating  # type: ignore[method-assign, assignment]


async def change_when_told(offered: Sequence[tuple[aegis_sdk.Instance, Sequence[str]]]) -> None:
    """On SIGUSR2 each instance gives up one of its resources, and offers it again a moment later."""
    told = asyncio.Semaphore(0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, told.release)
    for n in itertools.count():
        await told.acquire()
        chosen = ((each, names[n % len(names)]) for each, names in offered if names)
        await asyncio.gather(*(_change(each, name) for each, name in chosen))


async def _change(instance: aegis_sdk.Instance, name: str) -> None:
    await _done(instance.remove, name)
    await asyncio.sleep(AWAY_S)
    await _done(instance.add, name)


async def _done(change: Callable[[list[str]], Awaitable[None]], name: str) -> None:
    """Also when control, NATS or the log is away for a while."""
    while True:
        with contextlib.suppress(AegisError):
            return await change([name])
        await asyncio.sleep(CHANGE_AGAIN_S)


def of_version(service: Service, version: int) -> Service:
    """The second one has a method more, which the first one's instances lack."""
    service.version = str(version)
    if version > 1:
        later = Method(service.name, "later", request=int, reply=int)

        @service.handles(later)
        async def answer(_: Context, n: int) -> int:
            return n

    return service


def offered(workload: str) -> dict[str, Role] | Resources:
    if workload in ON_DEMAND:
        return Resources("*", idle_s=IDLE_S)
    return dict.fromkeys(WORKLOADS[workload].resources, Role.AUTO)


async def serve(options: dict[str, Any]) -> None:
    """`url`, `id`, `version`, `workloads`."""
    async with aegis_sdk.connect(options["url"], wait_s=CONTROL_WAIT_S) as aegis:
        instances = [
            await aegis.serve(
                of_version(WORKLOADS[name].service(), options["version"]),
                resources=offered(name),
                instance_id=f"{options['id']}-{name}",
                wait_s=CONTROL_WAIT_S,
            )
            for name in options["workloads"]
        ]
        resources = (
            () if name in ON_DEMAND else WORKLOADS[name].resources for name in options["workloads"]
        )
        changing = asyncio.create_task(
            change_when_told(list(zip(instances, resources, strict=True)))
        )
        print("ready", flush=True)
        try:
            await asyncio.gather(*(each.serve_forever() for each in instances))
        finally:
            changing.cancel()


if __name__ == "__main__":
    aegis_sdk.configure_logs(level=os.environ.get("CHAOS_LOG_LEVEL", "INFO"))
    hesitate_when_told()
    break_what_is_told()
    asyncio.run(serve(json.loads(sys.argv[1])))
