"""The two worlds that each suite runs in: a bus in memory, and a real nats-server.

A world has what a suite needs beside the ports: streams of a fresh service, links of several processes,
what control knows, and ways to disturb. Both are made by `conftest`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aegis_control.bootstrap import Control as RealControl
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_control.infrastructure.nats_cluster import NatsCluster
from aegis_control.infrastructure.nats_streams import NatsStreams, StreamSettings
from aegis_control.settings import Settings
from aegis_sdk.application.ports import (
    Control,
    Deliveries,
    Directory,
    Letters,
    RequestLog,
)
from aegis_sdk.application.turns.lanes import Appender
from aegis_sdk.application.turns.ports import CallsOut, LastWord, Outcomes, WriterLog
from aegis_sdk.application.turns.serving import Readers
from aegis_sdk.contract.control import (
    InstanceRecord,
    LeaseRecord,
    LeaseState,
    MethodSpec,
    ServiceRecord,
)
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.entries import Moves
from aegis_sdk.contract.turns.events import Emitted
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.infrastructure.control_client import NatsControl
from aegis_sdk.infrastructure.directory import NatsDirectory
from aegis_sdk.infrastructure.events import event_appender
from aegis_sdk.infrastructure.letters import NatsLetters
from aegis_sdk.infrastructure.requests import NatsDeliveries, NatsRequestLog
from aegis_sdk.infrastructure.turns.assembly import NatsReaders
from aegis_sdk.infrastructure.turns.calls import Calls
from aegis_sdk.infrastructure.turns.last_word import LogsLastWord
from aegis_sdk.infrastructure.turns.log import TurnLog
from aegis_sdk.infrastructure.turns.outcomes import LogOutcomes
from aegis_sdk.nats.jetstream import JetStream
from aegis_sdk.nats.link import Link
from aegis_sdk.nats.login import Server
from aegis_sdk.testing import MemoryBus, MemoryLink
from aegis_sdk.testing.turns import MemoryReaders, MemoryTurnLog
from nats.errors import NoRespondersError

PAYLOAD_BYTES_MAX: Final = 64 * 1024
ACK_WAIT_S: Final = 0.4
WAIT_S: Final = 10.0
_numbers = itertools.count(1)


@dataclass
class Ports:
    """One process's view of the world. `caller` is its token in request ids, and the name of its writer."""

    requests: RequestLog
    log: WriterLog
    readers: Readers
    calls: CallsOut
    outcomes: Outcomes
    last_word: LastWord
    letters: Letters
    deliveries: Deliveries
    directory: Directory
    control: Control
    events: Appender[Emitted]
    caller: str


class World(Protocol):
    service: str

    async def connect(self) -> Ports:
        """The ports of another process."""

    async def cut(self, ports: Ports) -> None:
        """Take NATS away from that process, for good."""

    async def blink(self, ports: Ports) -> None:
        """Take NATS away from that process for a moment."""

    async def bound(self, *, requests: int | None = None) -> None:
        """How many messages the stream takes."""

    async def own(self, moves: dict[str, str]) -> None:
        """The log's first ownership entry, as control writes it."""

    async def put(self, *records: ServiceRecord | InstanceRecord | LeaseRecord) -> None:
        """What control knows of the service."""

    async def remove(self, instance_id: str) -> None:
        """The instance left: control deletes its record."""

    async def run_control(self) -> None: ...

    async def dead_letters(self) -> list[str]:
        """Request ids of the service's dead letters."""

    async def emitted(self) -> list[str]:
        """Ids of its stored events, in their order."""


