"""Where resources go that are taken on demand: who is active first, and who stands by. Pure.

Theory of operation. An instance that takes resources on demand says so by patterns. What it was given is what it offers, and
what its patterns match of that came on demand. A resource that is asked for goes to the instance that is least full for its
capacity, if none follows it still. Those that stand by are as many as the most generous of its instances wants. One in another zone than the
active comes first; among equals one that follows already, then the least loaded. So a choice changes only for a better zone, or when
somebody leaves.

What must stay true: nobody stops following before all that are to follow do. What somebody offers by name, and no pattern of
its own matches, is that one's own affair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aegis_sdk.contract.control import InstanceState

from aegis_control.domain.leading.spreading import Place, can_take


@dataclass(frozen=True, slots=True)
class Orders:
    """By instance: resources to offer, and to offer no more."""

    add: dict[str, list[str]] = field(default_factory=dict)
    remove: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def actives(
    wanted: Iterable[str], places: Collection[Place], owned: Mapping[str, int]
) -> dict[str, list[str]]:
    """Who is to take each of `wanted`, by instance; those that nobody can take are left out.

    `owned`: for how many each instance is active.
    """
    able = [place for place in places if place.on_demand and not place.doubted and can_take(place)]
    active = Counter(owned)
    found: dict[str, list[str]] = {}
    for resource in wanted:
        takers = [place for place in able if place.takes(resource)]
        if not takers:
            continue
        best = min(
            takers,
            key=lambda p: (resource not in p.offers, _fill(p, active[p.instance_id])),
        )
        active[best.instance_id] += 1
        found.setdefault(best.instance_id, []).append(resource)
    return found


def standbys(
    owners: Mapping[str, str], places: Sequence[Place], *, resting: Collection[str]
) -> Orders:
    """What has to change so that each resource that came on demand has its standbys. `owners`: the active of each resource
    that has one; `resting`: those that nobody is to have.
    """
    live = [place for place in places if place.on_demand and place.state is InstanceState.LIVE]
    by_name = {place.instance_id: place for place in places}
    load = Counter({place.instance_id: len(place.offers) for place in live})
    orders = Orders()
    if not live:
        return orders
    for resource, owner in owners.items():
        takers = [place for place in live if place.takes(resource)]
        if takers and owner in by_name:
            _add_standbys(resource, by_name[owner], takers, load, orders)
    for place in live:
        if gone := [r for r in place.offers if r in resting and place.takes(r)]:
            orders.remove.setdefault(place.instance_id, []).extend(gone)
    return orders


def _add_standbys(
    resource: str, active: Place, takers: Sequence[Place], load: Counter[str], orders: Orders
) -> None:
    wanted = max(place.on_demand.standbys for place in takers if place.on_demand)
    others = [place for place in takers if place is not active]
    follow = [place for place in others if resource in place.offers]
    able = [p for p in others if p in follow or (can_take(p) and not p.doubted)]
    able.sort(
        key=lambda place: (
            place.zone == active.zone,
            place not in follow,
            _fill(place, load[place.instance_id]),
        )
    )
    chosen = able[:wanted]
    coming = [place for place in chosen if place not in follow]
    for place in coming:
        load[place.instance_id] += 1
        orders.add.setdefault(place.instance_id, []).append(resource)
    if not coming:
        for place in follow:
            if place not in chosen:
                orders.remove.setdefault(place.instance_id, []).append(resource)


def _fill(place: Place, active: int) -> tuple[float, str]:
    return (active + 1) / place.capacity, place.instance_id
