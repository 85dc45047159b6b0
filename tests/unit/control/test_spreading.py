"""Where AUTO resources should be: properties of the plan, whoever lives, offers and owns what."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import pytest
from aegis_control.domain.leading.failover import Plan
from aegis_control.domain.leading.spreading import LAG_ENTRIES_MAX, Place, can_take, held_up, spread
from aegis_sdk.contract.control import InstanceState, Role
from hypothesis import given
from hypothesis import strategies as st

LIVE, DRAINING, STALLED = InstanceState.LIVE, InstanceState.DRAINING, InstanceState.STALLED
RESOURCES = [f"R{n:02}" for n in range(30)]
CAPACITIES = st.sampled_from([1.0, 1.0, 1.0, 2.0, 0.5, 3.7])


@dataclass(frozen=True)
class Scene:
    """Who is there, who owns what, and what an operator put by hand."""

    places: list[Place]
    owners: dict[str, str]
    kept: Collection[str] = ()

    def after(self, plan: Plan) -> Scene:
        moved = {name: to for to, names in plan.moves.items() for name in names}
        return replace(self, owners=self.owners | moved)

    def active(self) -> Counter[str]:
        return Counter({place.instance_id: 0 for place in self.places}) + Counter(
            self.owners.values()
        )

    def fill(self, place: Place, more: int = 0) -> float:
        owned = sum(owner == place.instance_id for owner in self.owners.values())
        return (owned + more) / place.capacity

    def may_move(self, resource: str, source: Place, target: Place) -> bool:
        return (
            source is not target
            and (source.state, target.state) == (LIVE, LIVE)
            and (source.offers.get(resource), target.offers.get(resource)) == (Role.AUTO, Role.AUTO)
            and can_take(target)
            and resource not in self.kept
        )

    def plan(self, *, difference: float = 0.0, moves_max: int | None = None) -> Plan:
        return spread(
            self.places, self.owners, kept=self.kept, difference=difference, moves_max=moves_max
        )


def equal(actives: Mapping[str, int]) -> Scene:
    """Instances that offer everything as AUTO, each active for so many."""
    names = [f"R{n:04}" for n in range(sum(actives.values()))]
    offers = dict.fromkeys(names, Role.AUTO)
    whose = [name for name, number in actives.items() for _ in range(number)]
    return Scene([Place(name, offers) for name in actives], dict(zip(names, whose, strict=True)))


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Any offers, roles, capacities and lags."""
    places = []
    for n in range(draw(st.integers(1, 5))):
        offers = draw(st.dictionaries(st.sampled_from(RESOURCES), st.sampled_from(Role)))
        lag = draw(st.sampled_from([0, 0, 0, LAG_ENTRIES_MAX, LAG_ENTRIES_MAX + 1, None]))
        state = draw(st.sampled_from([LIVE, LIVE, LIVE, STALLED]))
        places.append(Place(f"i{n}", offers, state, draw(CAPACITIES), lag))
    offered = {name: [p.instance_id for p in places if name in p.offers] for name in RESOURCES}
    owners = {name: draw(st.sampled_from(by)) for name, by in offered.items() if by}
    return Scene(places, owners, draw(st.sets(st.sampled_from(RESOURCES), max_size=5)))


@st.composite
def uniform(draw: st.DrawFn) -> Scene:
    """All offer everything as AUTO; only the capacities differ."""
    scene = equal({f"i{n}": draw(st.integers(0, 12)) for n in range(draw(st.integers(1, 5)))})
    return replace(scene, places=[replace(p, capacity=draw(CAPACITIES)) for p in scene.places])


def moves(plan: Plan) -> list[tuple[str, str]]:
    return [(name, to) for to, names in plan.moves.items() for name in names]


@given(scenes(), st.integers(1, 4))
def test_nothing_goes_where_it_must_not(scene: Scene, moves_max: int) -> None:
    """Neither from a claimed ACTIVE, nor to who lags, stands by, does not offer it, or has it already."""
    by_name = {place.instance_id: place for place in scene.places}
    planned = moves(scene.plan(moves_max=moves_max))
    assert len(planned) == len(dict(planned)) <= moves_max
    for resource, to in planned:
        assert scene.may_move(resource, by_name[scene.owners[resource]], by_name[to])


@given(scenes(), st.integers(1, 4))
def test_it_comes_to_an_end_and_then_no_single_move_makes_it_evener(
    scene: Scene, moves_max: int
) -> None:
    for _ in range(len(RESOURCES) * len(scene.places) * 2):
        plan = scene.plan(moves_max=moves_max)
        if not plan.moves:
            break
        scene = scene.after(plan)
    assert not plan.moves
    for source, target in itertools.permutations(scene.places, 2):
        if any(
            scene.may_move(resource, source, target)
            for resource, owner in scene.owners.items()
            if owner == source.instance_id
        ):
            assert scene.fill(source) <= scene.fill(target, 1) + 1e-6


