"""When a resource's timers are due, and which of them are on their way: requests that their own resource makes to itself.

Theory of operation. A timer is state of its resource. An outcome's change sets it and drops it, so a handler that raised, was
rejected, expired or was cancelled has done neither. Whoever owns the resource fires it when it is due: the timer's request is accepted
as any other. Its id is derived from the request that set the timer and from its name. The outcome of that id ends the
timer, whatever the outcome is. So nothing more is stored to fire one, and nothing can be lost between the firing and the outcome.

That is also why it fires once. A request of a timer is judged by the fold when its turn comes: it runs if the timer is still there under
that id. One that was dropped or replaced while its request waited does not run. One that fired elsewhere is gone from the fold. What
a former owner computes meanwhile is refused by its gate, as all that it stores.

The fold keeps the timers of each resource by name (`Timers`). Of what is served here there is more: a heap of its due times, and
the ids that are on their way. `Agenda` is one writer's: a heap of resources by their next due time. Both heaps keep what is not so any
more until it comes to the top, or until it is most of what they hold. Time arrives as a number (Unix time): a timer never fires before its
time by this machine's clock.

What must stay true: a timer of a served resource is on the heap, or on its way, or its outcome is in the fold. What would break: a
request that is dropped here and not put back on the heap would wait for the next owner (`dropped`).

Many may be due together, after a failover. They are fired in portions: few of one resource at a time, so that a call
waits for few of them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Final

from aegis_sdk.contract.envelope import Change
from aegis_sdk.contract.turns.timers import Timer

FIRING_MAX: Final = 32
"""Of one resource on their way together. A call waits for so many at most; a turn takes more of a pure handler."""
FIRED_MAX: Final = 256
"""Fired in one round of the host."""
_SLACK: Final = 64

_Due = tuple[float, str, str]
"""Unix time, the timer's name, and its request's id."""


class Timers:
    """Of one resource."""

    __slots__ = ("_firing", "_heap", "_names", "by_name", "bytes")

    def __init__(self, timers: Iterable[Timer] = ()) -> None:
        self.by_name: dict[str, Timer] = {}
        self._names: dict[str, str] = {}
        """By the id of the timer's request."""
        self._heap: list[_Due] | None = None
        """Of a resource that is served here."""
        self._firing: set[str] = set()
        """Ids of requests that were made here and have no outcome."""
        self.bytes = 0
        """Of their payloads, about: what a checkpoint costs."""
        for timer in timers:
            self._set(timer)

    def __len__(self) -> int:
        return len(self.by_name)

    # --- the fold -----------------------------------------------------------------------------------------------
    def apply(self, change: Change) -> None:
        """Raises: ValueError, for what is no timer."""
        for name in change.drop:
            self._drop(name)
        for content in change.later:
            self._set(Timer.read(content))

    def ended(self, request_id: str) -> None:
        """A request has an outcome, or never will have one. Most are no timer's."""
        name = self._names.get(request_id)
        if name is not None:
            self._drop(name)
        self._firing.discard(request_id)

    def is_set(self, name: str, request_id: str) -> bool:
        timer = self.by_name.get(name)
        return timer is not None and timer.id == request_id

    def _set(self, timer: Timer) -> None:
        self._drop(timer.name)
        self.by_name[timer.name] = timer
        self._names[timer.id] = timer.name
        self.bytes += _size(timer)
        if self._heap is not None:
            heapq.heappush(self._heap, (timer.due_s, timer.name, timer.id))
            if len(self._heap) > 2 * len(self.by_name) + _SLACK:
                self.serve()

    def _drop(self, name: str) -> None:
        timer = self.by_name.pop(name, None)
        if timer is not None:
            del self._names[timer.id]
            self.bytes -= _size(timer)

    # --- at its owner -------------------------------------------------------------------------------------------
    def serve(self) -> None:
        """From now on, or anew: they fire here."""
        heap = [(t.due_s, t.name, t.id) for t in self.by_name.values() if t.id not in self._firing]
        heapq.heapify(heap)
        self._heap = heap

    def leave(self) -> None:
        """They are another's to fire."""
        self._heap = None
        self._firing.clear()

    @property
    def next_s(self) -> float:
        """When one is to be fired next; never, while enough are on their way."""
        heap = self._heap
        if not heap or len(self._firing) >= FIRING_MAX:
            return math.inf
        while heap and not self.is_set(heap[0][1], heap[0][2]):
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def fire(self, now_s: float) -> list[Timer]:
        """Those that are due, as many as may be on their way: each is to be accepted, and ends by `ended` or `dropped`."""
        fired: list[Timer] = []
        while self.next_s <= now_s:
            assert self._heap is not None
            _, name, request_id = heapq.heappop(self._heap)
            if request_id not in self._firing:
                self._firing.add(request_id)
                fired.append(self.by_name[name])
        return fired

    def dropped(self, name: str, request_id: str) -> None:
        """Its request came to nothing here. Unless its time is over, it fires again."""
        self._firing.discard(request_id)
        if self._heap is not None and self.is_set(name, request_id):
            heapq.heappush(self._heap, (self.by_name[name].due_s, name, request_id))


class Agenda:
    """Of one writer: what it serves, by when it is due."""

    __slots__ = ("_at", "_counts", "_heap", "_served", "open")

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._at: dict[str, float] = {}
        """When each resource is looked at next: its place on the heap."""
        self._served: dict[str, Timers] = {}
        self._counts: dict[str, int] = {}
        """How many of each are in `open`."""
        self.open = 0
        """Timers that wait here."""

    def leave(self, resource: str) -> None:
        """It is another's."""
        if (timers := self._served.pop(resource, None)) is not None:
            timers.leave()
            self.open -= self._counts.pop(resource)
            self._at.pop(resource, None)

    def changed(self, resource: str, timers: Timers) -> None:
        """Of a resource that is served here, from now on or since earlier."""
        if self._served.get(resource) is not timers:
            self.leave(resource)
            timers.serve()
            self._served[resource], self._counts[resource] = timers, 0
        count = len(timers)
        self.open += count - self._counts[resource]
        self._counts[resource] = count
        next_s = timers.next_s
        if next_s < self._at.get(resource, math.inf):
            self._at[resource] = next_s
            heapq.heappush(self._heap, (next_s, resource))

    @property
    def next_s(self) -> float:
        """When to ask for what is due; it may turn out to be nothing."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def fire(self, now_s: float, most: int) -> list[Timer]:
        """About so many of those that are due."""
        fired: list[Timer] = []
        while len(fired) < most and self.next_s <= now_s:
            _, resource = heapq.heappop(self._heap)
            del self._at[resource]
            timers = self._served[resource]
            fired += timers.fire(now_s)
            self.changed(resource, timers)
        return fired


def _size(timer: Timer) -> int:
    request = timer.content["request"]
    return 256 + len(request.get("payload") or request.get("base64") or "")
