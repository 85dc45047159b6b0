"""Test a service without NATS: `async with testing.harness(service, resources={"ACC-1"}) as aegis: ...`.

`harness` runs the SDK's own use cases over a `MemoryBus`, which keeps streams in memory and can lose,
double, delay and cut off. The bus's adapters pass the same contract suite as those of NATS.
"""

from aegis_sdk.testing.bus import MemoryBus, MemoryLink
from aegis_sdk.testing.clock import Clock, LoopClock, ManualClock
from aegis_sdk.testing.faults import Fault, Faults, Flow, Op
from aegis_sdk.testing.harness import MemoryAegis, MemoryInstance, harness

__all__ = [
    "Clock",
    "Fault",
    "Faults",
    "Flow",
    "LoopClock",
    "ManualClock",
    "MemoryAegis",
    "MemoryBus",
    "MemoryInstance",
    "MemoryLink",
    "Op",
    "harness",
]