@given(scenes(), st.floats(0, 1))
def test_what_was_spread_is_stable(scene: Scene, difference: float) -> None:
    while (plan := scene.plan()).moves:
        scene = scene.after(plan)
    assert not scene.plan(difference=difference).moves


@given(st.lists(st.integers(0, 15), min_size=1, max_size=6))
def test_equal_instances_differ_by_one_at_most_after_as_few_moves_as_possible(
    actives: list[int],
) -> None:
    scene = equal({f"i{n}": number for n, number in enumerate(actives)})
    plan = scene.plan()
    after = sorted((scene.after(plan).active()[p.instance_id] for p in scene.places), reverse=True)
    assert after[0] - after[-1] <= 1
    before = sorted(actives, reverse=True)
    assert len(moves(plan)) == sum(max(0, b - a) for b, a in zip(before, after, strict=True))


@given(uniform())
def test_capacities_weigh_and_nothing_moves_twice(scene: Scene) -> None:
    """However the plan is cut into pieces, nobody both gives and gets."""
    givers, takers = set(), set()
    while planned := moves(scene.plan(moves_max=2)):
        givers |= {scene.owners[name] for name, _ in planned}
        takers |= {to for _, to in planned}
        scene = scene.after(scene.plan(moves_max=2))
    assert not givers & takers
    for one, other in itertools.permutations(scene.places, 2):
        if scene.active()[one.instance_id]:
            assert scene.fill(one) <= scene.fill(other, 1) + 1e-6


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 30, "b": 0, "c": 0}, [10, 10, 10]),
        ({"a": 10, "b": 10, "c": 10, "d": 0}, [8, 8, 7, 7]),
        ({"a": 15, "b": 15}, [15, 15]),
        ({"a": 1, "b": 0}, [1, 0]),
        ({"a": 2, "b": 0}, [1, 1]),
        ({"a": 5_000, "b": 0, "c": 0}, [1_667, 1_667, 1_666]),
    ],
)
def test_accounts_are_spread(before: dict[str, int], after: list[int]) -> None:
    scene = equal(before)
    spread_out = scene.after(scene.plan(difference=0.25)).active()
    assert sorted((spread_out[name] for name in before), reverse=True) == after


def test_twice_the_capacity_gets_twice_as_much() -> None:
    scene = equal({"a": 30, "b": 0})
    for factor in (1.0, 1_000.0):  # only their ratio counts
        places = [
            replace(scene.places[0], capacity=factor),
            replace(scene.places[1], capacity=2 * factor),
        ]
        sized = replace(scene, places=places)
        assert sized.after(sized.plan()).active() == Counter(a=10, b=20)


def test_a_small_difference_is_not_worth_it_until_something_moves_anyway() -> None:
    """Beginning takes a quarter of the mean; once begun, it goes on until it is even."""
    assert not equal({"a": 11, "b": 9, "c": 10}).plan(difference=0.25).moves
    assert len(moves(equal({"a": 11, "b": 9, "c": 10}).plan())) == 1
    assert len(moves(equal({"a": 12, "b": 9, "c": 9}).plan(difference=0.25))) == 2


@pytest.mark.parametrize(
    "unsettled", [Place("z", {}, DRAINING), Place("z", {}, doubted=True)], ids=["drains", "late"]
)
def test_nothing_moves_while_an_instance_drains_or_is_late(unsettled: Place) -> None:
    scene = equal({"a": 30, "b": 0})
    scene.places.append(unsettled)
    assert not scene.plan().moves
    assert "instance z" in held_up(scene.places)


def test_a_claimed_active_is_counted_and_not_moved() -> None:
    scene = equal({"a": 10, "b": 0})
    claimed = dict.fromkeys(scene.owners, Role.ACTIVE)
    assert not replace(scene, places=[Place("a", claimed), scene.places[1]]).plan().moves
    mixed = claimed | dict.fromkeys(list(claimed)[:4], Role.AUTO)
    some = replace(scene, places=[Place("a", mixed), scene.places[1]])
    assert sorted(name for name, _ in moves(some.plan())) == ["R0000", "R0001", "R0002", "R0003"]


def test_the_plan_says_why() -> None:
    scene = equal({"a": 30, "b": 0})
    scene.places[1] = replace(scene.places[1], capacity=2)
    assert scene.plan(moves_max=1).why == {"b": "active for 0 with capacity 2, and a for 30"}
