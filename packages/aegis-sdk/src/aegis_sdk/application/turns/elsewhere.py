"""Stored requests of resources that are served elsewhere: kept until their outcomes are read, for this instance may be the next owner."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple

from aegis_sdk.application.turns.lookups import Lookups
from aegis_sdk.contract.envelope import Request


class Kept(NamedTuple):
    request: Request
    seq: int
    """Its place in the stream."""
    born_s: float
    """Unix time: it was sent at most so early."""


class Elsewhere:
    """Of one instance. `aside` runs what has to be looked up."""

    def __init__(
        self, lookups: Lookups, aside: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._lookups = lookups
        self._aside = aside
        self._kept: dict[str, dict[str, Kept]] = {}
        self._unsure: list[Request] = []
        """The ones that no session tells: they may have an outcome that was read long ago, or never."""

    def __bool__(self) -> bool:
        return bool(self._kept)

    def __iter__(self) -> Iterator[Kept]:
        for kept in list(self._kept.values()):
            yield from list(kept.values())

    def keep(self, request: Request, seq: int, born_s: float, *, unsure: bool = False) -> None:
        kept = self._kept.setdefault(request.resource or "", {})
        kept[request.request_id] = Kept(request, seq, born_s)
        if unsure:
            self._unsure.append(request)

    def forget(self, resource: str, request_id: str) -> None:
        """Its outcome was read."""
        if (kept := self._kept.get(resource)) is not None:
            kept.pop(request_id, None)

    def take(self, resource: str) -> list[Kept]:
        """They are for this instance now, in the order in which they were stored."""
        return sorted(self._kept.pop(resource, {}).values(), key=lambda kept: kept.seq)

    def look_up_unsure(self) -> None:
        """Most have their outcome by now: the log is asked for the others, for all of them together."""
        unsure, self._unsure = self._unsure, []
        for request in unsure:
            if request.request_id in self._kept.get(request.resource or "", ()):
                self._aside(self._forget_if_done(request))

    async def _forget_if_done(self, request: Request) -> None:
        """Of what is read from now on, its outcome is met there."""
        if await self._lookups.find(request.request_id) is not None:
            self.forget(request.resource or "", request.request_id)
