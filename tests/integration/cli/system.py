"""A real control with two real instances, and ipc-cli beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aegis_sdk
from aegis_control.bootstrap import Control
from aegis_control.settings import load
from aegis_sdk import Context, Method, ResourceContext, Role, Service
from aegis_sdk.contract.control import InstanceState

from tests.integration.cli.support import Result, run_cli

ADD = Method("totals", "add", request=int, reply=list)
WAIT = Method("totals", "wait", request=str, reply=str)
RELAY = Method("totals", "relay", request=int, reply=list)
LATER = Method("totals", "later", request=dict[str, float], reply=str)
"""Sets timers of `add`, by name: due in so many seconds; below 0, one is dropped."""
DOUBLE = Method("doubles", "double", request=int, reply=int)
DEADLINE_S = 15.0


def totals(release: asyncio.Event) -> Service:
    """Adds up per resource; answers [the total, who answered]. `wait` waits for `release`."""
    service = Service("totals")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, amount: int) -> list[object]:
        total = (ctx.state.get("total", int) or 0) + amount
        ctx.state.set("total", total)
        return [total, ctx.instance_id]

    @service.handles(WAIT)
    async def wait(ctx: ResourceContext, what: str) -> str:
        await release.wait()
        return what

    @service.handles(LATER)
    async def later(ctx: ResourceContext, asked: dict[str, float]) -> str:
        for name, after_s in asked.items():
            if after_s < 0:
                ctx.drop_timer(name)
            else:
                ctx.later(ADD, 1, after_s=after_s, name=name)
        return ctx.request_id

    @service.handles(RELAY)
    async def relay(ctx: ResourceContext, amount: int) -> list[object]:
        """Asks another service twice, and adds what it answers."""
        first = await ctx.request(DOUBLE, amount)
        return await add(ctx, await ctx.request(DOUBLE, first))

    return service


def doubles() -> Service:
    service = Service("doubles")

    @service.handles(DOUBLE)
    async def double(ctx: Context, amount: int) -> int:
        return 2 * amount

    return service


@dataclass(slots=True)
class System:
    """A control and two instances of `totals`: tot-1 is active for T-1 and T-2, tot-2 their standby."""

    url: str
    prefix: str
    caller: aegis_sdk.Aegis
    control: Control
    controlling: asyncio.Task[None]
    release: asyncio.Event
    """Lets the handlers of `wait` go on."""

    async def cli(self, *arguments: str) -> Result:
        return await run_cli(*arguments, "--url", self.url, "--prefix", self.prefix)

    async def stop_control(self) -> None:
        self.control.stop()
        await self.controlling

    async def add(self, amount: int, resource: str = "T-1") -> list[object]:
        return await self.caller.request(ADD, amount, resource=resource, timeout_s=DEADLINE_S)

    async def later(self, timers: dict[str, float], resource: str = "T-1") -> str:
        """The request that did it."""
        return await self.caller.request(LATER, timers, resource=resource, timeout_s=DEADLINE_S)

    async def active(self, resource: str = "T-1") -> tuple[str, int]:
        """(instance, epoch)"""
        [route] = (await self.cli("show-route", resource, "-o", "json")).json
        return route["active"], route["epoch"]

    async def until_total(self, total: int, resource: str = "T-1") -> None:
        """A timer adds when it fires."""

        async def holds() -> bool:
            state = (await self.cli("state", resource, "-o", "json")).json["state"]
            return bool(state.get("total") == total)

        await self.until(f"{resource} has {total}", holds)

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        """Ask until it holds; the questions themselves take their time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                while not await holds():
                    continue
                return
        raise AssertionError(f"not within {DEADLINE_S:g} s: {what}")

    async def instance_is(self, instance_id: str, state: InstanceState | None) -> bool:
        listed = (await self.cli("list-instances", "-o", "json")).json
        states = {entry["instance_id"]: entry["state"] for entry in listed}
        return bool(states.get(instance_id) == state)


@contextlib.asynccontextmanager
async def running_system(nats_url: str, system_url: str, prefix: str) -> AsyncIterator[System]:
    """tot-1 is active for T-1 and T-2, tot-2 their standby; dbl-1 serves a group."""
    settings = {"url": nats_url, "system_url": system_url, "prefix": prefix, "http_port": 0}
    settings |= {"spread": False}  # tot-1 is the active of all
    control = Control(load(settings).settings)
    running = asyncio.create_task(control.run())
    release = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        await control.started.wait()
    async with (
        aegis_sdk.connect(nats_url, prefix=prefix) as caller,
        aegis_sdk.connect(nats_url, prefix=prefix) as first,
        aegis_sdk.connect(nats_url, prefix=prefix) as second,
    ):
        resources = {"T-1": Role.AUTO, "T-2": Role.AUTO}
        await first.serve(totals(release), resources=resources, instance_id="tot-1")
        await second.serve(totals(release), resources=resources, instance_id="tot-2")
        await second.serve(doubles(), instance_id="dbl-1")
        yield System(nats_url, prefix, caller, control, running, release)
        release.set()
    control.stop()
    await running
