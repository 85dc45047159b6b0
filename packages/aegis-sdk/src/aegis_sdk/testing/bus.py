"""The bus in memory, and links to it: each client of a test has its own, which can be cut or held up.

A link carries operations there and answers back, through the faults; what the server side stores and
checks is in `streams`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aegis_sdk.application.ports import Connected, StoreError, StoreMissing, StoreUnreachable
from aegis_sdk.contract.bodies import Fence
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.subjects import resource_token
from aegis_sdk.domain.journal import EntryKind
from aegis_sdk.testing.clock import Clock, LoopClock
from aegis_sdk.testing.control import MemoryControl, MemoryControlPort
from aegis_sdk.testing.deliveries import GroupConsumer, MemoryDeliveries
from aegis_sdk.testing.directory import MemoryDirectory
from aegis_sdk.testing.faults import Fault, Faults, Flow, Op
from aegis_sdk.testing.journal import MemoryJournal
from aegis_sdk.testing.replies import MemoryReplies
from aegis_sdk.testing.requests import MemoryRequestLog
from aegis_sdk.testing.streams import JournalStream, Limits, RequestStream, fence_key, outcome_of

T = TypeVar("T")


class MemoryBus:
    """Streams, registry and control of one environment. `link` connects a client to it."""

    def __init__(
        self, *, faults: Faults | None = None, clock: Clock | None = None, ack_wait_s: float = 1.0
    ) -> None:
        self.faults = faults or Faults()
        self.clock: Clock = clock or LoopClock()
        self.ack_wait_s = ack_wait_s
        self.limits = Limits()
        self.control = MemoryControl(self)
        self.dead_letters: dict[str, tuple[Request, Outcome]] = {}
        """By request id."""
        self.links: list[MemoryLink] = []
        self._requests: dict[str, RequestStream] = {}
        self._journals: dict[str, JournalStream] = {}
        self._groups: dict[str, GroupConsumer] = {}

    def link(self, name: str = "client") -> MemoryLink:
        """A new connection; `name` is for messages only."""
        link = MemoryLink(self, name)
        self.links.append(link)
        return link

    def provision(self, service: str) -> None:
        """Make a service's streams, as control does when an instance registers. Safe twice."""
        if service not in self._requests:
            self._requests[service] = RequestStream(service, self.limits)
            self._journals[service] = JournalStream(self.limits)
            self._groups[service] = GroupConsumer(self, self._requests[service])

    def requests(self, service: str) -> RequestStream:
        """Raises: StoreMissing."""
        return self._known(self._requests, service)

    def journal(self, service: str) -> JournalStream:
        """Raises: StoreMissing."""
        return self._known(self._journals, service)

    def group(self, service: str) -> GroupConsumer:
        """Raises: StoreMissing."""
        return self._known(self._groups, service)

    def outcomes(self, service: str) -> dict[str, Outcome]:
        """All stored outcomes by request id, in the order in which they were stored."""
        return {
            name: outcome_of(entry)
            for (_, kind, name), entry in self.journal(service).entries()
            if kind is EntryKind.OUTCOME
        }

    def write_fence(self, service: str, resource: str, fence: Fence) -> int:
        """Begin an epoch as control does; the fence's journal sequence."""
        key = fence_key(resource_token(resource))
        return self.journal(service).write(key, fence.model_dump_json().encode(), {}, rollup=True)

    def republish(self, request_id: str, outcome: Outcome) -> None:
        """Hand a stored outcome to every link, as the server does."""
        for link in list(self.links):
            link.replies.arrive(request_id, outcome)

    def soon(self, work: Callable[[], None]) -> None:
        """Run `work` a turn of the event loop later, or after a delay of the faults."""
        delay_s = self.faults.delay_s()
        if delay_s:
            self.clock.call_later(delay_s, work)
        else:
            asyncio.get_running_loop().call_soon(work)

    def _known(self, streams: dict[str, T], service: str) -> T:
        if service not in streams:
            raise StoreMissing(f"no stream for service {service!r}")
        return streams[service]


class MemoryLink:
    """One client's connection: its adapters, and the ways in which it fails."""

    def __init__(self, bus: MemoryBus, name: str) -> None:
        self.bus = bus
        self.name = name
        self.reachable = True
        self.connected = Connected(f"{name}-1")
        self.requests = MemoryRequestLog(self)
        self.journal = MemoryJournal(self)
        self.replies = MemoryReplies(self)
        self.directory = MemoryDirectory(self)
        self.deliveries = MemoryDeliveries(self)
        self.control = MemoryControlPort(self)
        self.on_restored: list[Callable[[], None]] = []
        self._connections = 1
        self._held: set[Flow] = set()
        self._pumps: list[tuple[Flow, Callable[[], None]]] = []

    # --- faults of this link --------------------------------------------------------------------------
    def cut(self) -> None:
        """NATS can't be reached: operations fail without a definite answer, and nothing arrives."""
        self.reachable = False
        self.connected.session = ""

    def restore(self) -> None:
        """Reachable again: readers start again, as the SDK's do after a reconnect."""
        self.reachable = True
        self._connections += 1
        self.connected.session = f"{self.name}-{self._connections}"
        for callback in list(self.on_restored):
            callback()
        self._pump_all()

    def hold(self, flow: Flow) -> None:
        """Let nothing of `flow` arrive until `release`."""
        self._held.add(flow)

    def release(self, flow: Flow) -> None:
        self._held.discard(flow)
        self._pump_all()

    def close(self) -> None:
        """The process is gone: nothing arrives any more, for ever."""
        self.cut()
        self._pumps.clear()
        self.on_restored.clear()
        if self in self.bus.links:
            self.bus.links.remove(self)

    # --- for the adapters -----------------------------------------------------------------------------
    def lets(self, flow: Flow) -> bool:
        return self.reachable and flow not in self._held

    def add_pump(self, flow: Flow, pump: Callable[[], None]) -> None:
        self._pumps.append((flow, pump))

    def drop_pump(self, flow: Flow, pump: Callable[[], None]) -> None:
        if (flow, pump) in self._pumps:
            self._pumps.remove((flow, pump))

    def _pump_all(self) -> None:
        for flow, pump in list(self._pumps):
            if self.lets(flow):
                pump()

    async def call(self, op: Op, effect: Callable[[], T]) -> T:
        """Carry an operation out, and its answer back. Raises: StoreUnreachable, what `effect` raises."""
        await self._travel()
        fault = self.bus.faults.draw(op)
        self._check_reached(fault is not Fault.LOST)
        refusal: StoreError | None = None
        try:
            result = effect()
        except StoreError as error:
            refusal = error
        await self._travel()
        self._check_reached(fault is not Fault.LOST_ANSWER)
        if refusal is not None:
            raise refusal
        return result

    def _check_reached(self, arrived: bool) -> None:
        if not (self.reachable and arrived):
            raise StoreUnreachable(f"link {self.name}: no answer")

    async def _travel(self) -> None:
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.bus.soon(lambda: None if arrived.done() else arrived.set_result(None))
        await arrived
