"""The service that the scenarios attack, run as a process of its own.

`python -m tests.scenarios.ledger '{"url": …, "service": …, "resources": {…}}'`. Each booking counts
itself in the state, so that a lost or doubled effect shows in the next reply. It prints one JSON line
for each thing that a test waits for.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from functools import partial
from typing import Any

import aegis_sdk
from aegis_sdk import Context, Method, Rejected, ResourceContext, Retries, Role, Service
from pydantic import BaseModel

from tests.scenarios.spans import record_spans


class Booking(BaseModel):
    op: str
    delta: int = 1
    hold_s: float = 0.0
    """How long the handler waits before it books."""
    block_s: float = 0.0
    """How long it blocks the event loop."""
    freeze_s: float = 0.0
    """How long it holds the whole interpreter, as a garbage collection of a large heap does; at the first begin."""


class Total(BaseModel):
    total: int = 0
    count: int = 0
    ops: list[str] = []
    """The last 500 operations in the order of their effect."""


class Echo(BaseModel):
    text: str = ""
    hold_s: float = 0.0
    book: str | None = None
    """A resource to book on by a nested request, before answering."""


class Echoed(BaseModel):
    text: str
    instance_id: str
    attempt: int


class Methods:
    """The contracts of one ledger service; tests use a service name of their own."""

    def __init__(self, service: str) -> None:
        self.book = Method(service, "book", request=Booking, reply=Total)
        self.tally = Method(service, "tally", request=Booking, reply=int)
        self.read = Method(service, "read", request=Booking, reply=Total)
        self.forward = Method(service, "forward", request=Echo, reply=Total)
        self.die = Method(service, "die", request=Booking, reply=Total)
        self.flaky = Method(service, "flaky", request=Booking, reply=Total)
        self.blocking = Method(service, "blocking", request=Booking, reply=Total)
        self.echo = Method(service, "echo", request=Echo, reply=Echoed)
        self.die_any = Method(service, "die_any", request=Echo, reply=Echoed)


def ledger(name: str) -> Service:
    methods = Methods(name)
    service = Service(name, version="1")

    def booked(ctx: ResourceContext, booking: Booking) -> Total:
        total = ctx.state.get("total", Total) or Total()
        total = Total(
            total=total.total + booking.delta,
            count=total.count + 1,
            ops=[*total.ops, booking.op][-500:],
        )
        ctx.state.set("total", total)
        return total

    @service.handles(methods.book)
    async def book(ctx: ResourceContext, booking: Booking) -> Total:
        say("begun", op=booking.op, attempt=ctx.attempt)
        if booking.delta == 0:
            raise Rejected("zero", "nothing to book", {"op": booking.op})
        if booking.hold_s:
            await asyncio.sleep(booking.hold_s)
        if booking.block_s:
            time.sleep(booking.block_s)  # noqa: ASYNC251 - this is the fault
        if booking.freeze_s and ctx.attempt == 1:
            ctypes.PyDLL(None).usleep(int(booking.freeze_s * 1e6))  # keeps the interpreter's lock
        return booked(ctx, booking)

    @service.handles(methods.tally, pure=True)
    def tally(ctx: ResourceContext, booking: Booking) -> int:
        count = (ctx.state.get("count", int) or 0) + 1
        ctx.state.set("count", count)
        return count

    @service.handles(methods.read)
    async def read(ctx: ResourceContext, booking: Booking) -> Total:
        return ctx.state.get("total", Total) or Total()

    @service.handles(methods.forward)
    async def forward(ctx: ResourceContext, echo: Echo) -> Total:
        assert echo.book is not None
        booking = Booking(op=echo.text, hold_s=echo.hold_s)
        total = await ctx.request(methods.book, booking, resource=echo.book)
        ctx.state.set("forwarded", (ctx.state.get("forwarded", int) or 0) + 1)
        return total

    @service.handles(methods.die)
    async def die(ctx: ResourceContext, booking: Booking) -> Total:
        say("dying", op=booking.op, attempt=ctx.attempt)
        os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(60)
        raise AssertionError("alive after SIGKILL")

    @service.handles(methods.flaky, retries=Retries(attempts=3, wait_s=0.01))
    async def flaky(ctx: ResourceContext, booking: Booking) -> Total:
        if ctx.attempt < booking.delta:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return booked(ctx, booking)

    @service.handles(methods.blocking)
    def blocking(ctx: ResourceContext, booking: Booking) -> Total:
        time.sleep(booking.hold_s)
        return booked(ctx, booking)

    @service.handles(methods.echo)
    async def echo(ctx: Context, echo: Echo) -> Echoed:
        say("begun", op=echo.text, attempt=ctx.attempt)
        if echo.book is not None:
            await ctx.request(methods.book, Booking(op=echo.text), resource=echo.book)
        if echo.hold_s:
            await asyncio.sleep(echo.hold_s)
        return Echoed(text=echo.text, instance_id=ctx.instance_id, attempt=ctx.attempt)

    @service.handles(methods.die_any)
    async def die_any(ctx: Context, echo: Echo) -> Echoed:
        say("dying", op=echo.text, attempt=ctx.attempt)
        os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(60)
        raise AssertionError("alive after SIGKILL")

    service.on_promoted(lambda resource: say("promoted", resource=resource))
    service.on_demoted(lambda resource: say("demoted", resource=resource))
    return service


def say(event: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


def watch() -> None:
    """Logs on standard error; spans into the file that the environment names, if it names one."""
    aegis_sdk.configure_logs(level=os.environ.get("AEGIS_LOG_LEVEL", "INFO"))
    if path := os.environ.get("TEST_SPANS"):
        record_spans(path)


async def main(options: dict[str, Any]) -> None:
    watch()
    async with aegis_sdk.connect(options["url"]) as aegis:
        instance = await aegis.serve(
            ledger(options["service"]),
            resources={name: Role(role) for name, role in options["resources"].items()},
            instance_id=options.get("id"),
        )
        ready = partial(say, "ready", instance_id=instance.id, active=instance.active_resources)
        asyncio.get_running_loop().call_soon(ready)  # once `serve_forever` hears signals
        try:
            await instance.serve_forever()
        except aegis_sdk.Evicted as error:
            say("evicted", reason=str(error))
    say("ended")


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
