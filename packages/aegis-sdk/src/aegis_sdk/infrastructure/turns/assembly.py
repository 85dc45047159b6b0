"""Puts the second form's parts together on one connection: an instance, and a caller. For its tests and the bench so far."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.isolation import Isolation
from aegis_sdk.application.ports import Directory
from aegis_sdk.application.requester import Requester
from aegis_sdk.application.threads import Threads
from aegis_sdk.application.tracing import LOG_TRACER, Tracer
from aegis_sdk.application.turns.caller import Caller
from aegis_sdk.application.turns.deliveries import CREDIT
from aegis_sdk.application.turns.host import TurnHost
from aegis_sdk.application.turns.sending import UNSENT_S
from aegis_sdk.context import Asks
from aegis_sdk.contract.method import Method
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.contract.turns.writers import writer_name
from aegis_sdk.domain.recorder import NO_RECORDER, Recorder
from aegis_sdk.domain.turns.writer import OUTCOMES_KEPT_S
from aegis_sdk.infrastructure.directory import NatsDirectory
from aegis_sdk.infrastructure.letters import NatsLetters
from aegis_sdk.infrastructure.requests import NatsDeliveries, NatsRequestLog
from aegis_sdk.infrastructure.turns.calls import Calls
from aegis_sdk.infrastructure.turns.last_word import LogsLastWord
from aegis_sdk.infrastructure.turns.log import TurnLog
from aegis_sdk.infrastructure.turns.outcomes import LogOutcomes
from aegis_sdk.infrastructure.turns.reader import LogReader
from aegis_sdk.infrastructure.turns.sent import SentRequests
from aegis_sdk.infrastructure.turns.start import newest_checkpoints
from aegis_sdk.infrastructure.turns.stored import StoredRequests
from aegis_sdk.nats.link import Link
from aegis_sdk.service import Service

Req = TypeVar("Req")
Rep = TypeVar("Rep")

ENDS_KEPT_S: Final = 600.0


class TurnInstance:
    """An instance of `service` that follows `resources`, and serves those that the log gives to its writer."""

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
        log_id: str = "",
        on_stopped: Callable[[str], None] = lambda why: None,
    ) -> None:
        """`asks` makes its handlers' requests; without one, it takes everybody to be there."""
        self._client: TurnClient | None = None
        if asks is None:
            self._client = TurnClient(link, subjects, directory=EveryoneThere())
            asks = self._client.requester
        names = LogSubjects(subjects, service.name)
        self.writer = writer_name(instance_id, incarnation or secrets.token_hex(4))
        self._link = link
        self.log_id = log_id
        self.log = TurnLog(
            link, names, writer=self.writer, log_id=log_id, nonce=secrets.token_hex(8)
        )
        self.host = TurnHost(
            self.writer,
            runner=Runner(
                service,
                instance_id=instance_id,
                asks=asks,
                threads=Threads(instance_id),
            ),
            log_=self.log,
            sent=SentRequests(link, names),
            isolation=Isolation(),
            requests=NatsRequestLog(link, subjects),
            letters=NatsLetters(link, subjects),
            connected=link.connected,
            ends_kept_s=ends_kept_s,
            unsent_s=unsent_s,
            outcomes_kept_s=outcomes_kept_s,
            log_id=log_id,
            on_stopped=on_stopped,
        )
        self._resources = list(resources)
        self._names = names
        self._service = service.name
        self._deliveries = NatsDeliveries(link, subjects)
        self._reader = LogReader(
            link,
            names,
            on_entry=self.host.entry,
            on_unreadable=self.host.unreadable,
            own=self.writer,
        )
        self._stored = StoredRequests(
            link, subjects, service.name, on_request=self.host.stored_request
        )

    async def start(self) -> None:
        """Returns when all that was stored before is read."""
        if self._client is not None:
            await self._client.start()
        checkpoints = await newest_checkpoints(self._link, self._names, self._resources)
        await self._reader.start(after=self.host.follow(self._resources, checkpoints))
        await self._stored.start()
        self._link.on_restored(self._restored)
        await self.host.start()
        await self.host.until(lambda: self.host.may_write)
        self.host.deliveries.begin(
            await self._deliveries.open_group(
                self._service, credit=CREDIT, on_delivery=self.host.group_delivery
            )
        )

    async def stop(self) -> None:
        self._link.off_restored(self._restored)
        await self.host.stop()
        if self._client is not None:
            await self._client.close()
        await self._reader.stop()
        await self._stored.stop()
        await self.host.deliveries.stop()

    @property
    def lag_entries(self) -> int:
        """What it has yet to read of the log."""
        return self._reader.lag_entries

    @property
    def position(self) -> int:
        """The last entry of the log that it read."""
        return self._reader.position

    async def _restored(self) -> None:
        self.host.restored()


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
