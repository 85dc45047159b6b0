"""A list in a resource's state that keeps every addition, also a second one of the same element."""

from __future__ import annotations

from aegis_sdk import ResourceContext


def append(ctx: ResourceContext, element: str) -> int:
    """Add `element`; its position, from 0."""
    position = ctx.state.get("count", int) or 0
    ctx.state.set(f"e{position}", element)
    ctx.state.set("count", position + 1)
    return position


def read(ctx: ResourceContext) -> list[str]:
    count = ctx.state.get("count", int) or 0
    return [str(ctx.state.get(f"e{position}")) for position in range(count)]