class MemoryWorld:
    """A MemoryBus."""

    def __init__(self) -> None:
        self.service = f"svc{next(_numbers)}"
        self.bus = MemoryBus(ack_wait_s=ACK_WAIT_S)
        self.bus.limits.payload_bytes_max = PAYLOAD_BYTES_MAX
        self.bus.control.running = False
        self.bus.provision(self.service)
        self._links: dict[str, MemoryLink] = {}

    async def connect(self) -> Ports:
        link = self.bus.link(f"p{next(_numbers)}")
        self._links[link.name] = link
        return Ports(
            link.requests,
            MemoryTurnLog(link, self.service, writer=link.name, nonce=link.name),
            MemoryReaders(link, self.service, writer="", deliveries=link.deliveries),
            link.calls,
            link.outcomes,
            link.last_word,
            link.letters,
            link.deliveries,
            link.directory,
            link.control,
            link.events,
            link.name,
        )

    async def cut(self, ports: Ports) -> None:
        self._links[ports.caller].cut()

    async def blink(self, ports: Ports) -> None:
        self._links[ports.caller].cut()
        self._links[ports.caller].restore()

    async def bound(self, *, requests: int | None = None) -> None:
        self.bus.limits.requests_max = requests

    async def own(self, moves: dict[str, str]) -> None:
        self.bus.log(self.service).write("own.1", Moves(moves).encode())

    async def put(self, *records: ServiceRecord | InstanceRecord | LeaseRecord) -> None:
        control = self.bus.control
        for record in records:
            match record:
                case ServiceRecord():
                    control.services[self.service] = record
                case InstanceRecord():
                    control.instances[self.service, record.instance_id] = record
                case LeaseRecord():
                    control.leases[self.service, record.resource] = record

    async def remove(self, instance_id: str) -> None:
        del self.bus.control.instances[self.service, instance_id]

    async def run_control(self) -> None:
        self.bus.control.running = True

    async def dead_letters(self) -> list[str]:
        return list(self.bus.dead_letters)

    async def emitted(self) -> list[str]:
        return [stored.emitted.id for stored in self.bus.events(self.service).all()]

    async def close(self) -> None:
        for link in self._links.values():
            link.close()


