"""What the clients ask and the services do under faults; the checkers know what must come of it."""

from __future__ import annotations

from bench.chaos.workloads.api import Ask, Workload
from bench.chaos.workloads.collections import DEADLINES, HOT, LIST, SET
from bench.chaos.workloads.events import EVENTS
from bench.chaos.workloads.group import GROUP
from bench.chaos.workloads.register import REGISTER
from bench.chaos.workloads.timers import TIMERS
from bench.chaos.workloads.transfers import TRANSFERS

__all__ = ["WORKLOADS", "Ask", "Workload"]

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (SET, LIST, HOT, REGISTER, TRANSFERS, DEADLINES, GROUP, TIMERS, EVENTS)
}
