"""One instance of each workload's service, in a process: `python -m bench.chaos.instance JSON`.

It says `ready` when all are registered, and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Any

import aegis_sdk
from aegis_sdk import Role
from aegis_sdk.domain.turns.work import Write
from aegis_sdk.infrastructure.turns.log import TurnLog

from bench.chaos.breaks import break_what_is_told
from bench.chaos.workloads import WORKLOADS

CONTROL_WAIT_S = 60.0


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
    with contextlib.suppress(TypeError):  # a compiled class stays as it is
        TurnLog.store = hesitating  # type: ignore[method-assign, assignment]


async def serve(options: dict[str, Any]) -> None:
    """`url`, `id`, `workloads`, and `index` of `of`: which share of the resources it starts with."""
    async with aegis_sdk.connect(options["url"], wait_s=CONTROL_WAIT_S) as aegis:
        instances = [
            await aegis.serve(
                WORKLOADS[name].service(),
                resources=roles(WORKLOADS[name].resources, options["index"], options["of"]),
                instance_id=f"{options['id']}-{name}",
                wait_s=CONTROL_WAIT_S,
            )
            for name in options["workloads"]
        ]
        print("ready", flush=True)
        await asyncio.gather(*(each.serve_forever(signals=False) for each in instances))


def roles(resources: tuple[str, ...], index: int, of: int) -> dict[str, Role]:
    """Active for every `of`-th resource if that is vacant, a standby for all others."""
    return {
        resource: Role.AUTO if n % of == index else Role.STANDBY
        for n, resource in enumerate(resources)
    }


if __name__ == "__main__":
    aegis_sdk.configure_logs(level=os.environ.get("CHAOS_LOG_LEVEL", "INFO"))
    hesitate_when_told()
    break_what_is_told()
    asyncio.run(serve(json.loads(sys.argv[1])))
