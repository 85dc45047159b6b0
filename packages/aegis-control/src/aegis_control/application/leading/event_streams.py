"""The streams of what services emit: each is made when somebody registers who needs it, or says that it is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aegis_sdk.contract.names import check_service
from aegis_sdk.errors import InvalidName, Unavailable

from aegis_control.application.ports import ProvisionFailed
from aegis_control.application.world import Spawn, World
from aegis_control.domain.events import EventsNotProvided

AGAIN_S: Final = 1.0
"""How often one that is missing is tried again."""


class EventStreams:
    """Of one term."""

    def __init__(self, world: World, *, spawn: Spawn) -> None:
        self._world = world
        self._spawn = spawn
        self._there: set[str] = set()
        self._tried_s: dict[str, float] = {}

    async def provide(self, services: Iterable[str]) -> None:
        """Returns when they are there. Raises: ProvisionFailed, Unavailable."""
        for service in services:
            if service not in self._there:
                await self._world.requests.provision_events(service)
                self._there.add(service)

    def lacking(self, services: Iterable[str]) -> None:
        """An instance does not find these: nobody had named them, or somebody removed them."""
        now_s = self._world.clock.monotonic()
        for service in services:
            if now_s - self._tried_s.get(service, float("-inf")) >= AGAIN_S:
                self._tried_s[service] = now_s
                self._spawn(self._make(service))

    async def _make(self, service: str) -> None:
        try:
            await self._world.requests.provision_events(check_service(service))
        except (InvalidName, ProvisionFailed) as error:
            self._world.events.emit(EventsNotProvided(service=service, reason=str(error)))
        except Unavailable:
            return  # it says so again
        else:
            self._there.add(service)
