"""Where AUTO resources should be: evenly over the live instances. Pure: who is there and owns what in, the next moves out.

Theory of operation. The *fill* of an instance is the number of resources that it is active for, divided by its capacity; of
capacities only their ratio counts. A move is worth it when its source is still as full after it as its target, and was fuller before.
The best such move comes first, so few moves make it even. Each one lowers the sum of n(n+1)/2c over all instances, so the moves
come to an end, wherever a plan is cut off. With equal capacities and offers no two instances differ by more than one resource then.

To begin needs a larger difference than to go on (`difference`): else each small change would cost handovers.

What must stay true: both sides of a move offer the resource as AUTO. Nobody is moved away from who claimed to be ACTIVE, or to who only
stands by. While one of the instances is late or drains, nothing moves: what it has will move in a moment, or just did.
What would break: a target that lags makes callers wait until it has read the log; two such plans may take turns for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aegis_sdk.contract.control import InstanceState, OnDemand, Role

from aegis_control.domain.leading.failover import Plan

LAG_ENTRIES_MAX: Final = 1_000
"""A target may have as much to read: it takes some tens of milliseconds, and under load there always is something."""
_SAME: Final = 1e-9
"""Fills are quotients: a gain below this is none."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator has set; the settings say what each trades."""

    on: bool
    wait_s: float
    moves_max: int
    difference: float


@dataclass(frozen=True, slots=True)
class Place:
    """A registered instance as control sees it now."""

    instance_id: str
    offers: Mapping[str, Role]
    state: InstanceState = InstanceState.LIVE
    capacity: float = 1.0
    lag_entries: int | None = 0
    """None: not told yet."""
    doubted: bool = False
    """Not heard for longer than it should be."""
    on_demand: OnDemand | None = None
    zone: str = ""

    def takes(self, resource: str) -> bool:
        """On demand."""
        return self.on_demand is not None and self.on_demand.matches(resource)

    def offers_auto(self, resource: str) -> bool:
        """Whether it may be moved there, or away. What is taken on demand has to come first."""
        role = self.offers.get(resource)
        return role is Role.AUTO if role is not None else self.takes(resource)


def held_up(places: Iterable[Place]) -> str:
    """Why nothing may move just now; empty when it may."""
    for place in places:
        if place.state is InstanceState.DRAINING:
            return f"instance {place.instance_id} drains"
        if place.state is InstanceState.LIVE and place.doubted:
            return f"instance {place.instance_id} is late"
    return ""


def can_take(place: Place) -> bool:
    return (
        place.state is InstanceState.LIVE
        and place.lag_entries is not None
        and place.lag_entries <= LAG_ENTRIES_MAX
    )


def spread(
    places: Collection[Place],
    owners: Mapping[str, str],
    *,
    kept: Collection[str] = (),
    difference: float = 0.0,
    moves_max: int | None = None,
) -> Plan:
    """The next moves, at most `moves_max`; none of one resource twice.

    `owners`: resource to the instance that is active for it; those in `kept` stay. Nothing moves for a difference of fills
    below `difference` times the mean fill.
    """
    scales = _Scales(places, owners, kept)
    plan = Plan()
    if held_up(places):
        return plan
    for n in range(len(owners) if moves_max is None else moves_max):
        move = scales.best()
        if move is None or (n == 0 and scales.difference(move) < difference * scales.mean):
            break
        plan.moves.setdefault(move.target, []).append(move.resource)
        plan.why.setdefault(move.target, scales.words(move))
        scales.carry_out(move)
    return plan


@dataclass(frozen=True, slots=True)
class _Move:
    gain: float
    source: str
    target: str
    resource: str


class _Scales:
    """How full each live instance is that offers anything as AUTO, while a plan is made."""

    def __init__(
        self, places: Iterable[Place], owners: Mapping[str, str], kept: Collection[str]
    ) -> None:
        self._live = {
            place.instance_id: place
            for place in places
            if place.state is InstanceState.LIVE
            and (place.on_demand or Role.AUTO in place.offers.values())
        }
        total = sum(place.capacity for place in self._live.values())
        self._share = {n: p.capacity / total * len(self._live) for n, p in self._live.items()}
        self._active = dict.fromkeys(self._live, 0)
        self._movable: dict[str, dict[str, None]] = {name: {} for name in self._live}
        for resource, owner in owners.items():
            if owner in self._live:
                self._active[owner] += 1
                if resource not in kept and self._offers(owner, resource):
                    self._movable[owner][resource] = None
        self.mean = sum(self._active.values()) / max(1, len(self._live))

    def best(self) -> _Move | None:
        levels = sorted((self._fill(name, 1), name) for name in self._live)
        found = [move for source in self._live if (move := self._from(source, levels)) is not None]
        return min(found, key=lambda move: (-move.gain, move.source), default=None)

    def _from(self, source: str, levels: list[tuple[float, str]]) -> _Move | None:
        """To whom is emptiest; `levels` are the fills with one more."""
        for level, target in levels if self._movable[source] else ():
            gain = self._fill(source) - level
            if gain < _SAME:
                return None
            resource = self._movable_to(target, source) if can_take(self._live[target]) else None
            if target != source and resource is not None:
                return _Move(gain, source, target, resource)
        return None

    def _movable_to(self, target: str, source: str) -> str | None:
        # The last first: a dict whose first entries are gone is slow to begin.
        return next((r for r in reversed(self._movable[source]) if self._offers(target, r)), None)

    def _offers(self, name: str, resource: str) -> bool:
        return self._live[name].offers_auto(resource)

    def _fill(self, name: str, more: int = 0) -> float:
        return (self._active[name] + more) / self._share[name]

    def difference(self, move: _Move) -> float:
        return self._fill(move.source) - self._fill(move.target)

    def carry_out(self, move: _Move) -> None:
        del self._movable[move.source][move.resource]
        self._active[move.source] -= 1
        self._active[move.target] += 1

    def words(self, move: _Move) -> str:
        return f"active for {self._of(move.target)}, and {move.source} for {self._of(move.source)}"

    def _of(self, name: str) -> str:
        capacity = self._live[name].capacity
        return f"{self._active[name]}" + (f" with capacity {capacity:g}" if capacity != 1 else "")
