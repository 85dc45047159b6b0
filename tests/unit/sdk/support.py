"""What the SDK's unit tests share: a small ledger service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from aegis_sdk import Context, Method, Rejected, ResourceContext, Service
from aegis_sdk.contract.envelope import OutcomeKind, Request
from aegis_sdk.testing import MemoryBus
from pydantic import BaseModel

WAIT_S: Final = 20.0
"""How long a test waits for what must happen: only a failing test waits that long."""
SERVICE: Final = "ledger"


class Add(BaseModel):
    n: int = 1
    tag: str = ""


ADD = Method(SERVICE, "add", request=Add, reply=int)
"""Adds to a resource's total, and returns it."""
ECHO = Method(SERVICE, "echo", request=str, reply=str)
"""A group method."""


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until `condition()` is true. Raises: TimeoutError."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - conditions of many objects that have no event
            await asyncio.sleep(0)


async def settle() -> None:
    """Returns when nothing can happen any more before time passes: then what did not happen, doesn't.

    The loop's own lists say so: nothing is ready to run, and no timer's time has come. In memory nothing else
    begins anything; a handler in a thread may still be at work. Raises: TimeoutError, while something goes on.
    """
    loop = cast(asyncio.BaseEventLoop, asyncio.get_running_loop())
    ready, timers = loop._ready, loop._scheduled  # type: ignore[attr-defined]
    async with asyncio.timeout(WAIT_S):
        await asyncio.sleep(0)
        while ready or (timers and timers[0].when() <= loop.time()):  # noqa: ASYNC110
            await asyncio.sleep(0)


@dataclass
class Runs:
    """What the ledger's handlers did: (request id, attempt) in order of their begins."""

    begun: list[tuple[str, int]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    holds: dict[str, asyncio.Event] = field(default_factory=dict)
    """tag or text: the handler waits for the event."""

    def hold(self, tag: str) -> asyncio.Event:
        self.holds[tag] = asyncio.Event()
        return self.holds[tag]

    async def note(self, ctx: Context, tag: str) -> None:
        self.begun.append((ctx.request_id, ctx.attempt))
        self.tags.append(tag)
        if tag in self.holds:
            await self.holds[tag].wait()


def ledger(runs: Runs | None = None) -> tuple[Service, Runs]:
    """A service whose `add` refuses negative numbers after it has changed the state."""
    service, seen = Service(SERVICE), runs or Runs()

    @service.handles(ADD)
    async def add(ctx: ResourceContext, request: Add) -> int:
        total: int = (ctx.state.get("total", int) or 0) + request.n
        ctx.state.set("total", total)
        ctx.state.set("tags", [*(ctx.state.get("tags", list) or []), request.tag])
        seen.epochs.append(ctx.epoch)
        await seen.note(ctx, request.tag)
        if request.n < 0:
            raise Rejected("negative", details={"n": request.n})
        return total

    @service.handles(ECHO)
    async def echo(ctx: Context, text: str) -> str:
        await seen.note(ctx, text)
        return text

    return service, seen


def add_request(request_id: str, n: int = 1, *, resource: str = "A", **more: Any) -> Request:
    body = ADD.request.encode(Add(n=n, tag=request_id))
    return Request(request_id, SERVICE, "add", resource, body, **more)


def echo_request(request_id: str, text: str = "hi", **more: Any) -> Request:
    return Request(request_id, SERVICE, "echo", None, ECHO.request.encode(text), **more)


def kinds(bus: MemoryBus) -> dict[str, OutcomeKind]:
    return {request_id: outcome.kind for request_id, outcome in bus.outcomes(SERVICE).items()}
