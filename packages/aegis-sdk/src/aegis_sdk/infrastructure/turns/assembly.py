"""Puts the parts together on one connection: of an instance, and of a caller.

It decides nothing. What it has to get right is who shares what:

- One link carries an instance's log, its readers, what is sent to it, and the requests of its own handlers. When it is
  lost, all of them are in doubt at the same moment, and all begin again behind the same `restored`.
- The writer's name goes to the log (`TurnLog`), to the core (`TurnServing`), and to the main reader alone (`own`). That
  reader gives the writer's own turns without their outcomes, since the core has them in memory. A further reader is a fold
  of its own, which has nothing in memory: it must be given everything.
- Of the readers, the main ones alone tell the watch. What a further reader reads is older than what the instance has
  passed, and would be taken for the newest.
- The nonce is made here and kept nowhere else. It stands in each turn's first line, so that two processes that were started
  under one identity never write the same bytes (R10). A copy of a running process has it, too, and is told by its claims.

Heartbeats have a link of their own (pulse.py), registration goes by `control_client`. `aegis_sdk.instance` joins them to this.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from aegis_sdk.application.ports import Delivery, Directory, GroupSource
from aegis_sdk.application.requester import Requester
from aegis_sdk.application.tracing import LOG_TRACER, Tracer
from aegis_sdk.application.turns.caller import Caller
from aegis_sdk.application.turns.ports import FoundCheckpoint
from aegis_sdk.application.turns.relaying import RelayPorts
from aegis_sdk.application.turns.serving import (
    ENDS_KEPT_S,
    OnEntry,
    OnStored,
    OnUnreadable,
    TurnPorts,
    TurnServing,
)
from aegis_sdk.context import Asks
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.contract.turns.writers import writer_name
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.turns.entries import Own
from aegis_sdk.infrastructure.directory import NatsDirectory
from aegis_sdk.infrastructure.events import event_appender, request_appender
from aegis_sdk.infrastructure.letters import NatsLetters
from aegis_sdk.infrastructure.log_watch import LogWatch
from aegis_sdk.infrastructure.requests import NatsDeliveries, NatsRequestLog
from aegis_sdk.infrastructure.subscriptions import NatsEventsIn, NatsPositions
from aegis_sdk.infrastructure.turns.calls import Calls
from aegis_sdk.infrastructure.turns.last_word import LogsLastWord
from aegis_sdk.infrastructure.turns.log import TurnLog
from aegis_sdk.infrastructure.turns.outcomes import LogOutcomes
from aegis_sdk.infrastructure.turns.reader import LogReader
from aegis_sdk.infrastructure.turns.reads import NatsReadsIn, NatsReadsOut
from aegis_sdk.infrastructure.turns.sent import SentRequests
from aegis_sdk.infrastructure.turns.start import newest_checkpoints, newest_own
from aegis_sdk.infrastructure.turns.stored import StoredRequests
from aegis_sdk.nats.link import Link
from aegis_sdk.service import Service

Req = TypeVar("Req")
Rep = TypeVar("Rep")


class NatsReaders:
    """Readers (application/turns/serving.py). `own`: the writer that knows its own turns."""

    def __init__(
        self, link: Link, subjects: Subjects, names: LogSubjects, own: str, watch: LogWatch | None
    ) -> None:
        """`watch` None: nobody knows the log's identity, as without control; then nothing is compared."""
        self._link = link
        self._subjects = subjects
        self._names = names
        self._own = own
        self._watch = watch

    def log(self, on_entry: OnEntry, on_unreadable: OnUnreadable, *, is_main: bool) -> LogReader:
        return LogReader(
            self._link,
            self._names,
            on_entry=on_entry,
            on_unreadable=on_unreadable,
            own=self._own if is_main else "",
            watch=self._watch if is_main else None,
        )

    def requests(
        self,
        on_request: OnStored,
        on_past: Callable[[int], None],
        resources: Collection[str] | None = None,
    ) -> StoredRequests:
        return StoredRequests(
            self._link,
            self._subjects,
            self._names.service,
            on_request=on_request,
            on_past=on_past,
            resources=resources,
            watch=self._watch if resources is None else None,
        )

    async def checkpoints(self, resources: Collection[str]) -> Mapping[str, FoundCheckpoint]:
        return await newest_checkpoints(self._link, self._names, list(resources))

    async def newest_own(self) -> Own | None:
        return await newest_own(self._link, self._names)

    async def open_group(
        self, *, credit: int, on_delivery: Callable[[Delivery], None]
    ) -> GroupSource:
        deliveries = NatsDeliveries(self._link, self._subjects, self._watch)
        return await deliveries.open_group(
            self._names.service, credit=credit, on_delivery=on_delivery
        )


