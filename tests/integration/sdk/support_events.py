"""Emitters and subscribers by their names: `out0` emits each number that it is asked to, `in0` keeps what all that it was told of emitted."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from aegis_sdk import Aegis, Event, Method, ResourceContext, Service

EMITTERS: Final = [f"out{n}" for n in range(10)]
TELL: Final = {name: Method(name, "tell", request=int, reply=int) for name in EMITTERS}
TOLD: Final = {name: Event(name, "told", tuple[str, int]) for name in EMITTERS}
"""The emitter's resource, and a number."""
WAIT_S: Final = 60.0


def heard_of(subscriber: str) -> Method[str, list[int]]:
    """Its resource's numbers of the emitter that is named, in their order."""
    return Method(subscriber, "heard", request=str, reply=list[int])


def emitter(name: str) -> Service:
    service = Service(name)

    @service.handles(TELL[name], pure=True)
    def tell(ctx: ResourceContext, n: int) -> int:
        ctx.emit(TOLD[name], (ctx.resource, n))
        return n

    return service


def subscriber(name: str, emitters: Iterable[str] = EMITTERS) -> Service:
    service = Service(name)

    def take(of: str) -> None:
        @service.on(TOLD[of], resource=lambda told: told[0])
        async def on_told(ctx: ResourceContext, told: tuple[str, int]) -> None:
            ctx.state.set(of, [*(ctx.state.get(of, list[int]) or []), told[1]])

    for of in emitters:
        take(of)

    @service.handles(heard_of(name), pure=True)
    def heard(ctx: ResourceContext, of: str) -> list[int]:
        return ctx.state.get(of, list[int]) or []

    return service


def service(name: str) -> Service:
    """`in0:out0,out1` subscribes to these two."""
    name, _, emitters = name.partition(":")
    if name.startswith("out"):
        return emitter(name)
    return subscriber(name, emitters.split(",") if emitters else EMITTERS)


async def heard(aegis: Aegis, subscriber: str, of: str, resource: str, count: int) -> list[int]:
    """When there are `count`, and nothing more comes for a moment."""
    method = heard_of(subscriber)
    async with asyncio.timeout(WAIT_S):
        while True:
            found = await aegis.request(method, of, resource=resource, timeout_s=WAIT_S)
            if len(found) >= count:
                break
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    return await aegis.request(method, of, resource=resource, timeout_s=WAIT_S)


class Member:
    """A process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def member(url: str, name: str, instance_id: str, *resources: str) -> AsyncIterator[Member]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.sdk.event_member", url, name, instance_id),
        *resources,
        stdout=asyncio.subprocess.PIPE,
    )
    made = Member(process)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            assert await process.stdout.readline() == b"ready\n"
        yield made
    finally:
        await made.kill()
