"""What the trim of a service's log may take. Pure: what the newest checkpoints say in, a position and names out.

Theory of operation. A reader begins at the checkpoints of its resources, behind the oldest of them. So what stands up to the
oldest of *all* checkpoints is read by nobody who begins, once nobody looks for a single outcome there any more (its age). A
resource without a checkpoint is read from the entry that named it first. Ownership entries go too, but the newest: it tells who
begins that the rest was there.

The gates up to there go with them, except those of writers whose checkpoints are among the newest. A process that slept through
the trim would otherwise find the gate that shut it out, without the ownership entry that said why, and take it for its own.
A writer's claims go with its gate, for the same reason.

What must stay true: whatever a checkpoint names as read may be gone; whatever is behind any of them is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aegis_sdk.contract.turns.checkpoint import SavedUpTo
from aegis_sdk.domain.turns.ownership import UNOWNED

_NOBODY_IN_THE_WAY: Final = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """All entries up to `upto` may go; `held_by` is the resource that keeps what is behind."""

    upto: int
    held_by: str = _NOBODY_IN_THE_WAY


def limit(saved: Mapping[str, SavedUpTo], first_named: Mapping[str, int], *, old: int) -> Limit:
    """`first_named`: where the log names each resource first. `old`: the last entry that is past its retention."""
    found = Limit(old)
    for resource in saved.keys() | first_named.keys():
        newest = saved.get(resource)
        needed = first_named.get(resource, 1) - 1 if newest is None else newest.read
        if needed < found.upto:
            found = Limit(needed, resource)
    return found


def gates_to_go(
    saved: Mapping[str, SavedUpTo], gates: Mapping[str, int], *, upto: int
) -> list[str]:
    """Writers whose gates, and claims, go: those up to `upto`, of whom no newest checkpoint is."""
    known = {each.writer for each in saved.values()}
    return sorted(writer for writer, seq in gates.items() if seq <= upto and writer not in known)


def to_keep(
    saved: Mapping[str, SavedUpTo], vacant: Mapping[str, int], *, old: int
) -> dict[str, bool]:
    """Resources of nobody whose checkpoints are in the trim's way; each with whether there may be outcomes behind that.

    `vacant`: those that are nobody's and whose writers are all shut out, and by which ownership entry.
    """
    return {
        resource: newest is None or newest.writer not in UNOWNED or newest.own < number
        for resource, number in vacant.items()
        for newest in (saved.get(resource),)
        if newest is None or newest.read < old
    }
