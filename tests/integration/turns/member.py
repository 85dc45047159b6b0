"""An instance that control knows, in a process of its own: `python -m tests.integration.turns.member URL PREFIX INSTANCE RESOURCE…`

It says the name of its writer, then `serves N` whenever that changes, and `ended WHY` when it has to end.
"""

from __future__ import annotations

import asyncio
import sys

from aegis_sdk import Role
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.infrastructure.turns.member import TurnMember
from aegis_sdk.nats.login import Server

from tests.integration.turns.support import adder
from tests.integration.turns.worker import say


async def main(url: str, prefix: str, instance_id: str, *resources: str) -> None:
    ended = asyncio.Event()

    def end(why: str) -> None:
        say(f"ended {why}")
        ended.set()

    member = await TurnMember.start(
        Server(url),
        Subjects(prefix),
        adder(wait_s=0.002),
        instance_id=instance_id,
        resources=dict.fromkeys(resources, Role.AUTO),
        on_ended=end,
    )
    say(member.instance.writer)
    await ended.wait()
    await member.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
