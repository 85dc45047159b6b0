"""Stores messages in one stream: those of one lane in their order, whatever fails in between, and lanes side by side.

Theory of operation. A later message of a lane must never be stored while an earlier one is not. So of each lane one is on its
way: the stream may refuse it (it is full) and take the next, or its server may be gone and the next one's not. What waits in
a lane goes together once it is much: an atomic batch is stored whole, or not at all.

Which of the two is the better one depends on the stream. Where it has several copies, a batch costs what one message
costs, so all go together, in one lane. Where it has one, the server keeps each batch in files of its own until it is whole:
25 ms, in which a lane's single messages come to a hundred.

A message that is stored already counts as stored. That makes it safe to try again, and for several to store the same ones: each
begins where all before is stored and leaves out nothing, so that the first of each is in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from aegis_sdk.application.ports import AlreadyStored, StoreError, StoreTooLarge

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)

AT_ONCE_MAX: Final = 256
"""Lanes that have one on its way, and messages that go together; the server takes a thousand."""
DEEP: Final = 128
"""What waits in a lane of a stream with one copy before it goes together."""
STORE_S: Final = 2.0


class Appender(Protocol[M_contra]):
    """Stores messages of one kind in the stream that takes them."""

    async def each(
        self, messages: Sequence[M_contra], *, timeout_s: float
    ) -> Sequence[StoreError | None]:
        """All side by side: of each why it is not stored, None if it is, by this or before.

        Raises: StoreTooLarge, StoreUnreachable, when they can't be sent; some may be stored then.
        """

    async def together(self, messages: Sequence[M_contra], *, timeout_s: float) -> None:
        """All in this order, or none.

        Raises: AlreadyStored, when one of them is there; StoreFull, StoreMissing, StoreTooLarge, StoreUnreachable.
        """


class Item(Generic[M]):
    """A message that waits, and what it is to whoever sends it."""

    __slots__ = ("message", "too_large")

    def __init__(self, message: M) -> None:
        self.message = message
        self.too_large: StoreTooLarge | None = None
        """The server does not take it."""


class Lanes(Generic[M]):
    """`together`: all is one lane, and goes together."""

    def __init__(self, appender: Appender[M], *, together: bool) -> None:
        self._appender = appender
        self._together = together
        self._lanes: dict[str, deque[Item[M]]] = {}
        self._count = 0
        """Read by other threads, too."""

    def __len__(self) -> int:
        return self._count

    def add(self, lane: str, item: Item[M]) -> None:
        lane = "" if self._together else lane
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
        queue.append(item)
        self._count += 1

    def heads(self) -> list[Item[M]]:
        """The first of each lane."""
        return [queue[0] for queue in self._lanes.values()]

    def keep(self, is_wanted: Callable[[Item[M]], bool]) -> None:
        """Drop all others at once: of those that somebody else stores, a later one must not stay here without the earlier ones."""
        for lane, queue in list(self._lanes.items()):
            wanted = deque(item for item in queue if is_wanted(item))
            self._count -= len(queue) - len(wanted)
            if wanted:
                self._lanes[lane] = wanted
            else:
                del self._lanes[lane]

    async def step(self) -> tuple[list[Item[M]], StoreError | None]:
        """Store what may go now: what is done with, and why something is not. Each that is too large says so, and is done with."""
        lane, queue = next(iter(self._lanes.items()))
        if len(queue) > (1 if self._together else DEEP):
            return await self._store_together(lane, list(islice(queue, AT_ONCE_MAX)))
        return await self._store_heads(list(islice(self._lanes, AT_ONCE_MAX)))

    async def _store_together(
        self, lane: str, items: list[Item[M]]
    ) -> tuple[list[Item[M]], StoreError | None]:
        try:
            await self._appender.together([item.message for item in items], timeout_s=STORE_S)
        except (AlreadyStored, StoreTooLarge):
            return await self._store_in_turn(lane, items)
        except StoreError as error:
            return [], error
        self._take(lane, len(items))
        return items, None

    async def _store_in_turn(
        self, lane: str, items: list[Item[M]]
    ) -> tuple[list[Item[M]], StoreError | None]:
        """Some are there, by an earlier try or by somebody else; or one is too large."""
        done: list[Item[M]] = []
        for item in items:
            (error,) = await self._each([item])
            if error is not None:
                return done, error
            self._take(lane, 1)
            done.append(item)
        return done, None

    async def _store_heads(self, lanes: list[str]) -> tuple[list[Item[M]], StoreError | None]:
        items = [self._lanes[lane][0] for lane in lanes]
        done: list[Item[M]] = []
        why: StoreError | None = None
        for lane, item, error in zip(lanes, items, await self._each(items), strict=True):
            if error is None:
                self._take(lane, 1)
                done.append(item)
            else:
                why = why or error
        return done, why

    async def _each(self, items: list[Item[M]]) -> Sequence[StoreError | None]:
        try:
            return await self._appender.each([item.message for item in items], timeout_s=STORE_S)
        except StoreTooLarge as error:
            if len(items) > 1:
                return [(await self._each([item]))[0] for item in items]
            items[0].too_large = error
            return [None]
        except StoreError as error:
            return [error] * len(items)

    def _take(self, lane: str, count: int) -> None:
        """The first of a lane are done with; the lane is the last now."""
        queue = self._lanes.pop(lane)
        for _ in range(count):
            queue.popleft()
        self._count -= count
        if queue:
            self._lanes[lane] = queue
