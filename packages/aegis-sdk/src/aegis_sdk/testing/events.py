"""Appender (application/turns/lanes.py) on the bus: of events, and of the requests that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from aegis_sdk.application.ports import StoreError, StoreTooLarge
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.turns.events import Emitted
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.faults import Op

M = TypeVar("M")


class MemoryAppender(Generic[M]):
    """`store` takes one message, unless it is there, or raises. All of one call go there, and come back, as one operation."""

    def __init__(self, link: MemoryConnection, op: Op, store: Callable[[M], object]) -> None:
        self._link = link
        self._op = op
        self._store = store

    async def each(self, messages: Sequence[M], *, timeout_s: float) -> Sequence[StoreError | None]:
        return await self._link.call(self._op, lambda: list(map(self._why_not, messages)))

    async def together(self, messages: Sequence[M], *, timeout_s: float) -> None:
        """The bus has one step for each: what it refuses, it refuses from the first on."""

        def store() -> None:
            for message in messages:
                self._store(message)

        await self._link.call(self._op, store)

    def _why_not(self, message: M) -> StoreError | None:
        try:
            self._store(message)
        except StoreTooLarge:
            raise
        except StoreError as error:
            return error
        return None


def event_appender(link: MemoryConnection) -> MemoryAppender[Emitted]:
    bus = link.bus
    return MemoryAppender(link, Op.EMIT, lambda event: bus.events(event.service).append(event))


def request_appender(link: MemoryConnection) -> MemoryAppender[Request]:
    bus = link.bus

    def store(request: Request) -> None:
        bus.requests(request.service).append(request, now_s=bus.clock.now_s())

    return MemoryAppender(link, Op.APPEND, store)
