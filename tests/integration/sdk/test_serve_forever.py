"""A process that gives itself to its service."""

from __future__ import annotations

import asyncio
import gc
import secrets

import aegis_sdk
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Context, Method, Service

from tests.integration.control.support import control

ECHO: Method[int, int] = Method("echo", "echo", request=int, reply=int)


async def test_the_collector_leaves_alone_what_was_made_at_the_start() -> None:
    service = Service("echo")

    @service.handles(ECHO)
    async def echo(_: Context, number: int) -> int:
        return number

    prefix = f"t{secrets.token_hex(4)}"
    try:
        with EmbeddedNats() as server:
            async with (
                control(server.url, prefix),
                aegis_sdk.connect(server.url, prefix=prefix) as a,
            ):
                instance = await a.serve(service)
                assert gc.get_freeze_count() == 0, "others use this process, too"
                serving = asyncio.create_task(instance.serve_forever(signals=False))
                assert await a.request(ECHO, 7, timeout_s=5.0) == 7
                assert gc.get_freeze_count() > 10_000
                await instance.stop()
                await serving
    finally:
        gc.unfreeze()
