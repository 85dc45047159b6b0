"""Test a service without NATS: `async with testing.cluster() as cluster: ...`, a system with failovers in virtual time.

The fixtures of pytest_plugin.py are that. `async with testing.harness(service, resources={"ACC-1"}) as aegis: ...` is one instance.

`with testing.blocking_harness(...) as aegis:` is the same for code without a loop, as `aegis_sdk.blocking.connect`.
`harness` runs the SDK's own use cases over a `MemoryBus`, which keeps streams in memory and can lose,
double, delay and cut off. The bus's adapters pass the same contract suite as those of NATS.
"""

from aegis_sdk.blocking import blocking
from aegis_sdk.testing.bus import MemoryBus, MemoryLink
from aegis_sdk.testing.clock import Clock, LoopClock, ManualClock
from aegis_sdk.testing.cluster import Cluster, cluster
from aegis_sdk.testing.faults import Fault, Faults, Flow, Op
from aegis_sdk.testing.harness import MemoryAegis, MemoryInstance, harness
from aegis_sdk.testing.virtual_time import VirtualTime, virtual_time

blocking_harness = blocking(harness)

__all__ = [
    "Clock",
    "Cluster",
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
    "VirtualTime",
    "blocking_harness",
    "cluster",
    "harness",
    "virtual_time",
]
