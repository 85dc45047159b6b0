"""Loss accounting: every request that was sent, against its outcome and its effect.

A caller keeps one ledger; the ledgers of all callers of a system are merged and compared with what its
instances hold at the end. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from bench.model import Fill, Position, digest_after

ORDERS = ""
"""The account under which group orders are counted: they have no resource."""


@dataclass(slots=True)
class Tally:
    """Count, sum and digest of a set of fills."""

    count: int = 0
    quantity: int = 0
    digest: int = 0

    def add(self, fill: Fill) -> None:
        self.count += 1
        self.quantity += fill.quantity
        self.digest = digest_after(self.digest, fill.id)

    def merge(self, other: Tally | Position) -> None:
        self.count += other.count
        self.quantity += other.quantity
        self.digest = digest_after(self.digest + other.digest, 0)


@dataclass(slots=True)
class Ledger:
    """What callers know: `done` had a good reply; `unknown` got neither reply nor a definite refusal."""

    sent: int = 0
    ok: int = 0
    refused: int = 0
    """Certainly without effect."""
    wrong_replies: int = 0
    """Answers to something else."""
    done: dict[str, Tally] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    unknown_reads: int = 0

    def add_done(self, account: str, fill: Fill) -> None:
        tally = self.done.get(account)
        if tally is None:
            tally = self.done[account] = Tally()
        tally.add(fill)

    def add_unknown(self, account: str) -> None:
        self.unknown[account] = self.unknown.get(account, 0) + 1

    def merge(self, other: Ledger) -> None:
        self.sent += other.sent
        self.ok += other.ok
        self.refused += other.refused
        self.wrong_replies += other.wrong_replies
        self.unknown_reads += other.unknown_reads
        for account, tally in other.done.items():
            self.done.setdefault(account, Tally()).merge(tally)
        for account, count in other.unknown.items():
            self.unknown[account] = self.unknown.get(account, 0) + count

    def as_dict(self) -> dict[str, Any]:
        done = {account: [t.count, t.quantity, t.digest] for account, t in self.done.items()}
        return {
            "sent": self.sent,
            "ok": self.ok,
            "refused": self.refused,
            "wrong_replies": self.wrong_replies,
            "unknown_reads": self.unknown_reads,
            "done": done,
            "unknown": self.unknown,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        done = {account: Tally(*values) for account, values in raw["done"].items()}
        plain = {key: value for key, value in raw.items() if key != "done"}
        return cls(done=done, **plain)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of all requests. `clean` is what the suite promises."""

    sent: int
    ok: int
    refused: int
    unknown: int
    """No outcome within the deadline: for the caller, lost."""
    lost_effects: int
    """Answered as done, but not in the state."""
    duplicates: int
    """In the state more often than sent."""
    wrong: int
    """Answers to something else, or states with the right count of the wrong fills."""
    unaccounted: int
    """Sent, but not in any of the counts: a fault of the suite itself."""

    @property
    def clean(self) -> bool:
        return not (
            self.unknown or self.lost_effects or self.duplicates or self.wrong or self.unaccounted
        )


def judge(ledger: Ledger, effects: Mapping[str, Tally]) -> Verdict:
    """Compare what callers know with what the instances hold (`effects`, by account).

    An unknown request may have taken effect or not: the state may hold up to that many more.
    """
    lost = duplicates = wrong = 0
    for account in ledger.done.keys() | ledger.unknown.keys() | effects.keys():
        expected = ledger.done.get(account, Tally())
        found = effects.get(account, Tally())
        lost += max(0, expected.count - found.count)
        duplicates += max(0, found.count - expected.count - ledger.unknown.get(account, 0))
        wrong += found.count == expected.count and found != expected
    unknown = sum(ledger.unknown.values()) + ledger.unknown_reads
    return Verdict(
        sent=ledger.sent,
        ok=ledger.ok,
        refused=ledger.refused,
        unknown=unknown,
        lost_effects=lost,
        duplicates=duplicates,
        wrong=wrong + ledger.wrong_replies,
        unaccounted=ledger.sent - ledger.ok - ledger.refused - unknown - ledger.wrong_replies,
    )
