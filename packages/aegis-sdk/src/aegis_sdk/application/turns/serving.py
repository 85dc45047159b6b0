"""What serves in an instance, over its ports: put together here alone, for NATS and for the bus in memory.

Also the order in which the parts begin and end. The group begins last, when this instance has
read the log: until then others serve it better. It ends first: from the pause of its resources to their handover nobody serves
them. Resources that the log gives to this instance and that it does not hold are read by another fold, beside it (further.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.patience import until_answered
from aegis_sdk.application.ports import (
    Connected,
    Delivery,
    Directory,
    GroupSource,
    Letters,
    RequestLog,
    StoreError,
)
from aegis_sdk.application.threads import Threads
from aegis_sdk.application.tracing import LOG_TRACER, Tracer
from aegis_sdk.application.turns.deliveries import CREDIT, Deliveries
from aegis_sdk.application.turns.further import Further, Kept
from aegis_sdk.application.turns.host import TurnHost
from aegis_sdk.application.turns.lanes import Appender
from aegis_sdk.application.turns.ports import FoundCheckpoint, Sent, WriterLog
from aegis_sdk.application.turns.reads import ReadsIn
from aegis_sdk.application.turns.relaying import RelayPorts, Relays
from aegis_sdk.application.turns.sending import UNSENT_S
from aegis_sdk.context import Asks
from aegis_sdk.contract.control import ResourceSeen
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.turns.events import Emitted
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.turns.entries import Claim, Entry, Own
from aegis_sdk.domain.turns.states import HeldState
from aegis_sdk.domain.turns.writer import OUTCOMES_KEPT_S, Writer
from aegis_sdk.service import Service
from aegis_sdk.telemetry import log

ENDS_KEPT_S: Final = 600.0
CATCH_UP_S_MAX: Final = 1.0
"""How long an instance that starts may read the log before it takes group requests. These need nothing of the
journal, and this instance may be the only one that serves them."""
PAUSE_LEASE_S: Final = 5.0
SEEN_TOLD_MAX: Final = 1_000
FORGET_S: Final = 0.5
"""What a removed resource's last owner has to read is stored by then, and comes in a moment."""

OnEntry = Callable[[Entry | Claim], None]
OnUnreadable = Callable[[int, str, Sequence[str]], None]
OnStored = Callable[[Request, int, float], None]
"""A request, its place in the stream, and when it was stored (Unix time)."""


@dataclass(frozen=True, slots=True)
class Coming:
    """Resources that control is asked for, and what is read of the log meanwhile."""

    names: list[str]
    kept: Kept


class Source(Protocol):
    """A running reader, of the log or of the stored requests: what it gives comes in order."""

    async def start(self, *, after: int = 0) -> None:
        """Give what is behind position `after`. Raises: StoreForbidden."""

    async def stop(self) -> None: ...


class LogSource(Source, Protocol):
    @property
    def position(self) -> int:
        """The last entry that was given."""

    @property
    def lag_entries(self) -> int:
        """Stored and not given yet, as of the last one given."""

    async def read_to_end(self) -> None:
        """Return when all was given that the log has now. Raises: StoreError."""


class Readers(Protocol):
    """Makes the readers of one service's log and requests."""

    def log(self, on_entry: OnEntry, on_unreadable: OnUnreadable, *, is_main: bool) -> LogSource:
        """`is_main`: the instance's own, by which it knows that it is still the same log."""

    def requests(
        self,
        on_request: OnStored,
        on_past: Callable[[int], None],
        resources: Collection[str] | None = None,
    ) -> Source:
        """`on_past` is told up to where all were given, or are gone. `resources`: only theirs, and beside the instance's own
        reader.
        """

    async def checkpoints(self, resources: Collection[str]) -> Mapping[str, FoundCheckpoint]:
        """The newest of each that has one. Raises: StoreError."""

    async def newest_own(self) -> Own | None:
        """The newest ownership entry; None while there is none. Raises: StoreError."""

    async def open_group(
        self, *, credit: int, on_delivery: Callable[[Delivery], None]
    ) -> GroupSource:
        """Raises: StoreError."""


