"""One block of load: what a caller process is told to send, and what it tells back. Plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from bench.latencies import Latencies
from bench.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Block:
    """Load for `duration_s`, or `calls_max` calls, whichever ends first.

    closed: `in_flight` calls at a time, the next when one ends. open: calls at `rate_per_s` (Poisson),
    whatever became of those before; latency counts from the intended send time.
    """

    mix: Literal["targeted", "group", "mix", "reads"]
    mode: Literal["closed", "open"]
    duration_s: float
    in_flight: int = 1
    rate_per_s: float = 0.0
    calls_max: int = 1_000_000
    shape: Literal["flat", "day"] = "flat"
    spread: Literal["even", "zipf"] = "zipf"
    seed: int = 1
    account: str = ""
    """All calls go to this one account; empty: to all of the caller's."""
    note_bytes: int | None = None
    """Length of each fill's note; None: the fill is 256 bytes long as JSON."""
    keep_spans: bool = False
    """Tell when each call began and ended, too."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        return cls(**{f.name: raw[f.name] for f in fields(cls) if f.name in raw})

    @property
    def name(self) -> str:
        """ "targeted, 64 in flight" or "mix, 500/s"."""
        load = f"{self.in_flight} in flight" if self.mode == "closed" else f"{self.rate_per_s:g}/s"
        shape = " over a day" if self.shape == "day" else ""
        hot = " on one resource" if self.account else ""
        note = "" if self.note_bytes is None else f", {self.note_bytes:,} B"
        return f"{self.mix}, {load}{shape}{hot}{note}"

    def share(self, callers: int, index: int) -> Block:
        """The part of one of `callers` processes."""
        raw = self.as_dict()
        raw["in_flight"] = max(1, self.in_flight // callers)
        raw["rate_per_s"] = self.rate_per_s / callers
        raw["calls_max"] = max(1, self.calls_max // callers)
        raw["seed"] = self.seed * 1000 + index
        return Block.from_dict(raw)


@dataclass(slots=True)
class Told:
    """What a caller tells back about a block. `late`: how late calls were begun (open loop)."""

    latencies: Latencies = field(default_factory=Latencies)
    late: Latencies = field(default_factory=Latencies)
    ledger: Ledger = field(default_factory=Ledger)
    elapsed_s: float = 0.0
    shed: int = 0
    """Calls that were not begun because too many were waiting: the rate was not offered."""
    errors: dict[str, int] = field(default_factory=dict)
    spans: list[tuple[float, float]] = field(default_factory=list)
    """Intended begin and end of each answered call, if asked for; by the machine's monotonic clock."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "latencies": self.latencies.encode(),
            "late": self.late.encode(),
            "ledger": self.ledger.as_dict(),
            "elapsed_s": self.elapsed_s,
            "shed": self.shed,
            "errors": self.errors,
            "spans": self.spans,
        }

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        return cls(
            Latencies(raw["latencies"]),
            Latencies(raw["late"]),
            Ledger.from_dict(raw["ledger"]),
            raw["elapsed_s"],
            raw["shed"],
            raw["errors"],
            [(began_s, ended_s) for began_s, ended_s in raw["spans"]],
        )

    def merge(self, other: Told) -> None:
        self.latencies.merge(other.latencies)
        self.late.merge(other.late)
        self.ledger.merge(other.ledger)
        self.elapsed_s = max(self.elapsed_s, other.elapsed_s)
        self.shed += other.shed
        self.spans += other.spans
        for error, count in other.errors.items():
            self.errors[error] = self.errors.get(error, 0) + count
