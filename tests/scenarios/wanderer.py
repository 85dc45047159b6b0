"""An instance whose resources come and go: `python -m tests.scenarios.wanderer URL ID SEED`. It says JSON lines.

Until SIGUSR1 it adds and removes some of them again and again; then it offers all, and says `settled`. With `on-demand` for the
seed it takes what is asked for, and lets it rest after a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from typing import Final

import aegis_sdk
from aegis_sdk import Aegis, AegisError, Method, ResourceContext, Resources, Role, Service

ADD: Final = Method("wanderers", "add", request=int, reply=int)
NAMES: Final = [f"W-{n}" for n in range(12)]


def wanderers() -> Service:
    service = Service("wanderers")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, delta: int) -> int:
        total = (ctx.state.get("total", int) or 0) + delta
        ctx.state.set("total", total)
        return total

    return service


def say(event: str, **more: object) -> None:
    os.write(1, json.dumps({"event": event, **more}).encode() + b"\n")


async def main(url: str, instance_id: str, seed: str) -> None:
    async with aegis_sdk.connect(url) as aegis:
        if seed == "on-demand":
            await taken_on_demand(aegis, instance_id)
        else:
            await wandering(aegis, instance_id, random.Random(seed))


async def taken_on_demand(aegis: Aegis, instance_id: str) -> None:
    takes = Resources("W-*", idle_s=1.0)
    instance = await aegis.serve(wanderers(), resources=takes, instance_id=instance_id)
    say("ready")
    await instance.serve_forever()


async def wandering(aegis: Aegis, instance_id: str, chance: random.Random) -> None:
    settle = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, settle.set)
    offered = set(NAMES[::2])
    instance = await aegis.serve(
        wanderers(), resources=dict.fromkeys(offered, Role.AUTO), instance_id=instance_id
    )
    say("ready")
    while not settle.is_set():
        some = set(chance.sample(NAMES, 3))
        try:
            if chance.random() < 0.5:
                await instance.add(some, timeout_s=2.0)
                offered |= some
            elif gone := some & offered:
                await instance.remove(gone, timeout_s=2.0)
                offered -= gone
            say("changed")
        except AegisError as error:
            say("refused", why=str(error))
        await asyncio.sleep(0.02)
    while True:
        try:
            await instance.add(NAMES)
            break
        except AegisError as error:
            say("refused", why=str(error))
    say("settled")
    await instance.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
