"""Like worker.py, and its handlers set timers: `set` (pure), which are of `tick` (pure) or `tick_slowly`."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

from aegis_sdk import Method, ResourceContext, Service

from tests.integration.turns.support import SERVICE, adder
from tests.integration.turns.worker import main

SET: Final = Method(SERVICE, "set", request=dict[str, Any], reply=str)
"""`name`, `after_s`, `slowly`, `many`; `drop`: names."""
TICK: Final = Method(SERVICE, "tick", request=str, reply=int)
TICK_SLOWLY: Final = Method(SERVICE, "tick_slowly", request=str, reply=int)
TICKS: Final = Method(SERVICE, "ticks", request=str, reply=list[tuple[str, float, str]])
"""(name, when it ran, at which instance) of each, in their order; the request is a prefix."""


def timing() -> Service:
    service = adder()

    @service.handles(SET, pure=True)
    def set_some(ctx: ResourceContext, asked: dict[str, Any]) -> str:
        for name in asked.get("drop", ()):
            ctx.drop_timer(name)
        method = TICK_SLOWLY if asked.get("slowly") else TICK
        for n in range(asked.get("many", 1)):
            name = f"{asked['name']}{n or ''}"
            ctx.later(method, name, after_s=asked["after_s"], name=name)
        return str(asked["name"])

    def tick(ctx: ResourceContext, name: str) -> int:
        ctx.state.set(f"tick/{name}/{time.time():.6f}", ctx.instance_id)
        return 1

    service.handles(TICK, pure=True)(tick)

    @service.handles(TICK_SLOWLY)
    async def tick_slowly(ctx: ResourceContext, name: str) -> int:
        await asyncio.sleep(0.05)
        return tick(ctx, name)

    @service.handles(TICKS, pure=True)
    def ticks(ctx: ResourceContext, prefix: str) -> list[tuple[str, float, str]]:
        found = []
        keys = ctx.state.keys()
        for key in keys:
            if key.startswith(f"tick/{prefix}"):
                _, name, at_s = key.rsplit("/", 2)
                found.append((name, float(at_s), ctx.state.get(key, str) or ""))
        return sorted(found, key=lambda each: each[1])

    return service


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:], service=timing()))
