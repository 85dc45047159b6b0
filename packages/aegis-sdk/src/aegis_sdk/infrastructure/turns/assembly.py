"""Puts the second form's parts together on one connection: an instance, and a caller. For its tests and the bench so far."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from aegis_sdk.application.following import until_answered
from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.ports import Directory
from aegis_sdk.application.requester import Requester
from aegis_sdk.application.resource_host import PAUSE_LEASE_S, SEEN_TOLD_MAX
from aegis_sdk.application.serving import CATCH_UP_S_MAX
from aegis_sdk.application.threads import Threads
from aegis_sdk.application.tracing import LOG_TRACER, Tracer
from aegis_sdk.application.turns.caller import Caller
from aegis_sdk.application.turns.deliveries import CREDIT, Deliveries
from aegis_sdk.application.turns.further import Further
from aegis_sdk.application.turns.host import TurnHost
from aegis_sdk.application.turns.sending import UNSENT_S
from aegis_sdk.context import Asks
from aegis_sdk.contract.control import ResourceSeen
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.contract.turns.writers import writer_name
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.turns.writer import OUTCOMES_KEPT_S
from aegis_sdk.infrastructure.directory import NatsDirectory
from aegis_sdk.infrastructure.letters import NatsLetters
from aegis_sdk.infrastructure.log_watch import LogWatch
from aegis_sdk.infrastructure.requests import NatsDeliveries, NatsRequestLog
from aegis_sdk.infrastructure.turns.calls import Calls
from aegis_sdk.infrastructure.turns.last_word import LogsLastWord
from aegis_sdk.infrastructure.turns.log import TurnLog
from aegis_sdk.infrastructure.turns.outcomes import LogOutcomes
from aegis_sdk.infrastructure.turns.reader import LogReader, OnEntry, OnUnreadable
from aegis_sdk.infrastructure.turns.sent import SentRequests
from aegis_sdk.infrastructure.turns.start import newest_checkpoints
from aegis_sdk.infrastructure.turns.stored import StoredRequests
from aegis_sdk.nats.link import Link
from aegis_sdk.service import Service
from aegis_sdk.telemetry import log

Req = TypeVar("Req")
Rep = TypeVar("Rep")

ENDS_KEPT_S: Final = 600.0


class TurnInstance:
    """An instance of `service` that follows `resources`, and serves those that the log gives to its writer.

    What application/serving.py has of the first form: `Instance` serves by either.
    """

    def __init__(
        self,
        link: Link,
        subjects: Subjects,
        service: Service,
        *,
        instance_id: str,
        incarnation: str = "",
        resources: Iterable[str],
        asks: Asks | None = None,
        ends_kept_s: float = ENDS_KEPT_S,
        unsent_s: float = UNSENT_S,
        outcomes_kept_s: float = OUTCOMES_KEPT_S,
        ack_wait_s: float = 1.0,
        log_id: str = "",
        batched: bool = False,
        watch: LogWatch | None = None,
        recorder: Recorder = NO_RECORDER,
        tracer: Tracer = LOG_TRACER,
        on_stopped: Callable[[str], None] = lambda why: None,
    ) -> None:
        """`asks` makes its handlers' requests; without one, it takes everybody to be there. `watch` knows the log's identity.
        `batched`: the log has several copies, where checks of one gate refuse each other.
        `on_stopped`: why nothing is served any more, unless `on_copied` or `on_behind` are set.
        """
        self._client: TurnClient | None = None
        if asks is None:
            self._client = TurnClient(link, subjects, directory=EveryoneThere())
            asks = self._client.requester
        names = LogSubjects(subjects, service.name)
        self.writer = writer_name(instance_id, incarnation or secrets.token_hex(4))
        self._link = link
        self.log_id = log_id
        self.on_copied: Callable[[str], None] = on_stopped
        self.on_behind: Callable[[str], None] = on_stopped
        self.on_lost: Callable[[str], None] = _unheard
        self.on_unreadable: Callable[[str], None] = _unheard
        self.log = TurnLog(
            link, names, writer=self.writer, log_id=log_id, nonce=secrets.token_hex(8), watch=watch
        )
        self.runner = Runner(
            service,
            instance_id=instance_id,
            asks=asks,
            threads=Threads(f"aegis-{service.name}"),
            tracer=tracer,
        )
        self.host = TurnHost(
            self.writer,
            service=service,
            runner=self.runner,
            log_=self.log,
            sent=SentRequests(link, names),
            isolation=Isolation(),
            requests=NatsRequestLog(link, subjects),
            letters=NatsLetters(link, subjects),
            connected=link.connected,
            deliveries=Deliveries(ack_wait_s=ack_wait_s),
            ends_kept_s=ends_kept_s,
            unsent_s=unsent_s,
            outcomes_kept_s=outcomes_kept_s,
            log_id=log_id,
            batched=batched,
            recorder=recorder,
            on_copied=self._is_copied,
            on_behind=self._is_behind,
        )
        self.host.on_unreadable = self._is_unreadable
        self.host.on_unknown = self._hold
        self._resources = list(resources)
        self._names = names
        self._service = service
        self._deliveries = NatsDeliveries(link, subjects, watch)
        self._reader = self._make_reader(self.host.entry, self.host.unreadable, watch)
        self._stored = StoredRequests(
            link, subjects, service.name, on_request=self.host.stored_request, watch=watch
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        if watch is not None:
            watch.kept = self._a_checkpoint

    def _is_copied(self, why: str) -> None:
        self.on_copied(why)

    def _is_behind(self, why: str) -> None:
        self.on_behind(why)

    def _is_unreadable(self, resource: str) -> None:
        self.on_unreadable(resource)

    def _make_reader(
        self, on_entry: OnEntry, on_unreadable: OnUnreadable, watch: LogWatch | None
    ) -> LogReader:
        return LogReader(
            self._link,
            self._names,
            on_entry=on_entry,
            on_unreadable=on_unreadable,
            own=self.writer,
            watch=watch,
        )

    async def start(self) -> None:
        """Returns when all that was stored before is read."""
        await self.begin()
        await self.host.until(lambda: self.host.may_write or self.host.has_stopped)
        await self.start_group()

    async def begin(self) -> None:
        """Reads the log from now on, and serves what is this writer's."""
        if self._client is not None:
            await self._client.start()
        checkpoints = await until_answered(
            lambda: newest_checkpoints(self._link, self._names, self._resources)
        )
        await self._reader.start(after=self.host.follow(self._resources, checkpoints))
        await self._stored.start()
        self._link.on_restored(self._restored)
        await self.host.start()

    async def start_group(self, *, unless: Callable[[], bool] = lambda: False) -> None:
        """When the log is read, or soon: these need nothing of it, and this instance may be the only one that serves them.
        `unless`: asked then; an instance that drains by then takes nothing new.
        """
        if all(handler.targeted for handler in self._service.handlers.values()):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_S_MAX):
                await self.host.until(lambda: self.host.may_write or self.host.has_stopped)
        if self._stopped or unless():
            return
        source = await until_answered(
            lambda: self._deliveries.open_group(
                self._service.name, credit=CREDIT, on_delivery=self.host.group_delivery
            )
        )
        self.host.begin_group(source)

    async def drain(self, *, timeout_s: float) -> None:
        """Finish what has begun, and begin nothing more. The group first: from the pause of its resources to their
        handover nobody serves them.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.host.leave_group()
                await self.host.pause(None, lease_s=0.0)
        self.host.deliveries.give_up_all()

    async def pause(
        self, resources: Sequence[str] | None, *, timeout_s: float, lease_s: float = PAUSE_LEASE_S
    ) -> bool:
        """Begin nothing new on `resources`; True when all that had begun has ended."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.host.pause(resources, lease_s=lease_s)
        except TimeoutError:
            return False
        return True

    def resume(self, resources: Sequence[str] | None = None) -> None:
        self.host.resume(resources)

    async def stop(self) -> None:
        """At once; safe twice."""
        self._stopped = True
        self._link.off_restored(self._restored)
        for task in list(self._tasks):
            task.cancel()
        await self.host.stop()
        if self._client is not None:
            await self._client.close()
        await self._reader.stop()
        await self._stored.stop()

    def withdraw(self) -> None:
        self.host.withdraw()

    def seen(self) -> dict[str, ResourceSeen]:
        """What is known of resources, as many as one message can tell of."""
        writer = self.host.writer
        ours_first = sorted(
            writer.held, key=lambda name: writer.ownership.owner(name) != writer.name
        )
        return {
            name: ResourceSeen(epoch=writer.ownership.epoch(name))
            for name in ours_first[:SEEN_TOLD_MAX]
        }

    def _a_checkpoint(self) -> str:
        """One that is in the log for certain: it is replaced, never removed, while its resource is served here."""
        held = self.host.writer.held
        saved = next((name for name in self.host.serving if held[name].saved >= 0), None)
        return "" if saved is None else self._names.checkpoint(saved)

    @property
    def active_resources(self) -> list[str]:
        return sorted(self.host.serving)

    @property
    def active(self) -> int:
        return len(self.host.serving)

    @property
    def paused(self) -> int:
        return len(self.host.paused)

    @property
    def unreadable(self) -> int:
        return self.host.unreadable_count

    @property
    def requests_done(self) -> int:
        return self.host.requests_done

    @property
    def lag_entries(self) -> int:
        """What it has yet to read of the log."""
        return self._reader.lag_entries

    @property
    def position(self) -> int:
        """The last entry of the log that it read."""
        return self._reader.position

    def reconnected(self) -> None:
        """Told by the link itself (`_restored`)."""

    async def _restored(self) -> None:
        self.host.restored()

    # --- resources that come later --------------------------------------------------------------------------------
    def _hold(self, resources: list[str]) -> None:
        task = asyncio.get_running_loop().create_task(self._read_further(resources))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_further(self, resources: list[str]) -> None:
        """The log gives them to this writer, which does not hold them: another fold reads them, and is adopted."""
        log.info("resources_read_later", writer=self.writer, resources=len(resources))
        while True:
            fold = self.host.writer.further()
            checkpoints = await until_answered(
                lambda: newest_checkpoints(self._link, self._names, resources)
            )
            for resource in resources:
                checkpoint, saved_s = checkpoints.get(resource, (None, 0.0))
                fold.restore(resource, checkpoint, saved_s=saved_s)
            further = Further(fold, self.host)
            reader = self._make_reader(further.entry, further.unreadable, None)
            await reader.start(after=fold.position)
            try:
                if await further.done:
                    return
            finally:
                await reader.stop()


