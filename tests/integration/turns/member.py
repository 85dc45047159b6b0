"""An instance of the product in a process of its own: `python -m tests.integration.turns.member URL PREFIX INSTANCE RESOURCE…`

It says the name of its writer when it has registered, and `ended WHY` when it has to end.
"""

from __future__ import annotations

import asyncio
import sys

import aegis_sdk
from aegis_sdk import Role
from aegis_sdk.contract.turns.writers import writer_name
from aegis_sdk.errors import AegisError

from tests.integration.turns.support import WAIT_S, adder
from tests.integration.turns.worker import say


async def main(url: str, prefix: str, instance_id: str, *resources: str) -> None:
    aegis_sdk.configure_logs(level="WARNING")
    async with aegis_sdk.connect(url, prefix=prefix) as aegis:
        instance = await aegis.serve(
            adder(wait_s=0.002),
            resources=dict.fromkeys(resources, Role.AUTO),
            instance_id=instance_id,
            wait_s=WAIT_S,
        )
        say(writer_name(instance.id, instance._incarnation))
        try:
            await instance.serve_forever()
        except AegisError as error:
            say(f"ended {error}")
        else:
            say("ended drained")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