class NatsWorld:
    """Streams of a fresh prefix on a nats-server or a cluster, made by control's own code."""

    def __init__(self, server: EmbeddedNats | NatsCluster) -> None:
        number = next(_numbers)
        self.service = f"svc{number}"
        self._server = server
        self._subjects = Subjects(f"t{number}")
        self._links: dict[str, Link] = {}
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        link = await Link.open(Server(self._server.url), name="control")
        self._stack.push_async_callback(link.close)
        self._control = JetStream(link)
        replicas = 3 if isinstance(self._server, NatsCluster) else 1
        settings = StreamSettings(ack_wait_s=ACK_WAIT_S, replicas=replicas)
        streams = NatsStreams(self._control, self._subjects, settings)
        await streams.provision_common()
        await streams.provision(self.service)
        await streams.provision_events(self.service)

    async def connect(self) -> Ports:
        link = await Link.open(Server(self._server.url), name="contract")
        caller = f"p{next(_numbers)}"
        self._links[caller] = link
        self._stack.push_async_callback(link.close)
        names = LogSubjects(self._subjects, self.service)
        log = TurnLog(link, names, writer=caller, nonce=caller)
        await log.open()
        calls = Calls(link, self._subjects, caller=caller)
        await calls.start()
        last_word = LogsLastWord(link, self._subjects, ends_kept_s=60.0)
        self._stack.push_async_callback(last_word.close)
        directory = NatsDirectory(link, self._subjects)
        self._stack.push_async_callback(directory.stop)
        return Ports(
            NatsRequestLog(link, self._subjects),
            log,
            NatsReaders(link, self._subjects, names, "", None),
            calls,
            LogOutcomes(link, self._subjects),
            last_word,
            NatsLetters(link, self._subjects),
            NatsDeliveries(link, self._subjects),
            directory,
            NatsControl(link, self._subjects),
            event_appender(link, self._subjects),
            caller,
        )

    async def cut(self, ports: Ports) -> None:
        await self._links[ports.caller].client.close()

    async def blink(self, ports: Ports) -> None:
        link = self._links[ports.caller]
        restored = asyncio.Event()

        async def on_restored() -> None:
            restored.set()

        link.on_restored(on_restored)
        transport: Any = link.client._transport
        transport.close()
        async with asyncio.timeout(WAIT_S):
            await restored.wait()

    async def bound(self, *, requests: int | None = None) -> None:
        name = self._subjects.request_stream(self.service)
        info = await self._control.api(f"STREAM.INFO.{name}")
        config = info["config"] | {"max_msgs": -1 if requests is None else requests}
        await self._control.api(f"STREAM.UPDATE.{name}", config)

    async def own(self, moves: dict[str, str]) -> None:
        subject = LogSubjects(self._subjects, self.service).own(1)
        await self._control.client.jetstream().publish(subject, Moves(moves).encode())

    async def put(self, *records: ServiceRecord | InstanceRecord | LeaseRecord) -> None:
        names = self._subjects
        stream = self._control.client.jetstream()
        for record in records:
            match record:
                case ServiceRecord():
                    key = f"{names.registry_bucket}.{names.service_key(self.service)}"
                case InstanceRecord():
                    name = names.instance_key(self.service, record.instance_id)
                    key = f"{names.registry_bucket}.{name}"
                case LeaseRecord():
                    key = f"{names.leases_bucket}.{names.lease_key(self.service, record.resource)}"
            await stream.publish(f"$KV.{key}", record.model_dump_json().encode())

    async def remove(self, instance_id: str) -> None:
        names = self._subjects
        key = f"{names.registry_bucket}.{names.instance_key(self.service, instance_id)}"
        stream = self._control.client.jetstream()
        await stream.publish(f"$KV.{key}", headers={"KV-Operation": "DEL"})

    async def run_control(self) -> None:
        settings = Settings(
            url=self._server.url,
            prefix=self._subjects.prefix,
            http_port=0,
            ack_wait_s=ACK_WAIT_S,
        )
        control = RealControl(settings)
        task = asyncio.create_task(control.run())

        async def stop() -> None:
            control.stop()
            await task

        self._stack.push_async_callback(stop)
        async with asyncio.timeout(WAIT_S):
            while not await self._control_answers():  # noqa: ASYNC110 - a process of its own
                await asyncio.sleep(0.01)

    async def _control_answers(self) -> bool:
        try:
            await self._control.client.request(self._subjects.admin("list-services"), b"{}")
        except (NoRespondersError, TimeoutError):
            return False
        return True

    async def dead_letters(self) -> list[str]:
        info = await self._control.api(
            f"STREAM.INFO.{self._subjects.dlq_stream}",
            {"subjects_filter": self._subjects.dead_letter(self.service, "*.*")},
        )
        counts: dict[str, int] = info["state"].get("subjects") or {}
        return [subject.split(".", 3)[3] for subject, n in counts.items() for _ in range(n)]

    async def emitted(self) -> list[str]:
        subject = self._subjects.emitted_all(self.service)
        stream = self._subjects.emitted_stream(self.service)
        reading = self._control.read(stream, [subject], {"deliver_policy": "all"})
        return [kept.subject.split(".", 5)[5] async for kept in reading]

    async def close(self) -> None:
        await self._stack.aclose()


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition()` is true. Raises: TimeoutError."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what the adapters do has no event of its own
            await asyncio.sleep(0.002)


def request(service: str, request_id: str, resource: str | None = "ACC 1", **more: Any) -> Request:
    return Request(request_id, service, "book", resource, b'{"n":1}', **more)


def executed(body: bytes = b"1", **more: Any) -> Outcome:
    return Outcome(OutcomeKind.EXECUTED, body, **more)


def service_record(service: str) -> ServiceRecord:
    methods = [MethodSpec(name="book", targeted=True), MethodSpec(name="price", targeted=False)]
    return ServiceRecord(service=service, methods=methods)


def instance_record(service: str, instance_id: str = "i-1") -> InstanceRecord:
    return InstanceRecord(service=service, instance_id=instance_id, incarnation="x")


def lease_record(service: str, resource: str, state: LeaseState = LeaseState.HELD) -> LeaseRecord:
    return LeaseRecord(
        service=service,
        resource=resource,
        state=state,
        owner="i-1",
        incarnation="x",
        epoch=1,
    )
