"""Group requests: any instance takes one, and appends it to a list by one nested request.

The list shows how often a group request took effect, whoever ran it and however often. Most have no
deadline; one that is cancelled after its nested request keeps that effect, which commits by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from aegis_sdk import Context, Method, ResourceContext, Service

from bench.chaos.history import nested
from bench.chaos.workloads import elements
from bench.chaos.workloads.api import TIMEOUT_S, Ask, Named

DEADLINE_SHARE = 0.3
"""Of the requests, have a deadline: another path through the caller's side."""


class Append(Named):
    element: str


class Deal(Append):
    to: str


@dataclass(frozen=True)
class Group:
    name: str = "group"
    service_name: str = "chaos-group"
    resources: tuple[str, ...] = ("G-0", "G-1", "G-2")
    crowd: int = 1

    @cached_property
    def deal(self) -> Method[Deal, int]:
        return Method(self.service_name, "deal", request=Deal, reply=int)

    @cached_property
    def append(self) -> Method[Append, int]:
        return Method(self.service_name, "append", request=Append, reply=int)

    @cached_property
    def read(self) -> Method[Named, list[str]]:
        return Method(self.service_name, "read", request=Named, reply=list[str])

    def service(self) -> Service:
        service = Service(self.service_name)

        @service.handles(self.deal)
        async def deal(ctx: Context, request: Deal) -> int:
            element = Append(op=nested(request.op), element=request.element)
            return await ctx.request(
                self.append, element, resource=request.to, timeout_s=4 * TIMEOUT_S
            )

        @service.handles(self.append, pure=True)
        def append(ctx: ResourceContext, request: Append) -> int:
            return elements.append(ctx, request.element)

        @service.handles(self.read, pure=True)
        def read(ctx: ResourceContext, _: Named) -> list[str]:
            return elements.read(ctx)

        return service

    def opening(self, op: str, resource: str) -> Ask | None:
        return None

    def draw(self, source: Random, op: str, last: Any) -> Ask:
        args = {"element": op, "to": source.choice(self.resources)}
        return Ask(
            kind="deal",
            resource=None,
            method=self.deal,
            payload=Deal(op=op, **args),
            args=args,
            timeout_s=TIMEOUT_S if source.random() < DEADLINE_SHARE else None,
        )


GROUP = Group()