@dataclass(frozen=True, slots=True)
class TurnPorts:
    """What serving needs from outside."""

    connected: Connected
    log: WriterLog
    sent: Sent
    reads: ReadsIn
    requests: RequestLog
    letters: Letters
    events: Appender[Emitted]
    relaying: RelayPorts
    readers: Readers


class TurnServing:
    """Follows `resources`, and serves those that the log gives to `writer`."""

    def __init__(
        self,
        service: Service,
        ports: TurnPorts,
        *,
        writer: str,
        instance_id: str,
        resources: Iterable[str],
        asks: Asks,
        log_after: int = 0,
        directory: Directory | None = None,
        ends_kept_s: float = ENDS_KEPT_S,
        unsent_s: float = UNSENT_S,
        outcomes_kept_s: float = OUTCOMES_KEPT_S,
        ack_wait_s: float = 1.0,
        log_id: str = "",
        batched: bool = False,
        recorder: Recorder = NO_RECORDER,
        tracer: Tracer = LOG_TRACER,
        on_stopped: Callable[[str], None] = lambda why: None,
    ) -> None:
        """`asks` makes its handlers' requests. `directory`: who relays subscriptions (relaying.py). `log_after`: what the
        log has of resources without a checkpoint, or of none yet, stands behind it. `batched`: the log has several copies, where checks of one gate refuse
        each other. `on_stopped`: why nothing is served any more, unless `on_copied` or
        `on_behind` are set.
        """
        self.writer = writer
        self.log_id = log_id
        self.on_copied: Callable[[str], None] = on_stopped
        self.on_behind: Callable[[str], None] = on_stopped
        self.on_lost: Callable[[str], None] = _unheard
        self.on_unreadable: Callable[[str], None] = _unheard
        self._coming = 0
        """Additions whose resources are not all followed yet."""
        self._following: set[asyncio.Task[None]] = set()
        self._further: list[LogSource] = []
        """Readers beside the instance's own."""
        self.runner = Runner(
            service,
            instance_id=instance_id,
            asks=asks,
            threads=Threads(f"aegis-{service.name}"),
            tracer=tracer,
        )
        self.host = TurnHost(
            writer,
            service=service,
            runner=self.runner,
            log_=ports.log,
            sent=ports.sent,
            reads=ports.reads,
            isolation=Isolation(),
            requests=ports.requests,
            letters=ports.letters,
            events=ports.events,
            connected=ports.connected,
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
        self._log_after = log_after
        self._service = service
        self._readers = ports.readers
        self._reader = ports.readers.log(self.host.entry, self.host.unreadable, is_main=True)
        self.host.reads.lag_entries = lambda: self._reader.lag_entries
        self.host.reads.read_to_end = self._reader.read_to_end
        self._stored = ports.readers.requests(self.host.stored_request, self.host.past_requests)
        self._relays = Relays(
            service.name,
            service.subscriptions.values(),
            ports.relaying,
            instance_id=instance_id,
            directory=directory,
            together=batched,
        )
        self._stopped = False

    def _is_copied(self, why: str) -> None:
        self.on_copied(why)

    def _is_behind(self, why: str) -> None:
        self.on_behind(why)

    def _is_unreadable(self, resource: str) -> None:
        self.on_unreadable(resource)

    async def start(self) -> None:
        """Returns when all that was stored before is read."""
        await self.begin()
        await self.host.until(lambda: self.host.may_write or self.host.has_stopped)
        await self.start_group()

    async def begin(self) -> None:
        """Reads the log from now on, and serves what is this writer's."""
        checkpoints = await until_answered(lambda: self._readers.checkpoints(self._resources))
        # Behind that: what comes later is read, since nothing here has read further.
        own = await until_answered(self._readers.newest_own)
        if own is not None:
            self.host.writer.take_holds(own.number, own.holds)
        if not self._resources:  # what comes later is read by further folds
            self.host.writer.begin(self._log_after)
        begins = self.host.follow(self._resources, checkpoints, after=self._log_after)
        await self._reader.start(after=begins)
        await self._stored.start()
        await self.host.start()
        await self._relays.begin(self.host.aside)

    async def start_group(self, *, unless: Callable[[], bool] = lambda: False) -> None:
        """When the log is read, or soon: these need nothing of it, and this instance may be the only one that serves them.
        `unless`: asked then; an instance that drains by then takes nothing new.
        """
        handlers = self._service.handlers.values()
        if all(handler.targeted and not handler.takes for handler in handlers):
            return  # an event that could not be routed comes by the group when it is sent again
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_S_MAX):
                await self.host.until(lambda: self.host.may_write or self.host.has_stopped)
        if self._stopped or unless():
            return
        source = await until_answered(
            lambda: self._readers.open_group(credit=CREDIT, on_delivery=self.host.group_delivery)
        )
        self.host.begin_group(source)

    async def drain(self, *, timeout_s: float) -> None:
        """Finish what has begun, and begin nothing more. The group first: from the pause of its resources to their
        handover nobody serves them.
        """
        await self._relays.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.host.leave_group()
                await self.host.pause(None, lease_s=0.0)
        self.host.deliveries.give_up_all()

    async def leave(self) -> None:
        """Behind `drain`, when control has given its resources away: tell callers who do not know it yet."""
        await self.host.leave()

    async def pause(
        self, resources: Sequence[str] | None, *, timeout_s: float, lease_s: float = PAUSE_LEASE_S
    ) -> bool:
        """Begin nothing new on `resources`; True when all that had begun has ended."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.host.pause(resources, lease_s=lease_s)
        except TimeoutError:
            return False

    def resume(self, resources: Sequence[str] | None = None) -> None:
        self.host.resume(resources)

    async def stop(self) -> None:
        """At once; safe twice."""
        self._stopped = True
        await self._relays.stop()
        await self.host.stop()
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
        waits_from = self.host.waits_from()
        return {
            name: ResourceSeen(
                epoch=writer.ownership.epoch(name),
                done=self.host.requests_done_of(name, waits_from),
            )
            for name in ours_first[:SEEN_TOLD_MAX]
        }

    def idle(self) -> dict[str, int]:
        """Resources that are served and have nothing to do, each with the number of its last outcome."""
        writer = self.host.writer
        return {
            name: writer.held[name].number for name in self.host.serving if writer.is_idle(name)
        }

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
    def hand_ins(self) -> int:
        return self.host.hand_ins

    @property
    def timers_open(self) -> int:
        return self.host.timers_open

    @property
    def lacking(self) -> list[str]:
        """Services whose stream of events is needed and not there."""
        own = [self._service.name] if self.host.emitter.lacks_stream else []
        return own + self._relays.lacking

    @property
    def holds_number(self) -> int:
        return self.host.holds_number

    def held_counts(self) -> tuple[int, int]:
        return self.host.held_counts()

    @property
    def open(self) -> int:
        return len(self.host.writer.desk.open)

    @property
    def requests_done(self) -> int:
        return 0 if self._coming else self.host.requests_done

    @property
    def lag_entries(self) -> int:
        """What it has yet to read of the log."""
        return max(reader.lag_entries for reader in (self._reader, *self._further))

    @property
    def waits_for(self) -> str:
        """What is missing before it serves all that the log gives it; empty when nothing is."""
        if not self.host.may_write:
            return f"its log is not read yet ({self.lag_entries} entries are left)"
        if self._coming:
            return "resources that were added are not read yet"
        held, serving = self.host.writer.held.values(), self.host.serving
        own = (each for each in held if each.state is not HeldState.FOLLOWING)
        late = [each.name for each in own if not (each.unreadable or each.name in serving)]
        return f"{late[0]} is not served yet, 1 of {len(late)}" if late else ""

    async def ready(self) -> None:
        """Return when nothing is missing."""
        await self.host.until(lambda: not self.waits_for)

    @property
    def position(self) -> int:
        """The last entry of the log that it read."""
        return self._reader.position

    def reconnected(self) -> None:
        self.host.restored()

    # --- resources that come later --------------------------------------------------------------------------------
    def expect(self, resources: Collection[str]) -> Coming:
        """Control is about to be asked for them: those that are not followed yet. `add` them, or `unexpect` them."""
        self.host.keep(resources)  # one that is being forgotten
        held, host = self.host.writer.held, self.host
        new = [name for name in resources if not (name in held or host.is_expected(name))]
        self.host.expect(new)
        self._coming += 1
        return Coming(new, Kept(host))

    def add(self, coming: Coming, *, log_after: int) -> None:
        """Follow what was expected. What the log has of those without a checkpoint stands behind `log_after`."""
        if self._stopped:
            return  # who serves next is told all that is offered
        following = self.host.aside(self._follow(coming, log_after))
        self._following.add(following)
        following.add_done_callback(self._following.discard)

    def unexpect(self, coming: Coming) -> None:
        """They do not come, or have come."""
        self._coming -= 1
        coming.kept.close()
        self.host.unexpect(coming.names)

    async def release(self, resources: Collection[str], *, timeout_s: float) -> bool:
        """Begin nothing new on what this instance gives up; True when all that had begun has ended, else it goes on."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._following:
                    await asyncio.wait(self._following)
                await self.host.release(resources)
        except TimeoutError:
            self.keep(resources)
            return False
        except BaseException:
            self.keep(resources)
            raise
        return True

    def keep(self, resources: Collection[str]) -> None:
        """They are not given up after all."""
        self.host.keep(resources)

    async def forget(self, resources: Collection[str], *, log_end: int) -> None:
        """Follow them no more; the log says up to `log_end` that they are another's. Returns when that is read, or soon."""
        forgetting = self.host.aside(self.host.forget(resources, after=log_end))
        await asyncio.wait({forgetting}, timeout=FORGET_S)

    async def _follow(self, coming: Coming, log_after: int) -> None:
        try:
            if coming.names:
                await self._read_stored(coming.names)
                await self._read_further(coming.names, log_after, coming.kept)
        finally:
            self.unexpect(coming)

    async def _read_stored(self, resources: Sequence[str]) -> None:
        """Their requests that were stored before they came: this instance has passed them."""
        upto = self.host.stored_to
        if not upto:
            return
        wanted, read = set(resources), asyncio.Event()

        def on_request(request: Request, seq: int, stored_s: float) -> None:
            if request.resource in wanted and seq <= upto:
                self.host.stored_request(request, seq, stored_s)

        def on_past(seq: int) -> None:
            if seq >= upto:
                read.set()

        reader = self._readers.requests(on_request, on_past, resources)
        try:
            await reader.start()
            await read.wait()
        finally:
            await reader.stop()

    def _hold(self, resources: list[str]) -> None:
        new = [name for name in resources if not self.host.is_expected(name)]
        if new:
            self.host.aside(self._read_further(new))

    async def _read_further(
        self, resources: Sequence[str], log_after: int = 0, kept: Kept | None = None
    ) -> None:
        """The log gives them to this writer, which does not hold them: another fold reads them, and is adopted."""
        log.info("resources_read_later", writer=self.writer, resources=len(resources))
        for n in itertools.count(1):
            try:
                if await self._adopt(resources, log_after, kept):
                    return
                kept = None
            except StoreError as error:
                log.warning("resources_not_read", writer=self.writer, error=str(error))
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=1.0))

    async def _adopt(self, resources: Sequence[str], log_after: int, kept: Kept | None) -> bool:
        """Whether the fold was whole. Raises: StoreError."""
        fold = self.host.writer.further()
        checkpoints = await self._readers.checkpoints(resources)
        begins = self.host.follow(resources, checkpoints, fold=fold, after=log_after)
        if kept is not None and (entries := kept.behind(begins)) is not None:
            return await self._adopt_kept(fold, entries)
        further = Further(fold, self.host)
        reader = self._readers.log(further.entry, further.unreadable, is_main=False)
        self._further.append(reader)
        try:
            await reader.start(after=begins)
            return await further.done
        finally:
            further.close()
            self._further.remove(reader)
            await reader.stop()

    async def _adopt_kept(self, fold: Writer, entries: Sequence[Entry]) -> bool:
        further = Further(fold, self.host, entries)
        try:
            return await further.done
        finally:
            further.close()


def _unheard(_: str) -> None: ...
