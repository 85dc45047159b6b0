"""A service that adds up for each resource, for suites about resources that come and go."""

from __future__ import annotations

from typing import Final

from aegis_sdk import Method, ResourceContext, Service

ADD: Final = Method("counters", "add", request=int, reply=int)


def counters() -> Service:
    service = Service("counters")

    @service.handles(ADD)
    async def add(ctx: ResourceContext, delta: int) -> int:
        total = (ctx.state.get("total", int) or 0) + delta
        ctx.state.set("total", total)
        return total

    return service
