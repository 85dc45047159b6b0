"""Requests of one resource that run one after the other before the first is stored, to be stored at once.

Each run sees what those before it changed, on top of the resource's values, which stay as they are: to
drop a batch is to forget it. So only pure handlers run here, and nobody is told before it is stored.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Self

from aegis_sdk.application.handlers import Runner
from aegis_sdk.application.ports import Delivery
from aegis_sdk.application.tracing import Span
from aegis_sdk.contract.envelope import Outcome, Request
from aegis_sdk.domain.journal import Ahead

BATCH_MAX: Final = 32
"""On three nodes a commit of 32 took 2.7 ms here, one of 16 1.6 ms: more would save little for each."""
BATCH_RUN_S: Final = 0.001
"""The first one's answer waits for so long at most for those that run behind it."""
BATCH_BYTES_MAX: Final = 256 * 1024
"""The servers hand a batch on as a whole."""
DEADLINE_S: Final = 0.01
"""What has less time left may be cancelled before it is stored, and would keep the others out."""


def has_time(request: Request) -> bool:
    return request.deadline_s is None or request.deadline_s > time.time() + DEADLINE_S


@dataclass(frozen=True, slots=True)
class Computed:
    """A request whose handler ran; `outcome` is not stored yet."""

    delivery: Delivery
    outcome: Outcome
    span: Span
    begun_s: float
    """Unix time."""
    process_s: float


class Batch:
    """The runs that are not stored so far, in `open`. A context manager, which ends their spans."""

    def __init__(self, runner: Runner, values: Mapping[str, Any], *, epoch: int) -> None:
        self.open: deque[Computed] = deque()
        self._runner = runner
        self._values = Ahead(values)
        self._epoch = epoch
        self._bytes = 0
        self._full_s = time.perf_counter() + BATCH_RUN_S
        self._spans = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._spans.__exit__(*error)

    @property
    def is_full(self) -> bool:
        return (
            len(self.open) >= BATCH_MAX
            or self._bytes >= BATCH_BYTES_MAX
            or time.perf_counter() >= self._full_s
        )

    @property
    def commits(self) -> list[tuple[Request, Outcome]]:
        return [(run.delivery.request, run.outcome) for run in self.open]

    def run(self, delivery: Delivery) -> None:
        """Run a pure handler behind the others."""
        request, begun_s, started_s = delivery.request, time.time(), time.perf_counter()
        span = self._spans.enter_context(self._runner.span(request, begun=1, epoch=self._epoch))
        outcome = self._runner.compute(
            request,
            request_seq=delivery.arrival.stream_seq,
            epoch=self._epoch,
            values=self._values,
        )
        if outcome.changed:
            self._values.apply(outcome.changed)
        self._bytes += len(outcome.body) + len(outcome.change)
        process_s = time.perf_counter() - started_s
        self.open.append(Computed(delivery, outcome, span, begun_s, process_s))
