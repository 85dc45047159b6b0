"""Like member.py; it says `began N` whenever a handler begins. From 100 on, a handler takes a second."""

from __future__ import annotations

import asyncio
import sys

import aegis_sdk
from aegis_sdk import Context, ResourceContext, Role, Service
from aegis_sdk.contract.turns.writers import writer_name

from tests.integration.turns.support import (
    ADD,
    ADD_SLOWLY,
    GREET,
    WAIT_S,
    Add,
    Sum,
    add,
    reading,
)
from tests.integration.turns.worker import say

SLOW = 100


def telling() -> Service:
    service = reading()
    del service.handlers[ADD.name], service.handlers[ADD_SLOWLY.name]

    @service.handles(ADD, pure=True)
    def quick(ctx: ResourceContext, request: Add) -> Sum:
        say(f"began {request.n}")
        return add(ctx, request)

    @service.handles(ADD_SLOWLY, urgent=True)
    async def slow(ctx: ResourceContext, request: Add) -> Sum:
        say(f"began {request.n}")
        await asyncio.sleep(1.0 if request.n >= SLOW else 0.0)
        return add(ctx, request)

    @service.handles(GREET)
    async def greet(ctx: Context, request: Add) -> Sum:
        say(f"began {request.n}")
        return Sum(total=request.n, count=1, epoch=0)

    return service


async def main(url: str, prefix: str, instance_id: str, *resources: str) -> None:
    aegis_sdk.configure_logs(level="ERROR")
    async with aegis_sdk.connect(url, prefix=prefix) as aegis:
        instance = await aegis.serve(
            telling(),
            resources=dict.fromkeys(resources, Role.AUTO),
            instance_id=instance_id,
            wait_s=WAIT_S,
        )
        say(writer_name(instance.id, instance._incarnation))
        await instance.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