class TurnInstance(TurnServing):
    """An instance of `service` on `link` that follows `resources`, and serves those that the log gives to its writer.

    It lives from `begin` to `stop`, once: an instance that has to start anew is another one, with another writer. The link is
    its caller's, who closes it after `stop`. It does not register: who owns what, it reads in the log.
    """

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        service: Service,
        *,
        instance_id: str,
        incarnation: str = "",
        asks: Asks | None = None,
        log_id: str = "",
        watch: LogWatch | None = None,
        **more: Any,
    ) -> None:
        """`asks` makes its handlers' requests; without one, it takes everybody to be there. `watch` knows the log's identity.

        `incarnation` tells this start from others of the same `instance_id`; made here, unless control was told it already.
        `log_id` is what control answered to the registration. `more` goes to TurnServing.
        """
        self._client: TurnClient | None = None
        if asks is None:
            self._client = TurnClient(link, subjects, directory=EveryoneThere())
            asks = self._client.requester
        self._link = link
        self._names = names = LogSubjects(subjects, service.name)
        writer = writer_name(instance_id, incarnation or secrets.token_hex(4))
        self.log = TurnLog(
            link, names, writer=writer, log_id=log_id, nonce=secrets.token_hex(8), watch=watch
        )
        ports = TurnPorts(
            connected=link.connected,
            log=self.log,
            sent=SentRequests(link, names),
            reads=NatsReadsIn(link, names),
            requests=NatsRequestLog(link, subjects),
            letters=NatsLetters(link, subjects),
            events=event_appender(link, subjects),
            relaying=RelayPorts(
                NatsEventsIn(link, subjects),
                NatsPositions(link, subjects),
                request_appender(link, subjects),
                NatsLetters(link, subjects),
            ),
            readers=NatsReaders(link, subjects, names, writer, watch),
        )
        super().__init__(
            service,
            ports,
            writer=writer,
            instance_id=instance_id,
            asks=asks,
            log_id=log_id,
            **more,
        )
        if watch is not None:
            watch.kept = self._a_checkpoint

    async def begin(self) -> None:
        """Its own client first: a handler may ask somebody as soon as a request is read. Raises: StoreUnreachable,
        StoreForbidden.
        """
        if self._client is not None:
            await self._client.start()
        self._link.on_restored(self._restored)
        await super().begin()

    async def stop(self) -> None:
        """In the opposite order: what its handlers asked for is ended when no handler runs any more. Safe twice."""
        self._link.off_restored(self._restored)
        await super().stop()
        if self._client is not None:
            await self._client.close()

    def reconnected(self) -> None:
        """Told by the link itself (`_restored`)."""

    async def _restored(self) -> None:
        super().reconnected()

    def _a_checkpoint(self) -> str:
        """One that is in the log for certain: it is replaced, never removed, while its resource is served here."""
        held = self.host.writer.held
        saved = next((name for name in self.host.serving if held[name].saved >= 0), None)
        return "" if saved is None else self._names.checkpoint(saved)


class TurnClient:
    """A caller on `link`, which is its maker's: `close` ends what is open, and leaves the link.

    Its requests' ids are `<caller>.<n>`. After a new connection it goes by another name: a copy of this process (a machine
    that was cloned and goes on) counts on from the same number under the same name, and two requests of one id would be
    taken for one. A copy has a connection of its own, so each of the two renames itself.
    """

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        *,
        caller: str = "",
        directory: Directory | None = None,
        ends_kept_s: float = ENDS_KEPT_S,
        recorder: Recorder = NO_RECORDER,
        tracer: Tracer = LOG_TRACER,
    ) -> None:
        """`directory`: what control says of the services, unless another one is given. `ends_kept_s`: how long the log keeps an
        end of a request that was only sent; R9 lets no owner run one that is older than half of it.
        """
        caller = caller or secrets.token_hex(6)
        self._link = link
        self._calls = Calls(link, subjects, caller=caller)
        self._last_word = LogsLastWord(link, subjects, ends_kept_s=ends_kept_s, recorder=recorder)
        self.directory: Directory = directory or NatsDirectory(link, subjects)
        self.caller = Caller(
            calls=self._calls,
            requests=NatsRequestLog(link, subjects),
            last_word=self._last_word,
            outcomes=LogOutcomes(link, subjects),
            directory=self.directory,
            recorder=recorder,
        )
        reads = NatsReadsOut(link, subjects)
        self.requester = Requester(
            self.caller,
            caller=caller,
            payload_bytes_max=lambda: link.usable().payload_bytes_max,
            reads=reads,
            recorder=recorder,
            tracer=tracer,
        )

    async def start(self) -> None:
        """Listen for answers: before the first request, whose answer would be lost. Raises: StoreUnreachable."""
        await self._calls.start()
        self._link.on_restored(self._restored)

    async def request(
        self,
        method: Method[Req, Rep],
        payload: Req,
        *,
        resource: str | None = None,
        timeout_s: float,
        key: str | None = None,
    ) -> Rep:
        return await self.requester.request(
            method, payload, resource=resource, timeout_s=timeout_s, key=key
        )

    async def close(self, *, drain_s: float = 0.0) -> None:
        self._link.off_restored(self._restored)
        await self.requester.close(drain_s=drain_s)
        await self._last_word.close()
        if isinstance(self.directory, NatsDirectory):
            await self.directory.stop()

    async def _restored(self) -> None:
        """A new connection. In this order: answers to the new name are heard before a request goes by it, and what is open
        under the old one is then stored (the doubt of a lost connection).
        """
        caller = secrets.token_hex(6)
        await self._calls.rename(caller, is_open=self.caller.open.is_any)
        self.requester.rename(caller)
        self.caller.restored()


class EveryoneThere:
    """A Directory without control: whatever is asked for is taken to be there, and `instances` to serve the group."""

    def __init__(self, instances: Sequence[str] = ()) -> None:
        self._instances = instances

    def admits(
        self, service: str, method: str, resource: str | None, *, is_read: bool = False
    ) -> bool:
        return True

    def members(self, service: str) -> Sequence[str]:
        return self._instances

    def takers(self, service: str, takes: str) -> Sequence[str]:
        return self._instances

    def lost(self, service: str) -> str:
        return ""

    def requests_log(self, service: str) -> str:
        return ""

    async def check(
        self, service: str, method: str, resource: str | None, *, is_read: bool = False
    ) -> None:
        return
