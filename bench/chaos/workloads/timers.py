"""Timers that are set, some of them dropped just when they are due; and requests that are submitted for later.

An operation arms a timer, whose request is called after the operation (`nested`). It may drop an earlier one, at the end of a handler
that waits, so that the other's request is often in the queue by then. Handlers say what the machine's monotonic clock says: it is the
same in all processes, and nobody sets it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from aegis_sdk import Method, ResourceContext, Service

from bench.chaos.history import nested
from bench.chaos.workloads.api import Ask, Named

AFTER_S_MAX = 1.0
"""The suite waits for so long, and for a failover, before it judges what has fired."""
DROP_WAITS_S = 0.02


class Arm(Named):
    after_s: float
    slowly: bool = False
    drops: str = ""
    """The operation whose timer goes."""


@dataclass(frozen=True)
class Timers:
    name: str = "timers"
    service_name: str = "chaos-timers"
    resources: tuple[str, ...] = ("T-0", "T-1", "T-2")
    crowd: int = 1

    @cached_property
    def arm(self) -> Method[Arm, dict[str, Any]]:
        return Method(self.service_name, "arm", request=Arm, reply=dict[str, Any])

    @cached_property
    def swap(self) -> Method[Arm, dict[str, Any]]:
        return Method(self.service_name, "swap", request=Arm, reply=dict[str, Any])

    @cached_property
    def fire(self) -> Method[Named, float]:
        return Method(self.service_name, "fire", request=Named, reply=float)

    @cached_property
    def fire_slowly(self) -> Method[Named, float]:
        return Method(self.service_name, "fire_slowly", request=Named, reply=float)

    @cached_property
    def read(self) -> Method[Named, int]:
        return Method(self.service_name, "read", request=Named, reply=int)

    def service(self) -> Service:
        service = Service(self.service_name)

        def arm(ctx: ResourceContext, request: Arm) -> dict[str, Any]:
            armed_s = time.monotonic()
            fired = Named(op=nested(request.op))
            method = self.fire_slowly if request.slowly else self.fire
            ctx.later(method, fired, after_s=request.after_s, name=request.op)
            dropped = bool(request.drops) and ctx.drop_timer(request.drops)
            return {"armed_s": armed_s, "dropped": dropped}

        def fire(ctx: ResourceContext, _: Named) -> float:
            ctx.state.set("fired", (ctx.state.get("fired", int) or 0) + 1)
            return time.monotonic()

        service.handles(self.arm, pure=True)(arm)
        service.handles(self.fire, pure=True)(fire)

        @service.handles(self.swap)
        async def swap(ctx: ResourceContext, request: Arm) -> dict[str, Any]:
            await asyncio.sleep(DROP_WAITS_S)
            return arm(ctx, request)

        @service.handles(self.fire_slowly)
        async def fire_slowly(ctx: ResourceContext, request: Named) -> float:
            began_s = time.monotonic()
            await asyncio.sleep(DROP_WAITS_S / 4)
            fire(ctx, request)
            return began_s

        @service.handles(self.read, pure=True)
        def read(ctx: ResourceContext, _: Named) -> int:
            return ctx.state.get("fired", int) or 0

        return service

    def opening(self, op: str, resource: str) -> Ask | None:
        return None

    def draw(self, source: Random, op: str, last: Any) -> Ask:
        """A client's operations are numbered: every other one drops the timer of the one before, at the same resource.

        One in eight is submitted for later.
        """
        who, _, number = op.rpartition("-")
        n = int(number)
        if n % 8 == 0:
            after_s = round(source.uniform(0.0, AFTER_S_MAX), 3)
            return Ask(
                kind="later",
                resource=source.choice(self.resources),
                method=source.choice((self.fire, self.fire_slowly)),
                payload=Named(op=op),
                args={"after_s": after_s},
                not_before_s=after_s,
                timeout_s=None,
            )
        swaps = n % 2 == 0
        args: dict[str, Any] = {
            "after_s": round(
                source.uniform(0.0, 0.12 if source.random() < 0.5 else AFTER_S_MAX), 3
            ),
            "slowly": source.random() < 0.5,
            "drops": f"{who}-{n - 1}" if swaps else "",
        }
        resource = self.resources[hash_of(who, (n - 1) // 2) % len(self.resources)]
        return Ask(
            kind="swap" if swaps else "arm",
            resource=resource,
            method=self.swap if swaps else self.arm,
            payload=Arm(op=op, **args),
            args=args,
        )


def hash_of(who: str, n: int) -> int:
    """Pairs of a client's operations go from resource to resource."""
    return sum(who.encode()) + n


TIMERS = Timers()
