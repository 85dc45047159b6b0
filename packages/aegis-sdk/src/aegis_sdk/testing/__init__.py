"""Test a service without NATS: `async with testing.harness(service, resources={"ACC-1"}) as aegis: ...`.

`with testing.blocking_harness(...) as aegis:` is the same for code without a loop, as `aegis_sdk.blocking.connect`.
`harness` runs the SDK's own use cases over a `MemoryBus`, which keeps streams in memory and can lose,
double, delay and cut off. The bus's adapters pass the same contract suite as those of NATS.
"""

from aegis_sdk.blocking import blocking
from aegis_sdk.testing.bus import MemoryBus, MemoryLink
from aegis_sdk.testing.clock import Clock, LoopClock, ManualClock
from aegis_sdk.testing.faults import Fault, Faults, Flow, Op
from aegis_sdk.testing.harness import MemoryAegis, MemoryInstance, harness

blocking_harness = blocking(harness)

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
    "blocking_harness",
    "harness",
]
