"""A service on a real server: its streams, instances in this process, and who says who owns what."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_cluster import NatsCluster
from aegis_sdk import Method, ReadContext, ResourceContext, Service
from aegis_sdk.application.ports import AlreadyStored
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.subjects import GROUP_CONSUMER, Subjects
from aegis_sdk.contract.turns.streams import log_stream
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.domain.turns.entries import Turn
from aegis_sdk.errors import OutcomeUnknown
from aegis_sdk.infrastructure.turns.assembly import EveryoneThere, TurnClient, TurnInstance
from aegis_sdk.infrastructure.turns.log import TurnLog, store_gate
from aegis_sdk.infrastructure.turns.reader import LogReader
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from pydantic import BaseModel

SERVICE: Final = "accounts"
WAIT_S: Final = 30.0
START_S: Final = 60.0
"""Of a process, while callers keep the machine busy."""
_numbers = itertools.count(1)


class Add(BaseModel):
    n: int


class Sum(BaseModel):
    total: int
    count: int
    epoch: int


ADD: Final = Method(SERVICE, "add", request=Add, reply=Sum)
ADD_SLOWLY: Final = Method(SERVICE, "add_slowly", request=Add, reply=Sum)
TOTAL: Final = Method(SERVICE, "total", request=str, reply=int)
"""Read."""
GREET: Final = Method(SERVICE, "greet", request=Add, reply=Sum)
"""A group request."""


def add(ctx: ResourceContext, request: Add) -> Sum:
    total, count = ctx.state.get("total", int) or 0, ctx.state.get("count", int) or 0
    ctx.state.set("total", total + request.n)
    ctx.state.set("count", count + 1)
    return Sum(total=total + request.n, count=count + 1, epoch=ctx.epoch)


def adder(*, wait_s: float = 0.0, before: Callable[[], Any] = lambda: None) -> Service:
    """`add` is pure, `add_slowly` waits in between."""
    service = Service(SERVICE)
    service.handles(ADD, pure=True)(add)

    @service.handles(ADD_SLOWLY)
    async def add_slowly(ctx: ResourceContext, request: Add) -> Sum:
        before()
        await asyncio.sleep(wait_s)
        return add(ctx, request)

    return service


def reading(**more: Any) -> Service:
    """`adder` with a reader."""
    service = adder(**more)

    @service.reads(TOTAL)
    def total(ctx: ReadContext, key: str) -> int:
        return ctx.state.get(key, int) or 0

    return service


class World:
    """One service on one server or cluster, with a prefix of its own."""

    def __init__(self, server: EmbeddedNats | NatsCluster, prefix: str = "") -> None:
        self.server = server
        self.subjects = Subjects(prefix or f"t{next(_numbers)}")
        self.names = LogSubjects(self.subjects, SERVICE)
        self.stack = AsyncExitStack()
        self.replicas = 3 if isinstance(server, NatsCluster) else 1

    async def open(self) -> None:
        link = await self.link()
        await link.api(
            f"STREAM.CREATE.{self.names.stream}", log_stream(self.names, replicas=self.replicas)
        )
        requests = self.subjects.request_stream(SERVICE)
        await link.api(
            f"STREAM.CREATE.{requests}",
            {
                "name": requests,
                "subjects": [self.subjects.requests(SERVICE)],
                "storage": "file",
                "retention": "limits",
                "duplicate_window": 120 * 10**9,
                "allow_direct": True,
                "num_replicas": self.replicas,
            },
        )
        group = {
            "durable_name": GROUP_CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": 10**9,
            "max_deliver": -1,
            "filter_subject": self.subjects.request(SERVICE, None),
        }
        await link.api(
            f"CONSUMER.DURABLE.CREATE.{requests}.{GROUP_CONSUMER}",
            {"stream_name": requests, "config": group},
        )

    async def close(self) -> None:
        await self.stack.aclose()

    async def link(self) -> Link:
        link = await Link.open(Server(self.server.url), name="turns")
        self.stack.push_async_callback(link.close)
        return link

    async def instance(
        self,
        instance_id: str,
        resources: Iterable[str],
        service: Service | None = None,
        **more: Any,
    ) -> TurnInstance:
        """One that has read all of the log."""
        made = TurnInstance(
            await self.link(),
            self.subjects,
            service or adder(),
            instance_id=instance_id,
            resources=resources,
            batched=self.replicas > 1,
            **more,
        )
        self.stack.push_async_callback(made.stop)
        await made.start()
        return made

    async def client(self, members: Sequence[str] = (), **more: Any) -> TurnClient:
        made = TurnClient(
            await self.link(), self.subjects, directory=EveryoneThere(members), **more
        )
        await made.start()
        self.stack.push_async_callback(made.close)
        return made


class Owners:
    """Stands for control: says who owns what."""

    def __init__(self, link: Link, names: LogSubjects) -> None:
        self._log = TurnLog(link, names, writer="nobody", nonce="")
        self._number = 0

    async def move(self, moves: Mapping[str, str]) -> int:
        """The number of the entry."""
        while True:
            self._number += 1
            try:
                await self._log.own(self._number, moves)
                return self._number
            except AlreadyStored:
                continue


async def give(world: World, instance: TurnInstance, resources: Iterable[str]) -> None:
    """Returns when it serves them."""
    wanted = set(resources)
    await Owners(await world.link(), world.names).move(dict.fromkeys(wanted, instance.writer))
    async with asyncio.timeout(WAIT_S):
        await instance.host.until(lambda: wanted <= instance.host.serving)


@asynccontextmanager
async def a_world(server: EmbeddedNats | NatsCluster) -> AsyncIterator[World]:
    world = World(server)
    await world.open()
    try:
        yield world
    finally:
        await world.close()


class Worker:
    """`worker.py` as a process."""

    def __init__(self, process: asyncio.subprocess.Process, writer: str) -> None:
        self._process = process
        self.writer = writer

    @classmethod
    async def start(
        cls,
        world: World,
        instance_id: str,
        resources: Iterable[str],
        *,
        module: str = "tests.integration.turns.worker",
    ) -> Worker:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, world.server.url, world.subjects.prefix, instance_id),
            *resources,
            stdout=asyncio.subprocess.PIPE,
        )
        world.stack.push_async_callback(_killed, process)
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            return cls(process, (await process.stdout.readline()).decode().strip())

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def ended(self) -> None:
        await self._process.wait()

    async def said(self) -> str:
        """Its next line. Raises: EOFError, when it has ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise EOFError(f"it ended: {self._process.returncode}")
        return line.decode().strip()


