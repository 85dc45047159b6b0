"""Who is next, and why: the choice of a standby for each resource of a failed active."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live instance that follows some resources. `active`: how many it is active for."""

    instance_id: str
    resources: frozenset[str]
    lag_entries: int
    active: int
    capacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Who takes a resource over, in words for the event log."""

    instance_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which resources go to whom, and which have nobody."""

    moves: dict[str, list[str]] = field(default_factory=dict)
    """instance id: resources."""
    why: dict[str, str] = field(default_factory=dict)
    """instance id: why it was chosen for its first resource."""
    orphans: list[str] = field(default_factory=list)


def choose(candidates: Sequence[Candidate]) -> Choice | None:
    """The best of `candidates`: least lag, then fewest active resources for its capacity, then name. None without one."""
    if not candidates:
        return None
    best = min(candidates, key=_rank)
    others = len(candidates) - 1
    if not others:
        return Choice(best.instance_id, "the only standby")
    return Choice(
        best.instance_id,
        f"lag {best.lag_entries}, active for {best.active}; best of {others + 1} standbys",
    )


def plan(resources: Iterable[str], candidates: Iterable[Candidate]) -> Plan:
    """Distribute `resources`; each assignment counts as active for the choices after it."""
    pool = {candidate.instance_id: candidate for candidate in candidates}
    result = Plan()
    for resource in resources:
        choice = choose([one for one in pool.values() if resource in one.resources])
        if choice is None:
            result.orphans.append(resource)
            continue
        chosen = pool[choice.instance_id]
        pool[chosen.instance_id] = replace(chosen, active=chosen.active + 1)
        result.moves.setdefault(chosen.instance_id, []).append(resource)
        result.why.setdefault(chosen.instance_id, choice.why)
    return result


def _rank(candidate: Candidate) -> tuple[int, float, str]:
    with_one_more = (candidate.active + 1) / candidate.capacity
    return candidate.lag_entries, with_one_more, candidate.instance_id
