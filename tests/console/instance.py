"""One process that serves `desk`, to be killed by a test: `instance.py URL PREFIX ID RESOURCE...`.

Resource ids come as JSON, so that a test may use any text. It says `ready` when it serves.
"""

from __future__ import annotations

import asyncio
import json
import sys

import aegis_sdk
from aegis_sdk import Method, ResourceContext, Role, Service

ADD: Method[int, int] = Method("desk", "add", request=int, reply=int)


def desk() -> Service:
    """Adds up for each resource; a negative amount breaks the handler."""
    service = Service("desk", version="1.4.2")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, amount: int) -> int:
        if amount < 0:
            raise ValueError("an amount below zero")
        total = (ctx.state.get("total", int) or 0) + amount
        ctx.state.set("total", total)
        return total

    return service


async def main(url: str, prefix: str, instance_id: str, resources: str) -> None:
    async with aegis_sdk.connect(url, prefix=prefix) as aegis:
        roles = dict.fromkeys(json.loads(resources), Role.AUTO)
        await aegis.serve(desk(), resources=roles, instance_id=instance_id)
        print("ready", flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
