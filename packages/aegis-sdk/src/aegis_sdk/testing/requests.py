"""RequestLog (application/ports.py) on the bus."""

from __future__ import annotations

import contextlib

from aegis_sdk.application.ports import Accepted, StoreError, StoreUnreachable
from aegis_sdk.contract.envelope import Request
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.faults import Fault, Op


class MemoryRequestLog:
    """Stores requests."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link

    async def append(self, request: Request, *, timeout_s: float) -> Accepted:
        bus = self._link.bus
        return await self._link.call(
            Op.APPEND,
            lambda: bus.requests(request.service).append(request, now_s=bus.clock.now_s()),
        )

    def post(self, request: Request) -> None:
        """As over NATS: what the server says to it is not heard. Raises: StoreTooLarge, StoreUnreachable."""
        if not self._link.reachable:
            raise StoreUnreachable(f"link {self._link.name}: not connected")
        self._link.bus.limits.check_size(request.headers(), request.payload)
        self._link.bus.soon(lambda: self._store_unheard(request))

    def _store_unheard(self, request: Request) -> None:
        bus = self._link.bus
        if self._link.reachable and bus.faults.draw(Op.APPEND) is not Fault.LOST:
            with contextlib.suppress(StoreError):
                bus.requests(request.service).append(request, now_s=bus.clock.now_s())

    async def holds(self, service: str, request_id: str, *, timeout_s: float) -> bool:
        def looked() -> bool:
            stream = self._link.bus.requests(service)
            kept = [stream.get(seq) for seq in range(1, stream.last_seq + 1)]
            return any(request is not None and request.request_id == request_id for request in kept)

        return await self._link.call(Op.READ, looked)

    async def read(self, service: str, seq: int) -> Request | None:
        return await self._link.call(Op.READ, lambda: self._link.bus.requests(service).get(seq))