async def _killed(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def composed(
    client: TurnClient, method: str, resource: str | None, payload: bytes, *, timeout_s: float
) -> Request:
    """A request under the client's next number."""
    return client.requester._composer.compose(
        *(Method(SERVICE, method, request=Any, reply=Any), json.loads(payload)),
        resource=resource,
        key=None,
        deadline_s=time.time() + timeout_s,
        traceparent="",
    )


class Told:
    """What callers were told, to be compared with the log."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.sent: dict[str, str] = {}
        """Request id to resource."""
        self.unknown: list[str] = []

    async def call(
        self,
        client: TurnClient,
        resource: str | None,
        method: str = "add",
        *,
        timeout_s: float = WAIT_S,
    ) -> Outcome | None:
        """None when nobody knows."""
        try:
            return await self.call_with(client, resource, method, b'{"n":1}', timeout_s=timeout_s)
        except OutcomeUnknown as error:
            self.unknown.append(error.request_id)
            return None

    async def call_with(
        self,
        client: TurnClient,
        resource: str | None,
        method: str,
        payload: bytes,
        *,
        timeout_s: float = WAIT_S,
    ) -> Outcome:
        """Raises: OutcomeUnknown."""
        request = composed(client, method, resource, payload, timeout_s=timeout_s)
        self.sent[request.request_id] = resource or ""
        made = Method(SERVICE, method, request=Any, reply=Any)
        outcome = await client.caller.settle(request, made, again=False)
        self.outcomes[request.request_id] = outcome
        return outcome

    def wrong(
        self, stored: Mapping[str, list[Outcome]], order: Mapping[str, list[Outcome]]
    ) -> list[str]:
        """What does not fit: `stored` by request, `order` by resource."""
        found = []
        for request_id, outcomes in stored.items():
            if len(outcomes) > 1:
                found.append(f"{request_id} has {len(outcomes)} outcomes")
        for request_id, told in self.outcomes.items():
            there = stored.get(request_id)
            if told.kind is OutcomeKind.EXECUTED and (there is None or there[0].body != told.body):
                found.append(f"{request_id} was told executed, and the log says {there}")
            if (
                told.kind is OutcomeKind.CANCELLED
                and there
                and there[0].kind is OutcomeKind.EXECUTED
            ):
                found.append(f"{request_id} was told cancelled, and took effect")
        for resource, outcomes in order.items():
            counts = [
                json.loads(o.body)["count"] for o in outcomes if o.kind is OutcomeKind.EXECUTED
            ]
            if counts != list(range(1, len(counts) + 1)):
                found.append(f"{resource} counted {counts}")
        return found


async def read_log(world: World) -> tuple[dict[str, list[Outcome]], dict[str, list[Outcome]]]:
    """All outcomes in the log by request, and by resource in their order."""
    link = await world.link()
    marker = await store_gate(link, world.names, "reader")
    stored: dict[str, list[Outcome]] = {}
    order: dict[str, list[Outcome]] = {}

    def read(entry: object) -> None:
        if isinstance(entry, Turn):
            for settled in entry.settled:
                stored.setdefault(settled.request_id, []).append(settled.outcome)
                order.setdefault(settled.resource, []).append(settled.outcome)

    unreadable: list[str] = []
    reader = LogReader(
        link,
        world.names,
        on_entry=read,
        on_unreadable=lambda seq, why, words: unreadable.append(why),
    )
    await reader.start()
    async with asyncio.timeout(WAIT_S):
        await reader.reached(marker)
    await reader.stop()
    assert unreadable == []
    return stored, order
