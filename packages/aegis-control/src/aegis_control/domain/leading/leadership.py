"""Which control replica leads: a record in the control bucket, renewed by its writer, judged by the rest.

Nobody compares clocks: a replica counts, by its own clock, how long the record has not changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import BaseModel


class LeaderRecord(BaseModel):
    """The stored claim; `n` rises with every renewal."""

    id: str
    n: int = 0
    released: bool = False


@dataclass(frozen=True, slots=True)
class Sighting:
    """The record as one replica last saw it, and since when it has been so."""

    revision: int = 0
    leader: str = ""
    released: bool = False
    since_s: float = 0.0


def seen(
    before: Sighting | None, revision: int, record: LeaderRecord | None, now_s: float
) -> Sighting:
    """Take note of what is stored now (`record` is None, `revision` 0 for an empty bucket)."""
    if before is not None and before.revision == revision:
        return before
    if record is None:
        return Sighting(revision=revision, since_s=now_s)
    return Sighting(revision, record.id, record.released, now_s)


def may_take(sighting: Sighting, *, me: str, now_s: float, timeout_s: float) -> bool:
    """Is it time to try? Nobody leads, the leader released it, or it has not been heard for too long."""
    nobody = not sighting.leader or sighting.released
    # A record with our own id is left from a run that was cut off; waiting for ourselves helps nobody.
    return nobody or sighting.leader == me or now_s - sighting.since_s > timeout_s


def taken(sighting: Sighting, *, me: str, revision: int, now_s: float) -> Sighting:
    """After our own write was stored as `revision`."""
    return replace(sighting, revision=revision, leader=me, released=False, since_s=now_s)
