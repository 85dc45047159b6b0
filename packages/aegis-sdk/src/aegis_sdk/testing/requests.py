"""RequestLog and Letters (application/ports.py) on the bus."""

from __future__ import annotations

from aegis_sdk.application.ports import Accepted
from aegis_sdk.contract.bodies import ErrorBody
from aegis_sdk.contract.dead_letter import DeadLetter
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.faults import Op


class MemoryRequestLog:
    """Stores requests. The dedup window goes by the bus's clock, which a test may move on or let the server forget."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link

    async def append(self, request: Request, *, timeout_s: float) -> Accepted:
        bus = self._link.bus
        return await self._link.call(
            Op.APPEND,
            lambda: bus.requests(request.service).append(request, now_s=bus.clock.now_s()),
        )

    async def find(self, service: str, request_id: str, *, timeout_s: float) -> Request | None:
        def looked() -> Request | None:
            stream = self._link.bus.requests(service)
            kept = [stream.get(seq) for seq in range(1, stream.last_seq + 1)]
            return next((r for r in kept if r is not None and r.request_id == request_id), None)

        return await self._link.call(Op.READ, looked)

    async def services(self) -> list[str]:
        return await self._link.call(Op.READ, self._link.bus.services)

    async def read(self, service: str, seq: int) -> Request | None:
        return await self._link.call(Op.READ, lambda: self._link.bus.requests(service).get(seq))


class MemoryLetters:
    """The DLQ: what is in it stands in `MemoryBus.dead_letters`."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link

    async def dead_letter(self, request: Request, outcome: Outcome) -> None:
        error = ErrorBody.model_validate_json(outcome.body)
        letter = DeadLetter(request, error.code, error.message)

        def store() -> None:
            self._link.bus.limits.check_size(letter.headers(), request.payload)
            self._link.bus.dead_letters.setdefault(request.request_id, (request, outcome))

        await self._link.call(Op.DEAD_LETTER, store)
