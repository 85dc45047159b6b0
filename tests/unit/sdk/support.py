"""What the SDK's unit tests share: a small ledger service, and one resource's world on a MemoryBus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from aegis_sdk import Context, Method, Rejected, ResourceContext, Service
from aegis_sdk.application.actor import Actor
from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.ports import Accepted, Connected, Delivery
from aegis_sdk.application.resource_host import ResourceHost
from aegis_sdk.application.threads import Threads
from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.domain.delivery import Arrival
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.testing import MemoryBus, MemoryLink
from aegis_sdk.testing.harness import make_requester
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


class Hosted:
    """One instance's ResourceHost on a bus, with its parts in reach."""

    def __init__(
        self,
        bus: MemoryBus,
        instance_id: str = "i-1",
        *,
        runs: Runs | None = None,
        service: Service | None = None,
        recorder: Recorder = NO_RECORDER,
        **options: Any,
    ) -> None:
        self.bus = bus
        bus.provision(SERVICE)
        self.id = instance_id
        self.link: MemoryLink = bus.link(instance_id)
        made, self.runs = ledger(runs)
        self.service = service or made
        self.threads = Threads("test", at_work_max=2)
        self.requester = make_requester(self.link, caller=instance_id)
        self.isolation = Isolation()
        self.host = ResourceHost(
            self.service,
            instance_id=instance_id,
            incarnation=f"{instance_id}-run",
            connected=Connected(),
            runner=Runner(
                self.service, instance_id=instance_id, asks=self.requester, threads=self.threads
            ),
            isolation=self.isolation,
            store=self.link.journal,
            reader=self.link.journal,
            deliveries=self.link.deliveries,
            recorder=recorder,
            **{"checkpoint_rest_s": 0.0, **options},
        )

    async def start(self, *resources: str) -> None:
        await self.host.start(resources or ["A"])
        await settle()

    async def stop(self) -> None:
        await self.host.stop()
        await self.requester.close()
        self.link.close()
        self.threads.close()

    def actor(self, resource: str = "A") -> Actor:
        return self.host.actors[resource]

    def total(self, resource: str = "A") -> int:
        return int(self.actor(resource).journal.values.get("total", 0))


def fence(
    bus: MemoryBus,
    hosted: Hosted | str,
    epoch: int,
    *,
    resource: str = "A",
    grant: str = "",
    start_seq: int = 1,
    size: int = 1,
) -> int:
    """Begin an epoch for an instance; the fence's sequence."""
    owner = hosted if isinstance(hosted, str) else hosted.id
    return bus.write_fence(
        SERVICE,
        resource,
        Fence(
            epoch=epoch,
            owner=owner,
            incarnation=f"{owner}-run",
            grant=grant or f"g-{owner}-{epoch}",
            grant_size=size,
            start_seq=start_seq,
        ),
    )


def send(bus: MemoryBus, request: Request) -> Accepted:
    return bus.requests(SERVICE).append(request, now_s=bus.clock.now_s())


def stored(bus: MemoryBus, request_id: str) -> Outcome | None:
    return bus.outcomes(SERVICE).get(request_id)


def kinds(bus: MemoryBus) -> dict[str, OutcomeKind]:
    return {request_id: outcome.kind for request_id, outcome in bus.outcomes(SERVICE).items()}


@dataclass
class Hand:
    """A delivery made by hand, and what was done with it."""

    acked: int = 0
    extended: int = 0
    handed_back: int = 0

    def delivery(
        self,
        request: Request,
        seq: int,
        *,
        grant: str = "",
        delivered: int = 1,
        suspect: bool = False,
    ) -> Delivery:
        def ack() -> None:
            self.acked += 1

        def extend() -> None:
            self.extended += 1

        def hand_back(delay_s: float) -> None:
            self.handed_back += 1

        return Delivery(request, Arrival(seq, delivered, suspect), grant, ack, extend, hand_back)
