"""Events: each resource tells of every operation, and another one of the same service hears of it, each once and in order.

Operations are told at `E-…`, and heard at `H-…`, whose state has the numbers of each that told, as they came. A number is the count of
operations that its resource has told of. So what is heard of a resource must be 1, 2, 3 and so on, up to that count.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from aegis_sdk import Event, Method, ResourceContext, Service

from bench.chaos.history import nested
from bench.chaos.workloads.api import Ask, Named

TAKEN_S = 5.0
"""What was told last is heard by then, in a system that is well."""
WAITS_S = 0.005


class Told(Named):
    """`op` is the name of the request that is made of it."""

    by: str
    n: int


@dataclass(frozen=True)
class Events:
    name: str = "events"
    service_name: str = "chaos-events"
    tellers: tuple[str, ...] = ("E-0", "E-1", "E-2")
    hearers: tuple[str, ...] = ("V-0", "V-1")
    crowd: int = 1

    @property
    def resources(self) -> tuple[str, ...]:
        return self.tellers + self.hearers

    @cached_property
    def tell(self) -> Method[Named, int]:
        return Method(self.service_name, "tell", request=Named, reply=int)

    @cached_property
    def tell_slowly(self) -> Method[Named, int]:
        return Method(self.service_name, "tell_slowly", request=Named, reply=int)

    @cached_property
    def told(self) -> Event[Told]:
        return Event(self.service_name, "told", Told)

    @cached_property
    def read(self) -> Method[Named, dict[str, Any]]:
        return Method(self.service_name, "read", request=Named, reply=dict[str, Any])

    def hearer_of(self, teller: str) -> str:
        return self.hearers[self.tellers.index(teller) % len(self.hearers)]

    def service(self) -> Service:
        service = Service(self.service_name)

        def tell(ctx: ResourceContext, request: Named) -> int:
            n = (ctx.state.get("told", int) or 0) + 1
            ctx.state.set("told", n)
            ctx.emit(self.told, Told(op=nested(request.op), by=ctx.resource, n=n))
            return n

        service.handles(self.tell, pure=True)(tell)

        @service.handles(self.tell_slowly)
        async def tell_slowly(ctx: ResourceContext, request: Named) -> int:
            await asyncio.sleep(WAITS_S)
            return tell(ctx, request)

        @service.on(self.told, resource=lambda told: self.hearer_of(told.by), begin="all")
        async def hear(ctx: ResourceContext, told: Told) -> None:
            ctx.state.set(told.by, [*(ctx.state.get(told.by, list[int]) or []), told.n])

        @service.handles(self.read, pure=True)
        def read(ctx: ResourceContext, _: Named) -> dict[str, Any]:
            heard = {by: ctx.state.get(by, list[int]) for by in self.tellers}
            told = ctx.state.get("told", int)
            return {by: numbers for by, numbers in heard.items() if numbers} | (
                {"told": told} if told else {}
            )

        return service

    def opening(self, op: str, resource: str) -> Ask | None:
        return None

    def draw(self, source: Random, op: str, last: Any) -> Ask:
        slowly = source.random() < 0.5
        return Ask(
            kind="tell",
            resource=source.choice(self.tellers),
            method=self.tell_slowly if slowly else self.tell,
            payload=Named(op=op),
        )


EVENTS = Events()
