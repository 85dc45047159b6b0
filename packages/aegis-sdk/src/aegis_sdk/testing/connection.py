"""A connection to the bus in memory. It carries operations there and answers back, through the faults.

An operation has three moments: it leaves, it takes effect at the server in one step, its answer arrives. The link may be
cut between any two of them, and a fault may hit either way. If the answer does not arrive, its caller gets StoreUnreachable
and knows nothing, also when the server has refused: a refusal is an answer.

`cut` and `restore` are a lost connection and the next one: what was held up comes by the new one, what was sent to nobody
is gone. A link that is only held (`hold`) stays connected, and lags.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aegis_sdk.application.ports import Connected, StoreError, StoreUnreachable
from aegis_sdk.testing.faults import Fault, Flow, Op
from aegis_sdk.testing.server import MemoryServer

T = TypeVar("T")


class MemoryConnection:
    """How one client reaches the server, and the ways in which it doesn't."""

    def __init__(self, bus: MemoryServer, name: str) -> None:
        self.bus = bus
        self.name = name
        self.reachable = True
        self.connected = Connected(f"{name}-1")
        self.on_restored: list[Callable[[], None]] = []
        self._connections = 1
        self._held: set[Flow] = set()
        self._pumps: list[tuple[Flow, Callable[[], None]]] = []

    # --- faults of this link --------------------------------------------------------------------------
    def cut(self) -> None:
        """NATS can't be reached: operations fail without a definite answer, and nothing arrives."""
        self.reachable = False
        self.connected.session = ""
        self.connected.losses += 1

    def restore(self) -> None:
        """Reachable again: readers start again, as the SDK's do after a reconnect."""
        self.reachable = True
        self._connections += 1
        self.connected.session = f"{self.name}-{self._connections}"
        for callback in list(self.on_restored):
            callback()
        self._pump_all()

    def hold(self, flow: Flow) -> None:
        """Let nothing of `flow` arrive until `release`."""
        self._held.add(flow)

    def release(self, flow: Flow) -> None:
        self._held.discard(flow)
        self._pump_all()

    def close(self) -> None:
        """The process is gone: nothing arrives any more, for ever."""
        self.cut()
        self._pumps.clear()
        self.on_restored.clear()

    # --- for the adapters -----------------------------------------------------------------------------
    def lets(self, flow: Flow) -> bool:
        return self.reachable and flow not in self._held

    def add_pump(self, flow: Flow, pump: Callable[[], None]) -> None:
        self._pumps.append((flow, pump))

    def drop_pump(self, flow: Flow, pump: Callable[[], None]) -> None:
        if (flow, pump) in self._pumps:
            self._pumps.remove((flow, pump))

    def _pump_all(self) -> None:
        for flow, pump in list(self._pumps):
            if self.lets(flow):
                pump()

    async def call(self, op: Op, effect: Callable[[], T]) -> T:
        """Carry an operation out, and its answer back. Raises: StoreUnreachable, what `effect` raises."""
        await self._travel()
        fault = self.bus.faults.draw(op)
        self._check_reached(fault is not Fault.LOST)
        refusal: StoreError | None = None
        try:
            result = effect()
        except StoreError as error:
            refusal = error
        await self._travel()
        self._check_reached(fault is not Fault.LOST_ANSWER)
        if refusal is not None:
            raise refusal
        return result

    def _check_reached(self, arrived: bool) -> None:
        if not (self.reachable and arrived):
            raise StoreUnreachable(f"link {self.name}: no answer")

    async def _travel(self) -> None:
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.bus.soon(lambda: None if arrived.done() else arrived.set_result(None))
        await arrived
