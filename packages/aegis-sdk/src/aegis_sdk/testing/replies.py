"""Replies (application/ports.py) on the bus."""

from __future__ import annotations

from collections.abc import Callable

from aegis_sdk.contract.envelope import Outcome
from aegis_sdk.testing.connection import MemoryConnection
from aegis_sdk.testing.faults import Fault, Flow, Op

Deliver = Callable[[Outcome], None]


class MemoryReplies:
    """Outcomes that arrive while the link is cut or held are missed, as on core NATS."""

    def __init__(self, link: MemoryConnection) -> None:
        self._link = link
        self._expected: dict[str, list[Deliver]] = {}

    async def expect(self, request_id: str, deliver: Deliver) -> None:
        self._expected.setdefault(request_id, []).append(deliver)

    def forget(self, request_id: str, deliver: Deliver) -> None:
        waiting = self._expected.get(request_id, [])
        if deliver in waiting:
            waiting.remove(deliver)
        if not waiting:
            self._expected.pop(request_id, None)

    def arrive(self, request_id: str, outcome: Outcome) -> None:
        """The server republished an outcome."""
        if request_id not in self._expected or not self._link.lets(Flow.REPLIES):
            return
        fault = self._link.bus.faults.draw(Op.REPLY)
        for _ in range({Fault.LOST: 0, Fault.TWICE: 2}.get(fault, 1) if fault else 1):
            self._link.bus.soon(lambda: self._deliver(request_id, outcome))

    def _deliver(self, request_id: str, outcome: Outcome) -> None:
        if self._link.reachable:
            for deliver in list(self._expected.get(request_id, [])):
                deliver(outcome)
