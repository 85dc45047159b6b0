"""Who gets what is taken on demand, and who stands by (domain/leading/placing.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aegis_control.domain.leading.placing import Orders, actives, standbys
from aegis_control.domain.leading.spreading import Place
from aegis_sdk.contract.control import InstanceState, OnDemand, Role
from hypothesis import given
from hypothesis import strategies as st

ALL = OnDemand(patterns=["*"])


def place(name: str, *offers: str, zone: str = "", **more: object) -> Place:
    roles = dict.fromkeys(offers, Role.AUTO)
    known = {"on_demand": ALL, "zone": zone or name}
    return Place(name, roles, **{**known, **more})  # type: ignore[arg-type]


def test_the_least_full_for_its_capacity_gets_it() -> None:
    there = [place("a"), place("b", capacity=2.0), place("c")]
    given_ = actives([f"R{n}" for n in range(9)], there, {"a": 4})
    assert {name: len(names) for name, names in given_.items()} == {"b": 6, "c": 3}


def test_who_lags_drains_is_late_or_takes_none_gets_nothing() -> None:
    some = OnDemand(patterns=["X-*"])
    there = [
        place("a", lag_entries=None),
        place("b", state=InstanceState.DRAINING),
        place("c", doubted=True),
        place("d", on_demand=None),
        place("e", on_demand=some),
    ]
    assert actives(["R"], there, {}) == {}
    assert actives(["X-1"], there, {}) == {"e": ["X-1"]}


def test_a_standby_is_in_another_zone_where_there_is_one() -> None:
    there = [place("a1", "R", zone="a"), place("a2", zone="a"), place("b", "S", "T", zone="b")]
    assert standbys({"R": "a1"}, there, resting=()) == Orders(add={"b": ["R"]})
    assert standbys({"R": "a1"}, there[:2], resting=()) == Orders(add={"a2": ["R"]})


def test_nobody_stops_following_before_the_better_one_follows() -> None:
    before = [place("a1", "R", zone="a"), place("a2", "R", zone="a"), place("b", zone="b")]
    assert standbys({"R": "a1"}, before, resting=()) == Orders(add={"b": ["R"]})
    after = [*before[:2], place("b", "R", zone="b")]
    assert standbys({"R": "a1"}, after, resting=()) == Orders(remove={"a2": ["R"]})


def test_one_that_lags_goes_on_following() -> None:
    there = [place("a", "R"), place("b", "R", lag_entries=10_000), place("c")]
    assert not standbys({"R": "a"}, there, resting=())


def test_what_rests_is_followed_by_nobody_but_who_offers_it_by_name() -> None:
    by_name = place("b", "R", on_demand=OnDemand(patterns=["X-*"]))
    assert standbys({}, [place("a", "R"), by_name], resting={"R"}) == Orders(remove={"a": ["R"]})


@pytest.mark.parametrize("wanted", [0, 1, 2, 5])
def test_as_many_stand_by_as_the_most_generous_wants(wanted: int) -> None:
    generous = OnDemand(patterns=["*"], standbys=wanted)
    there = [place("a", "R"), place("b"), place("c"), place("d", on_demand=generous)]
    there[1:3] = [
        replace(each, on_demand=OnDemand(patterns=["*"], standbys=0)) for each in there[1:3]
    ]
    there[0] = replace(there[0], on_demand=OnDemand(patterns=["*"], standbys=0))
    orders = standbys({"R": "a"}, there, resting=())
    assert len(orders.add) == min(wanted, 3)


def _carried_out(there: list[Place], orders: Orders) -> list[Place]:
    def offers(each: Place) -> dict[str, Role]:
        gone = orders.remove.get(each.instance_id, [])
        kept = {name: role for name, role in each.offers.items() if name not in gone}
        return kept | dict.fromkeys(orders.add.get(each.instance_id, []), Role.AUTO)

    return [replace(each, offers=offers(each)) for each in there]


@given(
    zones=st.lists(st.sampled_from("xyz"), min_size=1, max_size=6),
    owned=st.lists(st.integers(0, 5), max_size=12),
    follows=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 5)), max_size=30),
    wanted=st.integers(0, 3),
)
def test_it_comes_to_an_end_with_as_many_standbys_as_there_can_be(
    zones: list[str], owned: list[int], follows: list[tuple[int, int]], wanted: int
) -> None:
    takes = OnDemand(patterns=["*"], standbys=wanted)
    names = [f"i{n}" for n in range(len(zones))]
    owners = {f"R{r}": names[i % len(names)] for r, i in enumerate(owned)}
    offers: dict[str, list[str]] = {name: [] for name in names}
    for resource, owner in owners.items():
        offers[owner].append(resource)
    for r, i in follows:
        if f"R{r}" in owners:
            offers[names[i % len(names)]].append(f"R{r}")
    there = [
        place(name, *offers[name], zone=zone, on_demand=takes)
        for name, zone in zip(names, zones, strict=True)
    ]
    for _ in range(4):
        orders = standbys(owners, there, resting=())
        if not orders:
            break
        there = _carried_out(there, orders)
    assert not standbys(owners, there, resting=())
    zone_of = dict(zip(names, zones, strict=True))
    for resource, owner in owners.items():
        others = [each.instance_id for each in there if each.instance_id != owner]
        following = [each.instance_id for each in there if resource in each.offers]
        assert owner in following
        assert len(following) - 1 == min(wanted, len(others))
        away = sum(zone_of[name] != zone_of[owner] for name in others)
        assert sum(zone_of[n] != zone_of[owner] for n in following) == min(away, wanted)
