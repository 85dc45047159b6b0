"""Puts the second form's parts together on one connection: an instance, and a caller. For its tests and the bench so far."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.ports import DeliverySource
from aegis_sdk.application.threads import Threads
from aegis_sdk.application.turns.caller import Caller
from aegis_sdk.application.turns.hand_ins import HandIns
from aegis_sdk.application.turns.host import TurnHost
from aegis_sdk.application.turns.sending import UNSENT_S
from aegis_sdk.context import Asks
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.contract.turns.subjects import LogSubjects
from aegis_sdk.contract.turns.writers import writer_name
from aegis_sdk.domain.turns.writer import OUTCOMES_KEPT_S
from aegis_sdk.infrastructure.letters import NatsLetters
from aegis_sdk.infrastructure.requests import NatsDeliveries, NatsRequestLog
from aegis_sdk.infrastructure.turns.calls import Calls
from aegis_sdk.infrastructure.turns.last_word import LogsLastWord
from aegis_sdk.infrastructure.turns.log import TurnLog
from aegis_sdk.infrastructure.turns.reader import LogReader
from aegis_sdk.infrastructure.turns.sent import SentRequests
from aegis_sdk.infrastructure.turns.start import newest_checkpoints
from aegis_sdk.infrastructure.turns.stored import StoredRequests
from aegis_sdk.nats.link import Link
from aegis_sdk.service import Service

ENDS_KEPT_S: Final = 600.0
GROUP_CREDIT: Final = 64
"""Stored group requests in hand at once."""


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
                asks=asks or HandIns(),
                threads=Threads(instance_id),
            ),
            log_=self.log,
            sent=SentRequests(link, names),
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
        self._group: DeliverySource | None = None
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
        checkpoints = await newest_checkpoints(self._link, self._names, self._resources)
        await self._reader.start(after=self.host.follow(self._resources, checkpoints))
        await self._stored.start()
        self._link.on_restored(self._restored)
        await self.host.start()
        await self.host.until(lambda: self.host.may_write)
        self._group = await self._deliveries.open_group(
            self._service, credit=GROUP_CREDIT, on_delivery=self.host.group_delivery
        )

    async def stop(self) -> None:
        self._link.off_restored(self._restored)
        await self.host.stop()
        await self._reader.stop()
        await self._stored.stop()
        if self._group is not None:
            await self._group.stop()

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
        members: Callable[[str], Sequence[str]] = lambda service: (),
        ends_kept_s: float = ENDS_KEPT_S,
    ) -> None:
        """`members` names the live instances of a service: they get its group requests in turn."""
        caller = caller or secrets.token_hex(5)
        self._link = link
        self._calls = Calls(link, subjects, caller=caller)
        self._last_word = LogsLastWord(link, subjects, ends_kept_s=ends_kept_s)
        self.caller = Caller(
            caller=caller,
            calls=self._calls,
            requests=NatsRequestLog(link, subjects),
            last_word=self._last_word,
            members=members,
        )

    async def start(self) -> None:
        await self._calls.start()
        self._link.on_restored(self._restored)

    async def close(self) -> None:
        self._link.off_restored(self._restored)
        self.caller.close()
        await self._last_word.close()

    async def _restored(self) -> None:
        self.caller.restored()
