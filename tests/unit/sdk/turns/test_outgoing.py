"""Events and hand-ins on their way to their streams: what a change of owners leaves of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import pytest
from aegis_sdk.application.ports import Accepted, Letters, StoreError, StoreFull
from aegis_sdk.application.turns.emitting import Emitter
from aegis_sdk.application.turns.sending import Sender
from aegis_sdk.contract.envelope import Request
from aegis_sdk.contract.turns.events import EVENT, Emitted
from aegis_sdk.contract.turns.sends import handed_in
from aegis_sdk.domain.turns.output import Sending

GIVEN = (("A", 1), ("B", 1), ("A", 2), ("A", 3), ("B", 2))


class Stream:
    """Of events and of requests. It takes nothing while it is full, and tells when it was asked."""

    def __init__(self) -> None:
        self.full = True
        self.asked = asyncio.Event()
        self.stored: list[str] = []
        self.on_stored: Callable[[], None] = lambda: None

    def _take(self, *names: str) -> None:
        self.asked.set()
        if self.full:
            raise StoreFull("it is full")
        self.stored += names
        self.on_stored()

    async def each(
        self, messages: Sequence[Emitted], *, timeout_s: float
    ) -> Sequence[StoreError | None]:
        try:
            self._take(*(message.id for message in messages))
        except StoreError as error:
            return [error] * len(messages)
        return [None] * len(messages)

    async def together(self, messages: Sequence[Emitted], *, timeout_s: float) -> None:
        self._take(*(message.id for message in messages))

    async def append(self, request: Request, *, timeout_s: float) -> Accepted:
        self._take(request.request_id)
        return Accepted(1, False)


class Owner:
    """Of A and B; it loses A while nothing can be stored."""

    def __init__(self) -> None:
        self.stream = Stream()
        self._owned = {"A", "B"}
        self._tasks: list[asyncio.Task[None]] = []

    def aside(self, coroutine: Coroutine[Any, Any, None]) -> object:
        self._tasks.append(asyncio.create_task(coroutine))
        return self._tasks[-1]

    def is_wanted(self, sending: Sending) -> bool:
        return sending.resource in self._owned

    def gets_a_back(self) -> None:
        self._owned.add("A")

    async def loses_a(self) -> None:
        async with asyncio.timeout(5.0):
            await self.stream.asked.wait()
            self._owned.discard("A")
            self.stream.full = False
            await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("together", [False, True], ids=["one copy", "three copies"])
async def test_who_lost_a_resource_stores_no_later_event_of_it_without_the_earlier_ones(
    together: bool,
) -> None:
    """G7: the next owner stores them all, in their order."""
    owner = Owner()
    emitter = Emitter(
        owner.stream,
        is_wanted=owner.is_wanted,
        on_sent=lambda _: None,
        aside=owner.aside,
        together=together,
    )
    for resource, n in GIVEN:
        content = {EVENT: "desk.told", "id": f"{resource}.{n}.0", "payload": "1"}
        emitter.send(Sending(resource, n, content))
    await owner.loses_a()
    assert owner.stream.stored == ["B.1.0", "B.2.0"]
    assert emitter.waiting == 0


async def test_who_lost_a_resource_stores_no_later_hand_in_of_it_without_the_earlier_ones() -> None:
    """G7: the resource is back before all of them were looked at. They are sent again then, from the first on."""
    owner = Owner()
    owner.stream.on_stored = owner.gets_a_back
    sender = Sender(
        owner.stream,  # type: ignore[arg-type]
        cast(Letters, None),
        cast(Emitter, None),
        is_wanted=owner.is_wanted,
        on_sent=lambda _: None,
        aside=owner.aside,
    )
    for resource, n in GIVEN:
        request = Request(f"{resource}~{n}.x-1", "ledger", "book", "C", b"1")
        sender.send([Sending(resource, n, handed_in(request))])
    await owner.loses_a()
    assert owner.stream.stored == ["B~1.x-1", "B~2.x-1"]
    assert sender.waiting == 0
