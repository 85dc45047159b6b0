"""Makes requests of events: what another service emitted becomes a stored request to the resource, or the group, that handles it.

Theory of operation. A subscription has a position: up to there each event is a request, stored in this service's stream, or a dead
letter. Who relays reads the stream of events from behind the position, in order, stores each event's request, and moves the
position on. Requests for one resource are stored in the order of the events (lanes.py). From there on they are requests as all
others are: one effect each, through failovers, whoever runs them.

An event's request has an id made of the stream and of the event's place in it. So its places are what a client's numbers are:
each resource knows the highest that it has settled, and takes none twice (domain/turns/sessions.py).

One instance of the service relays a subscription, the one that the registry's list gives it to. That is for the cost alone.
Two may be at it, while the list changes or after one has slept. Each begins at a position, before which all is stored,
and leaves out nothing; so of what they store, the first of each event is in order, and the second is told by its id.
The position may therefore be late, and is stored now and then.

A position belongs to one stream. If that one is gone and made again, the subscription begins at the new one's beginning. If it is an older
copy, it goes on with what was stored since. Both are told, and both give the events ids of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aegis_sdk.application.letters import keep_letter
from aegis_sdk.application.ports import (
    AlreadyStored,
    Directory,
    Letters,
    StoreError,
    StoreForbidden,
    StoreMissing,
)
from aegis_sdk.application.turns.lanes import Appender, Item, Lanes
from aegis_sdk.contract.control import SubscriptionRecord
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.names import encode_token
from aegis_sdk.contract.subscription import Subscription
from aegis_sdk.contract.trace import new_traceparent
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.errors import AegisError
from aegis_sdk.telemetry import about, log
from aegis_sdk.words import said, said_of, said_type

LOOK_S: Final = 0.2
"""How often an instance looks whether a subscription is its own to relay."""
SAVE_S: Final = 0.25
WAIT_S_MAX: Final = 1.0
TELL_S: Final = 60.0
PREPARE_S: Final = 3.0
ASK_TRIES: Final = 10
CLOCKS_APART_S: Final = 5.0
NOT_ROUTED: Final = "not_routed"
"""The error code of a dead letter: nobody can tell which resource the event is for."""


@dataclass(frozen=True, slots=True)
class StreamSight:
    """A stream of events now. `id` is another one when it was made again."""

    id: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class Came:
    """An event as it was read: its place, and its name, which no other event has."""

    seq: int
    name: str
    stored_s: float
    payload: bytes
    traceparent: str


class EventSource(Protocol):
    """A running reader of one event: what it gives comes in order, each once, within its credit."""

    @property
    def is_doubted(self) -> bool:
        """It had to begin again: the stream may be another one since."""

    async def start(self, *, after: int) -> None:
        """Give what is behind place `after`. Raises: StoreForbidden."""

    async def stop(self) -> None: ...

    def finished(self) -> None:
        """One is out of hand: its credit may be used again."""


class EventsIn(Protocol):
    """The streams of events of all services. All raise StoreMissing, StoreUnreachable."""

    async def look(self, service: str) -> StreamSight: ...

    async def since(self, service: str, at_s: float) -> int:
        """The place behind which all is that was stored at `at_s` (Unix time) or later."""

    async def name_at(self, service: str, seq: int) -> str:
        """Of the event at that place; empty when it is gone."""

    def reader(self, service: str, event: str, on_event: Callable[[Came], None]) -> EventSource: ...


class Positions(Protocol):
    """How far each subscription is."""

    async def load(self, service: str, takes: str) -> tuple[SubscriptionRecord | None, int]:
        """The record and its revision; None and 0 when there is none. Raises: StoreMissing, StoreUnreachable."""

    async def save(self, record: SubscriptionRecord, revision: int) -> int:
        """Its new revision. Raises: AlreadyStored, when it has another one by now; StoreMissing, StoreUnreachable."""


@dataclass(frozen=True, slots=True)
class RelayPorts:
    events: EventsIn
    positions: Positions
    requests: Appender[Request]
    letters: Letters


class Unroutable(Exception):
    """Nobody can tell which resource an event is for."""


def resource_of(subscription: Subscription, payload: bytes) -> str | None:
    """Whom an event is for; None: the group. Raises: Unroutable."""
    if subscription.resource is None:
        return None
    try:
        resource = subscription.resource(subscription.method.request.decode(payload))
    except AegisError as error:
        raise Unroutable(str(error)) from error
    except Exception as error:  # users' code
        raise Unroutable(f"its `resource` raised {said_of(error)}") from error
    if not isinstance(resource, str):
        raise Unroutable(
            f"its `resource` gave {said(resource, chars_max=80)} (a {said_type(resource)}), and no resource's id"
        )
    try:
        encode_token(resource)
    except AegisError as error:
        raise Unroutable(str(error)) from error
    return resource


def request_caller(record: SubscriptionRecord) -> str:
    """What the ids of its events' requests begin with. No client's token has a colon, and none may have a hyphen."""
    stream = f"{record.stream}/{record.generation}".encode()
    digest = hashlib.blake2b(stream, digest_size=4).hexdigest()
    return f"{record.takes.replace('.', ':').replace('-', '=')}:{digest}"


def chosen(takes: str, takers: Iterable[str]) -> str:
    """Who of them relays: the same for all who ask, and another one for each event, as far as there are so many."""
    return max(takers, key=lambda name: (zlib.crc32(f"{takes} {name}".encode()), name))


class _Taking(Item[Request]):
    """An event on its way."""

    __slots__ = ("came", "is_done")

    def __init__(self, request: Request, came: Came) -> None:
        super().__init__(request)
        self.came = came
        self.is_done = False


class Relay:
    """One subscription at one instance. `is_chosen`: whether this one relays it. `ask_for`: is told of each stored request."""

    def __init__(
        self,
        service: str,
        subscription: Subscription,
        ports: RelayPorts,
        *,
        is_chosen: Callable[[], bool],
        ask_for: Callable[[Request], None],
        together: bool,
    ) -> None:
        self._service = service
        self._ask_for = ask_for
        self._subscription = subscription
        self._takes = subscription.takes
        self._emitter = subscription.event.service
        self._ports = ports
        self._is_chosen = is_chosen
        self._together = together
        self._told_s = float("-inf")
        self._was_missing = False
        self.lacks_stream = False

    # --- the position -----------------------------------------------------------------------------------------
    async def prepare(self) -> None:
        """Returns when the subscription has a position: what is emitted from now on is taken. Raises: StoreError."""
        try:
            record, _ = await self._ports.positions.load(self._service, self._takes)
            if record is None:
                with contextlib.suppress(AlreadyStored):  # another instance's is as good
                    await self._ports.positions.save(await self._new(), 0)
        except StoreMissing:
            self.lacks_stream = self._was_missing = True
            raise
        self.lacks_stream = False

    async def _new(self) -> SubscriptionRecord:
        """Raises: StoreError."""
        sight = await self._ports.events.look(self._emitter)
        begin = self._subscription.begin
        if begin.seq is not None:
            seq = begin.seq - 1
        elif begin.at_s is not None:
            seq = await self._ports.events.since(self._emitter, begin.at_s)
        else:
            seq = 0 if self._was_missing else sight.last_seq  # it was made since: all of it is new
        return SubscriptionRecord(
            service=self._service, takes=self._takes, stream=sight.id, seq=seq, since=time.time()
        )

    async def _judged(self, record: SubscriptionRecord) -> SubscriptionRecord:
        """Is the stream the one that the position is of? Raises: StoreError."""
        events = self._ports.events
        sight = await events.look(self._emitter)
        if sight.id != record.stream:
            seq, what = 0, "was made again: the subscription begins at its beginning"
        elif record.seq > sight.last_seq and record.name:
            seq = await events.since(self._emitter, record.taken_s + 1e-6)
            what = "is an older copy: the subscription goes on with what was stored since"
        elif record.name and (await events.name_at(self._emitter, record.seq)) not in (
            "",
            record.name,
        ):
            seq = await events.since(self._emitter, record.taken_s + 1e-6)
            what = "holds another event at the position: the subscription goes on with what was stored since"
        else:
            return record
        log.error(
            "events_replaced",
            service=self._service,
            event_taken=self._takes,
            reason=f"the stream of events of {self._emitter} {what}",
        )
        update = {
            "stream": sight.id, "generation": record.generation + 1, "seq": seq, "name": "", "taken_s": 0.0,
        }  # fmt: skip
        return record.model_copy(update=update)

    # --- relaying ---------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """For ever: relays while it is chosen."""
        n = 0
        while True:
            if not self._is_chosen():
                await asyncio.sleep(LOOK_S)
                continue
            try:
                await self.prepare()
                record, revision = await self._ports.positions.load(self._service, self._takes)
                if record is not None:
                    await self._relay(await self._judged(record), revision)
                n = 0
            except AlreadyStored:
                continue  # another instance has moved the position on
            except StoreError as error:
                self.lacks_stream = isinstance(error, StoreMissing)
                self._tell(error)
                n += 1
                await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=WAIT_S_MAX))

    async def _relay(self, record: SubscriptionRecord, revision: int) -> None:
        """Until another instance is chosen, or the stream is in doubt. Raises: StoreError."""
        run = _Run(self._subscription, self._ports, record, revision, together=self._together)
        source = self._ports.events.reader(self._emitter, self._subscription.event.name, run.came)
        run.source, run.ask_for = source, self._ask_for
        try:
            await source.start(after=record.seq)
            while self._is_chosen() and not source.is_doubted:
                error = await run.step()
                if error is not None:
                    self._tell(error)
        finally:
            await source.stop()
        await run.save()

    def _tell(self, error: StoreError) -> None:
        if time.monotonic() - self._told_s > TELL_S:
            self._told_s = time.monotonic()
            log.warning(
                "subscription_waits",
                service=self._service,
                event_taken=self._takes,
                error=f"{type(error).__name__}: {error}",
            )


class _Run:
    """One stretch of relaying, by one reader."""

    def __init__(
        self,
        subscription: Subscription,
        ports: RelayPorts,
        record: SubscriptionRecord,
        revision: int,
        *,
        together: bool,
    ) -> None:
        self._subscription = subscription
        self._ports = ports
        self._record = record
        self._revision = revision
        self._caller = request_caller(record)
        self._lanes: Lanes[Request] = Lanes(ports.requests, together=together)
        self._came: deque[Came] = deque()
        self._wake = asyncio.Event()
        self._open: deque[_Taking] = deque()
        """Read and not yet behind the position, in order."""
        self._is_moved = False
        self._saved_s = time.monotonic()
        self._failures = 0
        self._suspect_s = time.time() + CLOCKS_APART_S
        """Unix time: an event that was stored before may have been relayed by another instance."""
        self.source: EventSource
        self.ask_for: Callable[[Request], None] = lambda request: None

    def came(self, event: Came) -> None:
        self._came.append(event)
        self._wake.set()

    async def step(self) -> StoreError | None:
        """Store what has come, or wait for more. Why something could not be stored. Raises: StoreError."""
        while self._came:
            await self._take(self._came.popleft())
        error: StoreError | None = None
        if len(self._lanes):
            done, error = await self._lanes.step()
            for item in done:
                await self._stored(item)
        else:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
        if self._is_moved and time.monotonic() - self._saved_s >= SAVE_S:
            await self.save()
        if error is None:
            self._failures = 0
        else:
            self._failures += 1
            await asyncio.sleep(backoff_s(self._failures, first_s=0.02, max_s=WAIT_S_MAX))
        return error

    async def _take(self, came: Came) -> None:
        try:
            resource = resource_of(self._subscription, came.payload)
        except Unroutable as error:
            item = _Taking(self._request(came, None), came)
            self._open.append(item)
            await self._refuse(item, NOT_ROUTED, str(error))
            return
        item = _Taking(self._request(came, resource), came)
        self._open.append(item)
        self._lanes.add(item.message.request_id if resource is None else resource, item)

    def _request(self, came: Came, resource: str | None) -> Request:
        method = self._subscription.method
        return Request(
            request_id=f"{self._caller}.{came.seq}",
            service=method.service,
            method=method.name,
            resource=resource,
            payload=came.payload,
            # No session tells what the group has done: it looks, wherever another may have stored the same.
            attempt=2 if resource is None and came.stored_s < self._suspect_s else 1,
            traceparent=new_traceparent(came.traceparent),
        )

    async def _stored(self, item: Item[Request]) -> None:
        assert isinstance(item, _Taking)
        if item.too_large is not None:
            await self._refuse(item, "too_large", str(item.too_large))
        else:
            self._is_done(item)
            self.ask_for(item.message)

    async def _refuse(self, item: _Taking, code: str, why: str) -> None:
        """It holds nobody up."""
        request = item.message
        why = f"event {self._subscription.takes} at {item.came.seq}: {why}"
        log.error("request_dead_lettered", **about(request), error_code=code, error=why)
        outcome = Outcome.error(OutcomeKind.FAILED, code, why)
        await keep_letter(self._ports.letters, request, outcome)
        self._is_done(item)

    def _is_done(self, item: _Taking) -> None:
        item.is_done = True
        self.source.finished()
        while self._open and self._open[0].is_done:
            came = self._open.popleft().came
            self._record.seq, self._record.name = came.seq, came.name
            self._record.taken_s = came.stored_s
            self._is_moved = True

    async def save(self) -> None:
        """Raises: StoreError, AlreadyStored among them: another instance relays, and has stored its position."""
        if self._is_moved:
            self._revision = await self._ports.positions.save(self._record, self._revision)
            self._is_moved, self._saved_s = False, time.monotonic()


class Relays:
    """Of one instance: all subscriptions of its service."""

    def __init__(
        self,
        service: str,
        subscriptions: Iterable[Subscription],
        ports: RelayPorts,
        *,
        instance_id: str,
        directory: Directory | None,
        together: bool,
    ) -> None:
        """`directory`: None: there is this instance alone."""
        self._service = service
        self._directory = directory
        self._instance_id = instance_id
        self._tasks: list[asyncio.Task[None]] = []
        self._asked: set[str] = set()
        """Resources that are asked for now."""
        self._aside: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
        self._relays = [self._relay(service, each, ports, together) for each in subscriptions]

    def _relay(
        self, service: str, subscription: Subscription, ports: RelayPorts, together: bool
    ) -> Relay:
        def is_chosen() -> bool:
            if self._directory is None:
                return True
            takers = self._directory.takers(service, subscription.takes)
            return self._instance_id in takers and self._instance_id == chosen(
                subscription.takes, takers
            )

        return Relay(
            service,
            subscription,
            ports,
            is_chosen=is_chosen,
            ask_for=self._ask_for,
            together=together,
        )

    def _ask_for(self, request: Request) -> None:
        """Its resource may be one that comes on demand: an event asks for it as a caller does."""
        resource, directory = request.resource, self._directory
        if resource is None or directory is None or resource in self._asked:
            return
        if not directory.admits(self._service, request.method, resource):
            self._asked.add(resource)
            self._aside(self._ask(directory, request.method, resource))

    async def _ask(self, directory: Directory, method: str, resource: str) -> None:
        """The request is stored, and waits in any case."""
        for n in range(1, ASK_TRIES):
            with contextlib.suppress(AegisError, StoreError):
                await directory.check(self._service, method, resource)
                break
            await asyncio.sleep(backoff_s(n, first_s=0.1, max_s=2.0))
        self._asked.discard(resource)

    async def begin(self, aside: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        """Returns when each subscription has a position, or soon. Raises: StoreForbidden."""
        if not self._relays:
            return
        self._aside = aside
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PREPARE_S):
                await asyncio.gather(*map(_prepared, self._relays))
        self._tasks = [aside(relay.run()) for relay in self._relays]

    @property
    def lacking(self) -> list[str]:
        """Services whose stream of events is not there."""
        return [relay._emitter for relay in self._relays if relay.lacks_stream]

    async def stop(self) -> None:
        """Another instance goes on. Safe twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _prepared(relay: Relay) -> None:
    for n in range(1, 1_000):
        try:
            await relay.prepare()
            return
        except StoreForbidden:
            raise
        except StoreError:
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=0.5))
