"""A caller, an emitter or a subscriber of `bench events`, as a process: `python -m bench.telling JSON`.

It says `ready`. A caller then makes as many calls as each line says, and answers with how long that took. A subscriber answers with how
many events it has taken, and whether each was the next one of its resource.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from typing import Any, Final

import aegis_sdk
from aegis_sdk import Aegis, Event, Method, ResourceContext, Role, Service

from bench.model import Fill, make_fill
from bench.worker import _obey, say

SERVICE: Final = "telling"
PLAIN: Final = Method(SERVICE, "plain", request=Fill, reply=int)
TELL: Final = Method(SERVICE, "tell", request=Fill, reply=int)
TOLD: Final = Event(SERVICE, "told", Fill)


def emitter() -> Service:
    """`tell` does what `plain` does, and emits the fill with its number in place of the quantity."""
    service = Service(SERVICE, emits=[TOLD])

    def count(ctx: ResourceContext, key: str) -> int:
        counted = (ctx.state.get(key, int) or 0) + 1
        ctx.state.set(key, counted)
        return counted

    @service.handles(PLAIN, pure=True)
    def plain(ctx: ResourceContext, fill: Fill) -> int:
        return count(ctx, "plain")

    @service.handles(TELL, pure=True)
    def tell(ctx: ResourceContext, fill: Fill) -> int:
        counted = count(ctx, "told")
        ctx.emit(TOLD, make_fill(fill.id, fill.account, counted, fill.price))
        return counted

    return service


class Taken:
    def __init__(self) -> None:
        self.count = 0
        self.wrong = 0


def subscriber(name: str, taken: Taken) -> Service:
    service = Service(name)

    @service.on(TOLD, resource=lambda fill: fill.account, pure=True)
    def on_told(ctx: ResourceContext, fill: Fill) -> None:
        last = ctx.state.get("last", int) or 0
        ctx.state.set("last", fill.quantity)
        taken.count += 1
        taken.wrong += fill.quantity != last + 1

    return service


async def calls(aegis: Aegis, accounts: list[str], ids: Any, command: dict[str, Any]) -> float:
    """Seconds."""
    method = TELL if command["tells"] else PLAIN
    left = iter(range(command["count"]))

    async def one_after_the_other() -> None:
        for n in left:
            account = accounts[n % len(accounts)]
            fill = make_fill(next(ids), account, 1, 550_000)
            await aegis.request(method, fill, resource=account, timeout_s=30.0)

    began_s = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(command["in_flight"])))
    return time.perf_counter() - began_s


async def main(options: dict[str, Any]) -> None:
    accounts, role = options["accounts"], options["role"]
    taken, ids = Taken(), itertools.count(1)
    async with aegis_sdk.connect(options["url"]) as aegis:
        if role != "caller":
            service = emitter() if role == "emitter" else subscriber(role, taken)
            await aegis.serve(service, resources=dict.fromkeys(accounts, Role.ACTIVE))
        say({"ready": True})

        async def answer(command: dict[str, Any]) -> dict[str, Any]:
            if role == "caller":
                return {"seconds": await calls(aegis, accounts, ids, command)}
            return {"taken": taken.count, "wrong": taken.wrong}

        await _obey(answer)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    if told["loop"] == "uvloop":
        import uvloop

        uvloop.run(main(told))
    else:
        asyncio.run(main(told))
