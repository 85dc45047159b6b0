"""Directory (application/ports.py) on the bus: the registry as it is now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aegis_sdk.application.ports import StoreUnreachable
from aegis_sdk.contract.control import LeaseState
from aegis_sdk.errors import ContractError, NoRoute, UnknownMethod, UnknownService

if TYPE_CHECKING:
    from aegis_sdk.testing.bus import MemoryLink


class MemoryDirectory:
    """A service that was asked for once is followed, and stays known while the link is cut."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._followed: set[str] = set()

    def admits(self, service: str, method: str, resource: str | None) -> bool:
        control = self._link.bus.control
        targeted = control.methods(service).get(method)
        if service not in self._followed or targeted is not (resource is not None):
            return False
        if resource is None:
            return control.has_instance(service)
        return control.lease_state(service, resource) is not LeaseState.VACANT

    def lost(self, service: str) -> str:
        return ""

    async def check(self, service: str, method: str, resource: str | None) -> None:
        if self.admits(service, method, resource):
            return
        await asyncio.sleep(0)
        if not self._link.reachable:
            raise StoreUnreachable(f"link {self._link.name}: no answer")
        self._followed.add(service)
        control = self._link.bus.control
        if service not in control.services:
            raise UnknownService(f"service {service!r} was never registered here")
        targeted = control.methods(service).get(method)
        if targeted is None:
            raise UnknownMethod(f"service {service!r} has no method {method!r}")
        if targeted and resource is None:
            raise ContractError(f"{service}.{method} needs a resource: pass resource=…")
        if not targeted and resource is not None:
            raise ContractError(f"{service}.{method} serves the group: it takes no resource")
        if not self.admits(service, method, resource):
            what = f"service {service!r}" if resource is None else f"resource {resource!r}"
            raise NoRoute(f"{what} has no instance now")
