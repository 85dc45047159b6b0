"""The metrics' published language: their names, labels and buckets, and the snapshot that a process sends.

A snapshot is cumulative: a lost one costs nothing but time, and control counts what changed between two
(docs/adr/0010). Ids of resources, instances and accounts are never labels: their number has no bound.

Both sides may be of another version. A family, a label or a bucket that the other side does not know is left out by
it, and costs nothing else. So a name's meaning, its labels' order and the bounds of its buckets never change: what
shall mean something else gets another name. docs/observability.md is what users read; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

BUCKETS_S: Final = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""From 0.25 ms: the usual start, 5 ms, is the whole budget of a request here."""
BUCKETS_N: Final = tuple(2.0**n for n in range(len(BUCKETS_S)))
"""Of what is counted and not timed. As many, so that all histograms travel alike."""

PUBLISH_INTERVAL_S: Final = 1.0
"""How often a process sends its snapshot: half of control's step, so that each step hears of all."""
QUIET_INTERVAL_S: Final = 5.0
"""How often one that has counted nothing does: it only says that it is still there."""
SERIES_MAX: Final = 2_000
"""Combinations of labels that one process, or control for all of them, keeps."""
OTHER: Final = "-"
"""The label of what is not told apart: an unknown method, or all beyond SERIES_MAX. No name can be `-`."""

LabelValues = tuple[str, ...]


class Route(StrEnum):
    """Where a request goes."""

    GROUP = "any"
    TARGETED = "at"


class Answer(StrEnum):
    """What stands for an outcome in `aegis_requests_total` when a request has none that is known."""

    REFUSED = "refused"
    """Certainly without effect, and nothing of it is stored as an outcome."""
    UNKNOWN = "unknown"
    """NATS could not be reached to end the doubt."""


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    """Control has it from heartbeats."""
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name as scraped (a histogram's without suffix), labels in their order, meaning."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = BUCKETS_S


_METHOD: Final = ("service", "method", "route")
_SERVICE: Final = ("service",)

REQUESTS: Final = Family(
    "aegis_requests_total",
    Kind.COUNTER,
    (*_METHOD, "outcome"),
    "Requests by their one outcome, each counted by the process that wrote it; refused and unknown"
    " by the caller.",
)
REQUEST_DURATION: Final = Family(
    "aegis_request_duration_seconds",
    Kind.HISTOGRAM,
    _METHOD,
    "At the caller: from sending a request until its outcome is known.",
)
PROCESS_DURATION: Final = Family(
    "aegis_process_duration_seconds",
    Kind.HISTOGRAM,
    _METHOD,
    "At the instance: a handler's run, its retries included.",
)
QUEUE_WAIT: Final = Family(
    "aegis_queue_wait_seconds",
    Kind.HISTOGRAM,
    _METHOD,
    "From a request's storing, by the clock of NATS, until its turn, by the clock of the instance.",
)
COMMIT_DURATION: Final = Family(
    "aegis_commit_duration_seconds",
    Kind.HISTOGRAM,
    _METHOD,
    "At the instance: storing an outcome until the answer is definite.",
)
REQUESTS_STORED: Final = Family(
    "aegis_requests_stored_total",
    Kind.COUNTER,
    ("service", "reason"),
    "At the caller: requests that were submitted, or stored for another reason.",
)
REDELIVERIES: Final = Family(
    "aegis_redeliveries_total",
    Kind.COUNTER,
    _SERVICE,
    "Requests that were delivered again: by the broker, or read again after a doubt about order.",
)
DUPLICATES: Final = Family(
    "aegis_duplicates_suppressed_total",
    Kind.COUNTER,
    _SERVICE,
    "Deliveries answered from the stored outcome instead of being run again.",
)
FENCED_COMMITS: Final = Family(
    "aegis_fenced_commits_total",
    Kind.COUNTER,
    _SERVICE,
    "Outcomes that could not be stored, since their resource has another owner by now.",
)
TURNS: Final = Family(
    "aegis_turns_total", Kind.COUNTER, _SERVICE, "Turns that instances have stored."
)
TURN_OUTCOMES: Final = Family(
    "aegis_turn_outcomes",
    Kind.HISTOGRAM,
    _SERVICE,
    "Outcomes in a stored turn.",
    BUCKETS_N,
)
GATES: Final = Family(
    "aegis_gates_total",
    Kind.COUNTER,
    ("reason",),
    "Gates that instances and callers have stored: `taken_over` from another instance, `gave_up` on"
    " requests, `claimed` on a new connection, an instance's `own` in place of one that does not come.",
)
LOOP_LAG: Final = Family(
    "aegis_event_loop_lag_seconds",
    Kind.HISTOGRAM,
    _SERVICE,
    "How late an instance's event loop ran, asked at each of its heartbeats.",
)
LOG_LINES_DROPPED: Final = Family(
    "aegis_log_lines_dropped_total",
    Kind.COUNTER,
    (),
    "Log lines of callers and instances that were dropped, because nobody read them fast enough.",
)
STANDBY_LAG: Final = Family(
    "aegis_standby_lag_entries",
    Kind.GAUGE,
    _SERVICE,
    "Journal entries that the furthest behind live instance has not read yet.",
)

HAND_INS_WAITING: Final = Family(
    "aegis_hand_ins_waiting",
    Kind.GAUGE,
    _SERVICE,
    "What handlers of the service have handed in or emitted, and is not stored yet where it goes.",
)

TIMERS: Final = Family(
    "aegis_timers",
    Kind.GAUGE,
    _SERVICE,
    "Timers that wait at the instances that serve their resources.",
)
TIMER_LATENESS: Final = Family(
    "aegis_timer_lateness_seconds",
    Kind.HISTOGRAM,
    _SERVICE,
    "How long after its time a timer's request was accepted.",
)

FAMILIES: Final = {
    family.name: family
    for family in (
        *(REQUESTS, REQUEST_DURATION, PROCESS_DURATION, QUEUE_WAIT, COMMIT_DURATION),
        *(
            REDELIVERIES,
            DUPLICATES,
            FENCED_COMMITS,
            TURNS,
            TURN_OUTCOMES,
            GATES,
            LOOP_LAG,
            STANDBY_LAG,
        ),
        *(REQUESTS_STORED, LOG_LINES_DROPPED, HAND_INS_WAITING, TIMERS, TIMER_LATENESS),
    )
}
"""name: what a process may tell of itself."""


class _Wire(BaseModel):
    """What one number or label can't be is judged where it is counted: it must not cost the others."""

    model_config = ConfigDict(extra="ignore")


class Number(_Wire):
    """The value of a counter or a gauge; `labels` in the family's order."""

    family: str
    labels: LabelValues
    value: float


class Observations(_Wire):
    """A histogram: how many values fell into each bucket (the last is above all bounds), and their sum.

    Zeros at the end are left out.
    """

    family: str
    labels: LabelValues
    counts: Annotated[list[int], Field(max_length=len(BUCKETS_S) + 1)]
    sum: float

    def all_counts(self) -> list[int]:
        return self.counts + [0] * (len(BUCKETS_S) + 1 - len(self.counts))


class Snapshot(_Wire):
    """Published on `met.<source>`: everything a process has counted since it started.

    Control adds what rose since the last one of this source. `n` tells it what came in between: after a gap it still has
    everything, and one that is older than the last is left out.
    """

    source: str
    """New at every start of a process, and for every connection of it."""
    n: int
    """1 at the first, which is sent before anything was counted."""
    final: bool = False
    """No further one comes."""
    numbers: list[Number] = []
    histograms: list[Observations] = []
