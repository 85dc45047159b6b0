"""Serves an emitter or a subscriber of `support_events` until it is killed: URL, service, instance id, resources."""

from __future__ import annotations

import asyncio
import sys

import aegis_sdk
from aegis_sdk import Role

from tests.integration.sdk.support_events import service


async def main(url: str, name: str, instance_id: str, *resources: str) -> None:
    async with aegis_sdk.connect(url) as aegis:
        instance = await aegis.serve(
            service(name), resources=dict.fromkeys(resources, Role.AUTO), instance_id=instance_id
        )
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await instance.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
