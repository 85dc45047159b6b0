"""Sends what handlers handed in, once the entry that holds it is stored (domain/turns/outbox.py decides what and when).

Events go another way (emitting.py).

Theory of operation. What goes to one resource is sent in its order, one after the other; what goes to different ones,
side by side. A service that nobody has registered has no stream. What is handed in to it waits, and is tried again, as long as
its sender owns what handed it in. After `unsent_s` it becomes a dead letter: an operator can send it, if the service ever comes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from aegis_sdk.application.letters import keep_letter
from aegis_sdk.application.ports import (
    Letters,
    RequestLog,
    StoreError,
    StoreTooLarge,
    StoreUnreachable,
)
from aegis_sdk.application.turns.emitting import Emitter
from aegis_sdk.contract.envelope import Outcome, OutcomeKind, Request
from aegis_sdk.contract.turns.events import EVENT
from aegis_sdk.contract.turns.sends import request_of
from aegis_sdk.domain.delivery import backoff_s
from aegis_sdk.domain.turns.output import Sending
from aegis_sdk.telemetry import about, log

AT_ONCE_MAX: Final = 256
STORE_S: Final = 2.0
WAIT_S_MAX: Final = 1.0
UNSENT_S: Final = 3600.0
"""An order of starting services is no reason for a dead letter; a name that nobody ever registers is."""
TELL_S: Final = 60.0
NOT_SENT: Final = "not_sent"
"""The error code of the dead letter."""


class _Waiting:
    """One request on its way."""

    __slots__ = ("request", "sending", "since_s")

    def __init__(self, request: Request, sending: Sending) -> None:
        self.request = request
        self.sending = sending
        self.since_s = time.monotonic()


class Sender:
    """`is_wanted` says whether it is still this instance that has to send it; `on_sent`, that it is done with."""

    def __init__(
        self,
        requests: RequestLog,
        letters: Letters,
        emitter: Emitter,
        *,
        is_wanted: Callable[[Sending], bool],
        on_sent: Callable[[Sending], None],
        aside: Callable[[Coroutine[Any, Any, None]], object],
        unsent_s: float = UNSENT_S,
    ) -> None:
        self._requests = requests
        self._letters = letters
        self._emitter = emitter
        self._is_wanted = is_wanted
        self._on_sent = on_sent
        self._aside = aside
        self._unsent_s = unsent_s
        self._services: dict[str, dict[str | None, deque[_Waiting]]] = {}
        self.waiting = 0
        """Requests that are not sent yet: heartbeats read it from another thread."""

    def send(self, sendings: Iterable[Sending]) -> None:
        for sending in sendings:
            if EVENT in sending.content:
                self._emitter.send(sending)
                continue
            try:
                request = request_of(sending.content)
            except ValueError as error:
                log.error("hand_in_unreadable", resource=sending.resource, error=str(error))
                continue
            queues = self._services.get(request.service)
            if queues is None:
                queues = self._services[request.service] = {}
                self._aside(self._run(request.service, queues))
            queues.setdefault(request.resource, deque()).append(_Waiting(request, sending))
            self.waiting += 1

    async def _run(self, service: str, queues: dict[str | None, deque[_Waiting]]) -> None:
        n, told_s = 0, 0.0
        while queues:
            self._keep_ours(queues)
            heads = [
                queue[0] for _, queue in zip(range(AT_ONCE_MAX), queues.values(), strict=False)
            ]
            failed = await asyncio.gather(*(self._try(head) for head in heads))
            for head, error in zip(heads, failed, strict=True):
                if error is None:
                    self.waiting -= 1
                    _take(queues, head)
            why = next((error for error in failed if error is not None), None)
            if why is None:
                n = 0
                continue
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                log.warning(
                    "hand_ins_wait",
                    service=service,
                    requests=sum(map(len, queues.values())),
                    error=f"{type(why).__name__}: {why}",
                )
            n += 1
            await asyncio.sleep(backoff_s(n, first_s=0.02, max_s=WAIT_S_MAX))
        del self._services[service]

    def _keep_ours(self, queues: dict[str | None, deque[_Waiting]]) -> None:
        """What the next owner sends goes at once: a later one must not stay here without the earlier ones."""
        for to, queue in list(queues.items()):
            ours = deque(each for each in queue if self._is_wanted(each.sending))
            self.waiting -= len(queue) - len(ours)
            if ours:
                queues[to] = ours
            else:
                del queues[to]

    async def _try(self, waiting: _Waiting) -> StoreError | None:
        """None when it is done with."""
        if not self._is_wanted(waiting.sending):
            return None  # the next owner sends it
        try:
            await self._requests.append(waiting.request, timeout_s=STORE_S)
        except StoreError as error:
            if not self._is_hopeless(waiting, error):
                return error
            await self._give_up(waiting, error)
        self._on_sent(waiting.sending)
        return None

    def _is_hopeless(self, waiting: _Waiting, error: StoreError) -> bool:
        if isinstance(error, StoreUnreachable):
            return False  # nor could a letter be stored
        late = time.monotonic() - waiting.since_s >= self._unsent_s
        return late or isinstance(error, StoreTooLarge)

    async def _give_up(self, waiting: _Waiting, error: StoreError) -> None:
        request = waiting.request
        why = f"handed in by a handler, and {request.service} has not taken it: {error}"
        log.error("request_dead_lettered", **about(request), error_code=NOT_SENT, error=str(error))
        await keep_letter(self._letters, request, Outcome.error(OutcomeKind.FAILED, NOT_SENT, why))


def _take(queues: dict[str | None, deque[_Waiting]], head: _Waiting) -> None:
    queue = queues[head.request.resource]
    queue.popleft()
    if not queue:
        del queues[head.request.resource]
