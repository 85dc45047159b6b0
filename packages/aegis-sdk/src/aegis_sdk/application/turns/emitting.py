"""Stores what handlers emitted, once the entry that holds it is stored (domain/turns/outbox.py decides what and when).

Theory of operation. The events of one instance go to one stream, that of its service. Those of one resource are stored in the
order of its outcomes, which lanes.py sees to. An owner that was shut out, and does not know it yet, may be at the same
work as the next one. That is no harm: an event is told by its name, which the stream takes once, and both begin where all before
is stored.

A stream that is missing or full is waited for, as long as it takes: the events stay in the outbox, where the next owner
finds them. Control makes a missing one when it hears of it (`lacks_stream`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aegis_sdk.application.ports import StoreError, StoreMissing
from aegis_sdk.application.turns.lanes import Appender, Item, Lanes
from aegis_sdk.contract.turns.events import Emitted, emitted_of
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.turns.output import Sending
from aegis_sdk.telemetry import log

WAIT_S_MAX: Final = 1.0
TELL_S: Final = 60.0


class _Waiting(Item[Emitted]):
    """One event on its way."""

    __slots__ = ("sending",)

    def __init__(self, emitted: Emitted, sending: Sending) -> None:
        super().__init__(emitted)
        self.sending = sending


class Emitter:
    """`is_wanted` says whether it is still this instance that has to send it; `on_sent`, that it is done with."""

    def __init__(
        self,
        events: Appender[Emitted],
        *,
        is_wanted: Callable[[Sending], bool],
        on_sent: Callable[[Sending], None],
        aside: Callable[[Coroutine[Any, Any, None]], object],
        together: bool,
    ) -> None:
        """`together`: the stream has several copies."""
        self._lanes: Lanes[Emitted] = Lanes(events, together=together)
        self._is_wanted = is_wanted
        self._on_sent = on_sent
        self._aside = aside
        self._runs = False
        self._told_s = float("-inf")
        self.lacks_stream = False
        """There is no stream to take them: heartbeats tell control so."""

    @property
    def waiting(self) -> int:
        """Events that are not stored yet; heartbeats read it from another thread."""
        return len(self._lanes)

    def send(self, sending: Sending) -> None:
        try:
            emitted = emitted_of(sending.content, sending.resource or None)
        except ValueError as error:
            log.error("event_unreadable", resource=sending.resource, error=str(error))
            return
        # Those of the group have no order among requests.
        lane = emitted.id if sending.work is not None else sending.resource
        self._lanes.add(lane, _Waiting(emitted, sending))
        if not self._runs:
            self._runs = True
            self._aside(self._run())

    async def _run(self) -> None:
        n = 0
        try:
            while self._left():
                done, error = await self._lanes.step()
                for item in done:
                    self._is_done(item)
                self.lacks_stream = isinstance(error, StoreMissing)
                if error is None:
                    n = 0
                    continue
                self._tell(error)
                n = 1 if done else n + 1
                await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=WAIT_S_MAX))
        finally:  # whatever ended it, the next event begins it again
            self._runs = False

    def _left(self) -> bool:
        """Whether something waits. What belongs to another owner by now, that one sends."""
        self._lanes.keep(self._is_ours)
        return len(self._lanes) > 0

    def _is_ours(self, item: Item[Emitted]) -> bool:
        assert isinstance(item, _Waiting)
        return self._is_wanted(item.sending)

    def _is_done(self, item: Item[Emitted]) -> None:
        assert isinstance(item, _Waiting)
        if item.too_large is not None:
            log.error(
                "event_not_stored",
                service=item.message.service,
                resource=item.message.resource,
                event_id=item.message.id,
                error=str(item.too_large),
            )
        self._on_sent(item.sending)

    def _tell(self, error: StoreError) -> None:
        if time.monotonic() - self._told_s > TELL_S:
            self._told_s = time.monotonic()
            log.warning(
                "events_wait",
                service=self._lanes.heads()[0].message.service,
                events=len(self._lanes),
                error=f"{type(error).__name__}: {error}",
            )
