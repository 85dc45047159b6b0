"""Sets, lists and deadlines: a resource that lists the elements that were added to it.

The value keeps every addition, also a second one of the same element, so that doubles show.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Any

from aegis_sdk import Method, ResourceContext, Service

from bench.chaos.workloads import elements
from bench.chaos.workloads.api import TIMEOUT_S, Ask, Named


class Add(Named):
    element: str
    hold_s: float = 0.0
    """How long the handler works before it adds."""


@dataclass(frozen=True)
class Collection:
    """`misses`: deadlines are drawn around the handler's time, so that many pass."""

    name: str
    kind: str
    resources: tuple[str, ...]
    misses: bool = False

    @property
    def service_name(self) -> str:
        return f"chaos-{self.name}"

    @property
    def add(self) -> Method[Add, int]:
        return Method(self.service_name, self.kind, request=Add, reply=int)

    @property
    def read(self) -> Method[Named, list[str]]:
        return Method(self.service_name, "read", request=Named, reply=list[str])

    def service(self) -> Service:
        service = Service(self.service_name)

        @service.handles(self.add)
        async def add(ctx: ResourceContext, request: Add) -> int:
            if request.hold_s:
                await asyncio.sleep(request.hold_s)
            return elements.append(ctx, request.element)

        @service.handles(self.read)
        async def read(ctx: ResourceContext, _: Named) -> list[str]:
            return elements.read(ctx)

        return service

    def opening(self, op: str, resource: str) -> Ask | None:
        return None

    def draw(self, source: Random, op: str, last: Any) -> Ask:
        hold_s = source.choice([0.0, 0.01, 0.1]) if self.misses else 0.0
        timeout_s = hold_s + source.choice([0.002, 0.005, 0.05, 1.0]) if self.misses else TIMEOUT_S
        return Ask(
            kind=self.kind,
            resource=source.choice(self.resources),
            method=self.add,
            payload=Add(op=op, element=op, hold_s=hold_s),
            args={"element": op},
            timeout_s=timeout_s,
        )


SET = Collection("set", "add", ("S-0", "S-1", "S-2"))
LIST = Collection("list", "append", ("L-0", "L-1", "L-2"))
DEADLINES = Collection("deadlines", "work", ("D-0", "D-1", "D-2"), misses=True)
