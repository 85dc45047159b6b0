"""Directory (application/ports.py) on the bus: the registry as it is now.

A directory of NATS lags behind the registry, and this one does not: it reads control's tables when it is asked. What it
shares with the other is what callers rely on: the same rules (domain/routes.py), an error when a service is asked for the
first time while the link is cut, and none for one that is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aegis_sdk.application.ports import StoreUnreachable
from aegis_sdk.domain.routes import Routes
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.control import MemoryControl


class MemoryDirectory:
    """A service that was asked for once is followed, and stays known while the link is cut."""

    def __init__(self, link: MemoryConnection, control: MemoryControl) -> None:
        self._link = link
        self._control = control
        self._followed: set[str] = set()

    def admits(
        self, service: str, method: str, resource: str | None, *, is_read: bool = False
    ) -> bool:
        return service in self._followed and self._routes(service, resource).admits(
            method, resource, is_read=is_read
        )

    def members(self, service: str) -> Sequence[str]:
        return self._routes(service, None).members

    def takers(self, service: str, takes: str) -> Sequence[str]:
        return self._routes(service, None).takers(takes)

    def lost(self, service: str) -> str:
        return ""

    def requests_log(self, service: str) -> str:
        return ""

    async def check(
        self, service: str, method: str, resource: str | None, *, is_read: bool = False
    ) -> None:
        if self.admits(service, method, resource, is_read=is_read):
            return
        await asyncio.sleep(0)
        if not self._link.reachable:
            raise StoreUnreachable(f"link {self._link.name}: no answer")
        self._followed.add(service)
        if resource is not None and self._routes(service, resource).may_come(
            method, resource, is_read=is_read
        ):
            await self._control.demand(service, resource)
        refusal = self._routes(service, resource).refusal(method, resource, is_read=is_read)
        if refusal is not None:
            raise refusal

    def _routes(self, service: str, resource: str | None) -> Routes:
        control = self._control
        routes = Routes(service)
        if (record := control.services.get(service)) is not None:
            routes.learn(record)
        for (of, name), instance in control.instances.items():
            if of == service:
                routes.learn_instance(name, instance.state, instance.on_demand, instance.takes)
        if resource is not None and (lease := control.leases.get((service, resource))) is not None:
            routes.leases[resource] = lease.state
        return routes
