"""RequestLog (application/ports.py) on the bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aegis_sdk.application.ports import Accepted, StoreError, StoreUnreachable
from aegis_sdk.contract.envelope import Request
from aegis_sdk.testing.faults import Op

if TYPE_CHECKING:
    from aegis_sdk.testing.bus import MemoryLink


class MemoryRequestLog:
    """Stores requests."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link

    async def append(self, request: Request, *, timeout_s: float) -> Accepted:
        bus = self._link.bus
        return await self._link.call(
            Op.APPEND,
            lambda: bus.requests(request.service).append(request, now_s=bus.clock.now_s()),
        )

    async def post(
        self, request: Request, on_result: Callable[[Accepted | StoreError], None]
    ) -> None:
        async def send() -> None:
            try:
                on_result(await self.append(request, timeout_s=0.0))
            except StoreUnreachable:
                return  # its answer never comes
            except StoreError as error:
                on_result(error)

        self._link.post(send)

    async def read(self, service: str, seq: int) -> Request | None:
        return await self._link.call(Op.READ, lambda: self._link.bus.requests(service).get(seq))
