"""Events on their way to their stream: what a change of owners leaves of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from aegis_sdk.application.ports import StoreError, StoreFull
from aegis_sdk.application.turns.emitting import Emitter
from aegis_sdk.contract.turns.events import EVENT, Emitted
from aegis_sdk.domain.turns.output import Sending


class Stream:
    """Takes nothing while it is full."""

    def __init__(self) -> None:
        self.full = True
        self.stored: list[str] = []

    async def each(
        self, messages: Sequence[Emitted], *, timeout_s: float
    ) -> Sequence[StoreError | None]:
        if self.full:
            return [StoreFull("it is full")] * len(messages)
        self.stored += [message.id for message in messages]
        return [None] * len(messages)

    async def together(self, messages: Sequence[Emitted], *, timeout_s: float) -> None:
        if self.full:
            raise StoreFull("it is full")
        self.stored += [message.id for message in messages]


def emitted(resource: str, n: int) -> Sending:
    content = {EVENT: "desk.told", "id": f"{resource}.{n}.0", "payload": "1"}
    return Sending(resource, n, content)


@pytest.mark.parametrize("together", [False, True], ids=["one copy", "three copies"])
async def test_who_lost_a_resource_stores_no_later_event_of_it_without_the_earlier_ones(
    together: bool,
) -> None:
    """The next owner stores them all, in their order."""
    stream, ours, tasks = Stream(), {"A", "B"}, []

    def aside(coroutine: Coroutine[Any, Any, None]) -> object:
        tasks.append(asyncio.create_task(coroutine))
        return tasks[-1]

    emitter = Emitter(
        stream,
        is_wanted=lambda sending: sending.resource in ours,
        on_sent=lambda _: None,
        aside=aside,
        together=together,
    )
    for resource, n in (("A", 1), ("B", 1), ("A", 2), ("A", 3), ("B", 2)):
        emitter.send(emitted(resource, n))
    await asyncio.sleep(0.05)
    ours.discard("A")
    stream.full = False
    async with asyncio.timeout(5.0):
        await asyncio.gather(*tasks)
    assert stream.stored == ["B.1.0", "B.2.0"]
    assert emitter.waiting == 0
