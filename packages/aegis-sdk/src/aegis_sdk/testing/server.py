"""The server's side of the bus in memory: the streams of all services, and who is told of what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from aegis_sdk.application.ports import StoreMissing
from aegis_sdk.application.turns.reads import Asked
from aegis_sdk.contract.control import SubscriptionRecord
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.contract.event import Event
from aegis_sdk.contract.turns.reads import Answered
from aegis_sdk.contract.turns.sent import Answer
from aegis_sdk.testing.clock import Clock, LoopClock
from aegis_sdk.testing.event_stream import EventStream
from aegis_sdk.testing.faults import Faults
from aegis_sdk.testing.groups import GroupConsumer
from aegis_sdk.testing.log_stream import LogStream
from aegis_sdk.testing.streams import Limits, RequestStream

T = TypeVar("T")
E = TypeVar("E")


class Hearer(Protocol):
    """A caller."""

    def hear_answer(self, request_id: str, answer: Answer) -> None: ...

    def hear_of(self, service: str, instance_id: str, resources: Collection[str]) -> None: ...


class Readable(Protocol):
    """An instance that may answer reads."""

    def takes(self, resource: str, *, at_standby: bool) -> bool: ...

    def arrive(self, asked: Asked, answer: Callable[[Answered], None]) -> None: ...


class MemoryServer:
    """The streams of one environment, and the faults on the way to them."""

    def __init__(
        self, *, faults: Faults | None = None, clock: Clock | None = None, ack_wait_s: float = 1.0
    ) -> None:
        self.faults = faults or Faults()
        self.clock: Clock = clock or LoopClock()
        self.ack_wait_s = ack_wait_s
        self.limits = Limits()
        self.dead_letters: dict[str, tuple[Request, Outcome]] = {}
        """By request id."""
        self.on_outcome: list[Callable[[str, Outcome], None]] = []
        """Who hears what was stored: (request id, outcome)."""
        self._requests: dict[str, RequestStream] = {}
        self._groups: dict[str, GroupConsumer] = {}
        self._logs: dict[str, LogStream] = {}
        self._events: dict[str, EventStream] = {}
        self.positions: dict[tuple[str, str], tuple[SubscriptionRecord, int]] = {}
        """Of subscriptions, with their revisions (subscriptions.py)."""
        self.served: dict[tuple[str, str], object] = {}
        """Who is sent the requests of a service's resources and members (turns.py)."""
        self.readers: dict[str, list[Readable]] = {}
        """By service: who is sent reads (reads.py)."""
        self.callers: list[Hearer] = []
        """Who hears what those who serve say."""

    def provision(self, service: str) -> None:
        """Make a service's streams, as control does when an instance registers. Safe twice."""
        if service not in self._requests:
            self._requests[service] = RequestStream(service, self.limits)
            self._groups[service] = GroupConsumer(self, self._requests[service])
            self._logs[service] = LogStream(self.limits)
            self.provision_events(service)

    def provision_events(self, service: str) -> None:
        """Also before the service is there: somebody subscribes. Safe twice."""
        self._events.setdefault(service, EventStream(self.limits))

    def services(self) -> list[str]:
        return sorted(self._requests)

    def requests(self, service: str) -> RequestStream:
        """Raises: StoreMissing."""
        return self._known(self._requests, service)

    def log(self, service: str) -> LogStream:
        """Raises: StoreMissing."""
        return self._known(self._logs, service)

    def events(self, service: str) -> EventStream:
        """Raises: StoreMissing."""
        return self._known(self._events, service)

    def emitted(self, event: Event[E]) -> list[E]:
        """What was emitted, in its order."""
        stored = self.events(event.service).all()
        payloads = [each.emitted.payload for each in stored if each.emitted.event == event.name]
        return [event.payload.decode(payload) for payload in payloads]

    def group(self, service: str) -> GroupConsumer:
        """Raises: StoreMissing."""
        return self._known(self._groups, service)

    def outcomes(self, service: str) -> dict[str, Outcome]:
        """All stored outcomes by request id, in the order in which they were stored."""
        return {record.request_id: record.outcome for record in self.log(service).records()}

    def republish(self, request_id: str, outcome: Outcome) -> None:
        """Hand a stored outcome to whoever hears."""
        for hear in list(self.on_outcome):
            hear(request_id, outcome)

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