class TurnClient:
    """A caller on `link`."""

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
        """`directory`: what control says of the services, unless another one is given."""
        caller = caller or secrets.token_hex(6)
        self._link = link
        self._calls = Calls(link, subjects, caller=caller)
        self._last_word = LogsLastWord(link, subjects, ends_kept_s=ends_kept_s)
        self._directory = directory or NatsDirectory(link, subjects)
        self.caller = Caller(
            calls=self._calls,
            requests=NatsRequestLog(link, subjects),
            last_word=self._last_word,
            outcomes=LogOutcomes(link, subjects),
            directory=self._directory,
            recorder=recorder,
        )
        self.requester = Requester(
            self.caller,
            caller=caller,
            payload_bytes_max=lambda: link.usable().payload_bytes_max,
            recorder=recorder,
            tracer=tracer,
        )

    async def start(self) -> None:
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
        if isinstance(self._directory, NatsDirectory):
            await self._directory.stop()

    async def _restored(self) -> None:
        caller = secrets.token_hex(6)
        await self._calls.rename(caller, is_open=self.caller.open.is_any)
        self.requester.rename(caller)
        self.caller.restored()


class EveryoneThere:
    """A Directory without control: whatever is asked for is taken to be there, and `instances` to serve the group."""

    def __init__(self, instances: Sequence[str] = ()) -> None:
        self._instances = instances

    def admits(self, service: str, method: str, resource: str | None) -> bool:
        return True

    def members(self, service: str) -> Sequence[str]:
        return self._instances

    def lost(self, service: str) -> str:
        return ""

    def requests_log(self, service: str) -> str:
        return ""

    async def check(self, service: str, method: str, resource: str | None) -> None:
        return


def _unheard(_: str) -> None: ...
