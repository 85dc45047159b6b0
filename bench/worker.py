"""A caller or an instance as a process of its own: `python -m bench.worker`.

It speaks JSON lines with the process that started it: the first tells it what to be (10,000 accounts are
too long for an argument), it says `ready`, then answers one command a line,
and ends when its input ends. Everything else goes to stderr.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from bench import systems
from bench.block import Block
from bench.caller import Caller
from bench.systems.api import CallerSetup, InstanceSetup

LINE_BYTES_MAX: Final = 64 * 1024 * 1024

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _obey(answer: Answer) -> None:
    """Answer commands until the input ends."""
    reader = await _stdin()
    gc.freeze()  # all systems alike, as `serve_forever` does: what was made at the start is not looked through again
    while line := await reader.readline():
        say(await answer(json.loads(line)))


async def run_instance(system_name: str, setup: InstanceSetup) -> None:
    async with systems.find(system_name).serve(setup) as served:
        say({"ready": True, "address": served.address})

        async def answer(_: dict[str, Any]) -> dict[str, Any]:
            orders = served.orders
            return {"orders": [orders.count, orders.quantity, orders.digest]}

        await _obey(answer)


async def run_caller(system_name: str, setup: CallerSetup) -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(systems.find(system_name).connect(setup))
        caller = Caller(client, list(setup.owners), setup.index)
        say({"ready": True})

        async def answer(command: dict[str, Any]) -> dict[str, Any]:
            if "block" in command:
                return (await caller.run(Block.from_dict(command["block"]))).as_dict()
            return {"positions": await caller.audit()}

        await _obey(answer)


def main() -> None:
    told = json.loads(sys.stdin.readline())
    if told["kind"] == "instance":
        work = run_instance(told["system"], InstanceSetup(**told["setup"]))
    else:
        work = run_caller(told["system"], CallerSetup(**told["setup"]))
    if told["loop"] == "uvloop":
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)


if __name__ == "__main__":
    main()
