"""Like worker.py, and its handlers kill the process when they are asked to: `die` (it waits), `die_at_once` (pure)."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from aegis_sdk import Context, Method, ResourceContext, Service
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.turns.assembly import TurnInstance
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server

from tests.integration.turns.support import SERVICE, Add, Sum, adder
from tests.integration.turns.worker import say

DIE: Final = Method(SERVICE, "die", request=Add, reply=Sum)
DIE_AT_ONCE: Final = Method(SERVICE, "die_at_once", request=Add, reply=Sum)
DIE_ANYWHERE: Final = Method(SERVICE, "die_anywhere", request=Add, reply=Sum)
DIED: Final = 9


def killer() -> Service:
    service = adder()

    @service.handles(DIE)
    async def die(ctx: ResourceContext, request: Add) -> Sum:
        os._exit(DIED)

    @service.handles(DIE_AT_ONCE, pure=True)
    def die_at_once(ctx: ResourceContext, request: Add) -> Sum:
        os._exit(DIED)

    @service.handles(DIE_ANYWHERE)
    async def die_anywhere(ctx: Context, request: Add) -> Sum:
        os._exit(DIED)

    return service


async def main(url: str, prefix: str, instance_id: str, *resources: str) -> None:
    link = await Link.open(Server(url), name=instance_id)
    instance = TurnInstance(
        link, Subjects(prefix), killer(), instance_id=instance_id, resources=resources
    )
    await instance.start()
    say(instance.writer)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
