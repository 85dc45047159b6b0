"""Sets, lists, deadlines and a hot one: a resource that lists the elements that were added to it.

The value keeps every addition, also a second one of the same element, so that doubles show.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from aegis_sdk import Method, ResourceContext, Service

from bench.chaos.workloads import elements
from bench.chaos.workloads.api import TIMEOUT_S, Ask, Named


class Add(Named):
    element: str
    hold_s: float = 0.0
    """How long the handler works before it adds."""


def add(ctx: ResourceContext, request: Add) -> int:
    return elements.append(ctx, request.element)


@dataclass(frozen=True)
class Collection:
    """`holds_s`: how long a handler may work, `waits_s`: how long a client may wait beyond that."""

    name: str
    kind: str
    resources: tuple[str, ...]
    holds_s: tuple[float, ...] = (0.0,)
    waits_s: tuple[float, ...] = (TIMEOUT_S,)
    crowd: int = 1

    @property
    def service_name(self) -> str:
        return f"chaos-{self.name}"

    @cached_property
    def add(self) -> Method[Add, int]:
        return Method(self.service_name, self.kind, request=Add, reply=int)

    @cached_property
    def read(self) -> Method[Named, list[str]]:
        return Method(self.service_name, "read", request=Named, reply=list[str])

    def service(self) -> Service:
        """Pure where no handler holds: what waits for one resource is stored together then."""
        service = Service(self.service_name)
        if any(self.holds_s):

            @service.handles(self.add)
            async def held(ctx: ResourceContext, request: Add) -> int:
                await asyncio.sleep(request.hold_s)
                return add(ctx, request)

        else:
            service.handles(self.add, pure=True)(add)

        @service.handles(self.read, pure=True)
        def read(ctx: ResourceContext, _: Named) -> list[str]:
            return elements.read(ctx)

        return service

    def opening(self, op: str, resource: str) -> Ask | None:
        return None

    def draw(self, source: Random, op: str, last: Any) -> Ask:
        hold_s = source.choice(self.holds_s)
        return Ask(
            kind=self.kind,
            resource=source.choice(self.resources),
            method=self.add,
            payload=Add(op=op, element=op, hold_s=hold_s),
            args={"element": op},
            timeout_s=hold_s + source.choice(self.waits_s),
        )


SET = Collection("set", "add", ("S-0", "S-1", "S-2"))
LIST = Collection("list", "append", tuple(f"L-{n}" for n in range(8)))
DEADLINES = Collection(
    "deadlines",
    "work",
    ("D-0", "D-1", "D-2"),
    holds_s=(0.0, 0.01, 0.1),
    waits_s=(0.002, 0.005, 0.05, 1.0),
)
HOT = Collection("hot", "hit", ("H-0",), waits_s=(0.003, 0.01, *[TIMEOUT_S] * 6), crowd=4)
"""Many clients of one resource, some of which cancel what others' requests wait behind."""
