"""An instance in a process of its own: `python -m tests.integration.turns.worker URL PREFIX INSTANCE RESOURCE…`

It says the name of its writer, serves until it is killed, and says `stopped WHY` when it has to end.
"""

from __future__ import annotations

import asyncio
import sys

from aegis_sdk import Service
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.turns.assembly import TurnInstance
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server

from tests.integration.turns.support import adder


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def main(
    url: str, prefix: str, instance_id: str, *resources: str, service: Service | None = None
) -> None:
    link = await Link.open(Server(url), name=instance_id)
    instance = TurnInstance(
        link,
        Subjects(prefix),
        service or adder(wait_s=0.002),
        instance_id=instance_id,
        resources=resources,
        on_stopped=lambda why: say(f"stopped {why}"),
    )
    await instance.start()
    say(instance.writer)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
