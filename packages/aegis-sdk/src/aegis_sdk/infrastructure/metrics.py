"""The figures of a Recorder, sent to control and shown to prometheus-client.

That only renders: it is loaded when somebody serves metrics, and never on a request's path.

Counting is a dict's entry in the recorder (domain/recorder.py), on the request's path and without a lock. Here it is read from
outside: by the publisher on the loop, once a second, and by a scrape in a thread of its own. A scrape may therefore see a
histogram between two of its figures, which the next one makes good.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aegis_sdk.contract.metrics import (
    FAMILIES,
    PUBLISH_INTERVAL_S,
    QUIET_INTERVAL_S,
    Kind,
    Number,
    Observations,
    Snapshot,
)
from aegis_sdk.contract.subjects import Subjects
from aegis_sdk.domain.recorder import Histogram, Recorder
from aegis_sdk.log_writer import take_dropped_lines
from aegis_sdk.nats.link import Link
from aegis_sdk.telemetry import log

if TYPE_CHECKING:
    from prometheus_client import Metric


def snapshot_of(recorder: Recorder, *, source: str, n: int, final: bool = False) -> Snapshot:
    """What `recorder` has counted, in the published form. Built without checks: the figures are ours."""
    return Snapshot.model_construct(
        source=source,
        n=n,
        final=final,
        numbers=[
            Number.model_construct(family=family.name, labels=labels, value=value)
            for family, labels, value in recorder.numbers()
        ],
        histograms=[
            Observations.model_construct(
                family=family.name,
                labels=labels,
                counts=_without_zeros(histogram),
                sum=histogram.sum,
            )
            for family, labels, histogram in recorder.histograms()
        ],
    )


def _without_zeros(histogram: Histogram) -> list[int]:
    counts = list(histogram.counts)
    while counts and not counts[-1]:
        counts.pop()
    return counts


class Publisher:
    """Sends a recorder's snapshot again and again; what is lost on the way the next one has too.

    While nothing is counted it does so seldom: many idle processes would keep control and NATS busy. A snapshot has all
    that was ever counted here, under a source that is new for each connection of each process: control adds what rose
    between two.
    """

    def __init__(self, link: Link, subjects: Subjects, recorder: Recorder, *, source: str) -> None:
        self._link = link
        self._subject = subjects.metrics(source)
        self._recorder = recorder
        self._source = source
        self._n = 0
        self._sent: tuple[float, ...] = ()
        """The recorder's activity as of the last snapshot."""
        self._sent_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The first snapshot is sent before anything is counted, so that control counts from zero."""
        self._task = asyncio.create_task(self._publish())

    async def stop(self) -> None:
        """Send the last one. Safe twice."""
        if self._task is None:
            return
        self._task.cancel()
        self._task = None
        self._send(final=True)

    async def _publish(self) -> None:
        while True:
            self._recorder.log_lines_dropped(take_dropped_lines())
            try:
                if self._recorder.activity() != self._sent or self._is_due():
                    self._send()
            except Exception as error:  # of one snapshot: the next one has all of it
                log.error("metrics_not_sent", exc_info=error)
            await asyncio.sleep(PUBLISH_INTERVAL_S)

    def _is_due(self) -> bool:
        """Half an interval early, since the loop comes by once an interval and is never exactly on time."""
        return time.monotonic() - self._sent_s > QUIET_INTERVAL_S - PUBLISH_INTERVAL_S / 2

    def _send(self, *, final: bool = False) -> None:
        if not self._link.is_connected:
            return  # the client would keep it, and send it when newer ones are there
        self._n += 1
        self._sent, self._sent_s = self._recorder.activity(), time.monotonic()
        snapshot = snapshot_of(self._recorder, source=self._source, n=self._n, final=final)
        self._link.publish(self._subject, snapshot.model_dump_json().encode())


class RecorderCollector:
    """Shows a recorder to prometheus-client, which calls `collect` in the thread of each scrape."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        types = {
            Kind.COUNTER: CounterMetricFamily,
            Kind.GAUGE: GaugeMetricFamily,
            Kind.HISTOGRAM: HistogramMetricFamily,
        }
        shown = {
            name: types[family.kind](name, family.meaning, labels=family.labels)
            for name, family in FAMILIES.items()
        }
        for family, labels, value in self._recorder.numbers():
            shown[family.name].add_metric(labels, value)
        for family, labels, histogram in self._recorder.histograms():
            shown[family.name].add_metric(labels, _cumulative(histogram), histogram.sum)
        return [metric for metric in shown.values() if metric.samples]


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """As Prometheus has it: each bucket counts all values up to its bound. Ours each count their own."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    total, buckets = 0, []
    for bound, count in zip(bounds, list(histogram.counts), strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
